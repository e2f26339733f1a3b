"""Each row of the table of policies, both ways, on real memory; and over all of them: no cold start is ever silent."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from detector.checkpoint import policies, restore
from detector.checkpoint.format import Gap, encode_manifest
from detector.checkpoint.policies import Policies
from detector.engine import Engine
from detector.errors import CheckpointError, CorruptCheckpointError, DataLostError, LineageError, PartitionsChangedError
from detector.model import rows
from detector.model.bundle import Bundle
from detector.records import Alert
from tests.scenarios.pumps import (
    BENCH,
    TINY,
    Pumps,
    bundle,
    engine,
    feed,
    memory,
    records,
    renamed,
    retrained,
    reworked,
)
from tests.scenarios.test_crashes import STEPS
from tests.scenarios.world import SHARD, S

OPEN = 525  # a position at which every pump has an open anomaly
END = 600  # all are closed again
COLD = Policies(cold=True)


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a process has left its checkpoint at OPEN."""
    return tmp_path_factory.mktemp("checkpointed")


@pytest.fixture
async def world(checkpointed: Path, tmp_path: Path) -> Pumps:
    """Its world, and more records to come."""
    made = Pumps(feed(OPEN), checkpointed / "state")
    if not made.files("manifest"):
        await made.begin()
    else:
        made.outputs["alerts"] = list(_whole(made.log)[1])
    shutil.copytree(checkpointed / "state", tmp_path / "state")
    after = Pumps(feed(END), tmp_path / "state")
    after.outputs = {"alerts": list(made.outputs["alerts"])}
    return after


def _whole(log: list[S], first: int = 0, to: Bundle = TINY) -> tuple[Engine, list[Alert]]:
    """An engine over the log in one piece."""
    whole = engine(to)
    whole.restore(first, -(2**63), [])
    return whole, whole.advance(records(log[first:], first)).alerts


def _said(logs: list[Any], event: str) -> list[Any]:
    return [entry for entry in logs if entry["event"].startswith(event)]


# No manifest --------------------------------------------------------------------------------------------------------


async def test_a_first_start_at_the_latest_stays_there_although_the_process_dies_at_once(tmp_path: Path) -> None:
    """Before its first record: the pin was durable before anything else."""
    world = Pumps(feed(100), tmp_path, start="latest", crash_at=("after manifest", 1))
    await world.begin()
    assert world.crashed == 1
    world.log += feed(50, 100)
    await world.begin()
    assert memory(world.engine) == memory(_whole(world.log, 100)[0])


# Records that are gone ----------------------------------------------------------------------------------------------


def _skipped(log: list[S], *, until: int, to: int) -> tuple[Engine, list[Alert]]:
    """An engine that never sees the records of a gap."""
    whole = engine(TINY)
    alerts = whole.advance(records(log[:until], 0)).alerts
    whole.restore(to, *_parts(whole))
    return whole, alerts + whole.advance(records(log[to:], to)).alerts


def _parts(of: Engine) -> tuple[Any, ...]:
    taken = of.snapshot(full=True)
    of.kept()
    return taken.highest_event_ns, taken.arenas, taken.last_position


async def test_records_that_are_gone_are_refused_unless_said(world: Pumps) -> None:
    """The refusal names the place, what was expected and what came."""
    world.low = 540
    with pytest.raises(DataLostError) as refusal:
        await world.begin()
    text = str(refusal.value)
    assert text.startswith(f"sensors-0 in {world.store.folder(SHARD)}: records after the checkpoint are gone")
    assert "expected position 525, got the first that is left, 540" in text
    assert "set on_data_loss to continue" in text


@pytest.mark.parametrize("to", [540, 580, OPEN + 3 * 200])
async def test_a_gap_is_gone_over_with_all_memory_and_told(world: Pumps, to: int) -> None:
    """Nothing is closed by it: that is left to the next sample, whose elapsed time spans the gap."""
    world.log = feed(to + 60)
    world.low, world.policies = to, Policies(on_data_loss="continue")
    with capture_logs() as logs:
        await world.begin()
    whole, alerts = _skipped(world.log, until=OPEN, to=to)
    assert world.alerts() == alerts
    assert memory(world.engine) == memory(whole)
    assert world.manifest().gaps == [Gap(start=OPEN, end=to)]
    assert world.metric("positions_lost_total") == to - OPEN
    (told,) = _said(logs, "records were gone")
    assert (told["first"], told["last"]) == (OPEN, to - 1)
    is_long = to > OPEN + 3 * 60  # longer than resolve_after_s
    assert ("gap" in [alert.reason for alert in alerts]) == is_long


@pytest.mark.parametrize("step", STEPS)
async def test_a_gap_is_one_gap_whatever_dies_on_the_way(world: Pumps, step: str) -> None:
    """And the next one is another."""
    world.low, world.policies = 540, Policies(on_data_loss="continue")
    world.crash_at = (step, 1)
    await world.survive()
    assert world.crashed == 1
    assert world.manifest().gaps == [Gap(start=OPEN, end=540)]
    assert world.alerts() == _skipped(world.log, until=OPEN, to=540)[1]
    world.log += feed(60, END)
    world.low = END + 20
    await world.begin()
    assert world.manifest().gaps == [Gap(start=OPEN, end=540), Gap(start=END, end=END + 20)]


async def test_behind_a_gap_no_alert_that_was_sent_is_sent_again(world: Pumps) -> None:
    """Its records were read before the process died: ids that stand on the output are known there as ever."""
    world.every_s = 1000
    world.crashes.add(590)
    await world.begin()
    assert world.crashed == 1
    sent = len(world.alerts())
    world.low, world.policies = 540, Policies(on_data_loss="continue")
    await world.begin()
    ids = [alert.id for alert in world.alerts()]
    assert len(set(ids)) == len(ids) > sent
    assert {alert.id for alert in _skipped(world.log, until=OPEN, to=540)[1]} <= set(ids)


# Another source -----------------------------------------------------------------------------------------------------


def _cut(world: Pumps) -> None:
    del world.log[500:]


def _anew(world: Pumps) -> None:
    world.log[OPEN - 1 : OPEN] = [S(1, "someone-else")]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_cut, r"the source ends before the checkpoint: expected position 525, got an end of 500 \("),
        (_anew, r"what stands before position 525 has changed: expected S.*pump-2.*, got S.*someone-else.* \("),
    ],
)
async def test_another_source_under_the_same_name_is_refused_unless_cold(world: Pumps, harm: Any, words: str) -> None:
    """Cut, or created anew; with --cold it starts without memory, where `start` says, and each stream is told."""
    harm(world)
    before = world.alerts()[:]
    with pytest.raises(LineageError, match=f"^sensors-0 in .*: {words}.*run --cold"):
        await world.begin()
    world.policies = COLD
    with capture_logs() as logs:
        await world.begin()
    whole, alerts = _whole(world.log)
    assert memory(world.engine) == memory(whole)
    assert world.alerts() == before + alerts
    assert world.metric("streams_memory_lost_total") == 3
    lost = {entry["stream"]: entry for entry in _said(logs, "a stream's memory is given up")}
    assert lost.keys() == {"pump-0", "pump-1", "pump-2"}
    assert all(entry["open_anomaly"] and entry["last_heard"] == "2020-09-13T12:55:40+00:00" for entry in lost.values())
    (summed,) = _said(logs, "starting without memory")
    assert (summed["streams"], summed["open_anomalies"], summed["position"]) == (3, 3, OPEN)
    assert summed["old_checkpoint"] == str(world.store.folder(SHARD))


@pytest.mark.parametrize("step", STEPS)
async def test_after_a_cold_start_equal_ids_are_no_reason_to_hold_an_alert_back(world: Pumps, step: str) -> None:
    """The topic was created anew: the same offsets mean other records. But what the new memory sent is known to it."""
    _anew(world)
    before = world.alerts()[:]
    whole, alerts = _whole(world.log)
    assert {alert.id for alert in before} & {alert.id for alert in alerts}, "the test needs ids that collide"
    world.policies, world.crash_at, world.pace_s = COLD, (step, 3), 0.001
    await world.survive()
    assert world.crashed == 1
    assert world.alerts() == before + alerts
    assert memory(world.engine) == memory(whole)


async def test_old_files_stay_until_the_new_memory_has_two_checkpoints(world: Pumps) -> None:
    """A cold start that was a mistake can be taken back by hand until then."""
    old = {path.name: path.read_bytes() for path in (*world.files("manifest"), *world.files("segment"))}
    _anew(world)
    world.policies, world.pace_s = COLD, 0.001
    world.crash_at = ("before manifest", 3)  # those before were the first of all and the first checkpoint
    await world.begin()
    assert (world.crashed, world.manifest().epoch) == (1, 1)
    folder = world.store.folder(SHARD)
    assert {name: (folder / name).read_bytes() for name in old} == old
    world.policies = Policies()  # it was needed once
    await world.begin()
    assert world.manifest().epoch > 2
    assert not any((folder / name).exists() for name in old)


# Bundles ------------------------------------------------------------------------------------------------------------


async def test_a_new_file_around_the_same_graph_keeps_everything(world: Pumps) -> None:
    """Only the name in the alerts is another one."""
    world.bundle = renamed(TINY)
    with capture_logs() as logs:
        await world.begin()
    assert memory(world.engine) == memory(_whole(world.log)[0])
    assert {alert.bundle for alert in world.alerts()} == {"tiny-any@1", "tiny-any@2"}
    (told,) = _said(logs, "streams go on under another bundle")
    assert (told["fresh"], told["streams_of_the_shard"]) == ([], 3)


def _carried(log: list[S], to: Bundle) -> tuple[Engine, list[Alert]]:
    """What a retrained bundle must give: all memory but the hidden state, set to its initial value by hand."""
    before = engine(TINY)
    alerts = before.advance(records(log[:OPEN], 0)).alerts
    highest_ns, arenas, last = _parts(before)
    for some in arenas:
        initial, state = to.initial_row(2), some.arrays["state"].copy()
        (hidden,) = (part for part in to.row_layout if part.name == "hidden")
        for channel in range(2):
            start = to.joint + channel * to.per_channel + hidden.offset
            state[:, start : start + hidden.width] = initial[start : start + hidden.width]
        some.arrays["state"] = state
    after = engine(to)
    after.restore(OPEN, highest_ns, [replace(some, bundle_sha256=to.sha256) for some in arenas], last)
    return after, alerts + after.advance(records(log[OPEN:], OPEN)).alerts


@pytest.mark.parametrize("step", [None, *STEPS])
async def test_other_weights_take_memory_over_but_for_the_hidden_state(world: Pumps, step: str | None) -> None:
    """Whatever dies between the restore and the first base; open anomalies stay open and close as they would."""
    world.bundle = retrained(TINY)
    if step is not None:
        world.crash_at = (step, 1)
    await world.survive()
    assert world.crashed == (step is not None)
    whole, alerts = _carried(world.log, world.bundle)
    assert memory(world.engine) == memory(whole)
    assert world.alerts() == alerts
    assert "close" in {alert.event for alert in alerts[3:]}
    manifest = world.manifest()
    assert not manifest.mixed
    assert {each.bundle_sha256 for each in (*manifest.arenas, *manifest.bundles)} == {world.bundle.sha256}


async def test_until_its_first_base_the_manifest_says_whose_rows_they_are(world: Pumps) -> None:
    """So going back to the old bundle before it is as if nothing had happened."""
    world.bundle, world.crash_at = retrained(TINY), ("after manifest", 1)
    await world.begin()
    manifest = world.manifest()
    assert manifest.mixed
    assert {each.bundle_sha256 for each in manifest.arenas} == {TINY.sha256}
    assert {each.bundle_sha256 for each in manifest.bundles} == {TINY.sha256, world.bundle.sha256}
    world.bundle = TINY
    await world.begin()
    assert memory(world.engine) == memory(_whole(world.log)[0])
    assert world.alerts() == _whole(world.log)[1]


async def test_a_bundle_of_another_width_takes_memory_over(world: Pumps) -> None:
    """The one in the box goes on where a smaller one stopped; the next restart is one like any other."""
    world.bundle = BENCH
    await world.begin()
    assert world.metric("streams_carried_over_total") == 3
    assert world.engine.streams == 3
    world.log += feed(30, END)
    before = memory(world.engine)
    await world.begin()
    assert world.metric("streams_carried_over_total") == 0
    whole = engine(BENCH)
    whole.restore(END, *_parts(world.engine))
    assert memory(world.engine) != before
    assert memory(whole) == memory(world.engine)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            reworked(TINY, "channel.variance", version=2),
            r"expected rows of tiny-any@1 .*, with channel.variance\[\] ver",
        ),
        (reworked(TINY, "channel.averages", name="means"), r"with channel.averages\[16\] version 1, got tiny-any@3 "),
        (bundle("tiny-fixed"), r"expected channels flow, heat, as tiny-any@1 .* has them, got flow, head_pressure, "),
    ],
    ids=["version", "name", "channels"],
)
async def test_a_bundle_that_cannot_go_on_with_the_rows_is_refused_unless_cold(
    world: Pumps, changed: Bundle, words: str
) -> None:
    """With the parts that differ."""
    world.bundle = changed
    with pytest.raises(LineageError, match=rf"^sensors-0 in .*: bundle of detector 'pumps': .*{words}.*run --cold"):
        await world.begin()
    world.policies = COLD
    await world.begin()
    assert world.metric("streams_memory_lost_total") == 3
    assert memory(world.engine) == memory(_whole(world.log, to=changed)[0])


async def test_a_checkpoint_that_does_not_say_what_its_rows_are_made_of_goes_with_its_own_bundle_alone(
    world: Pumps,
) -> None:
    """As those of the first format."""
    rewrite(world, bundles=[])
    world.bundle = retrained(TINY)
    with pytest.raises(LineageError, match="it does not say what its rows are made of, got tiny-any@3"):
        await world.begin()
    world.bundle = TINY
    await world.begin()
    assert memory(world.engine) == memory(_whole(world.log)[0])
    assert [each.bundle_sha256 for each in world.manifest().bundles] == [TINY.sha256]


def rewrite(world: Pumps, **changes: Any) -> None:
    """Leave one manifest, with changes."""
    manifest, (newest, *older) = world.manifest(), world.files("manifest")
    newest.write_bytes(encode_manifest(msgspec.structs.replace(manifest, **changes)))
    for path in older:
        path.unlink()


# The rest of the table ----------------------------------------------------------------------------------------------


async def test_another_configuration_goes_on_and_is_told(world: Pumps) -> None:
    """So are other numerics, after which a replay may differ in its last bits."""
    rewrite(world, configuration="another", numerics="another")
    with capture_logs() as logs:
        await world.begin()
    (told,) = _said(logs, "changed since the checkpoint")
    assert told["what"] == ["configuration", "numerics"]
    assert memory(world.engine) == memory(_whole(world.log)[0])


async def test_other_columns_of_decide_are_refused_unless_cold(world: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another release meant by its columns is not guessed."""
    for module in (policies, restore):
        monkeypatch.setattr(module, "DECIDE_VERSION", 9)
    monkeypatch.setattr(policies, "KNOWN_VERSIONS", {9})
    with pytest.raises(LineageError, match=r"version of decide's columns: expected 9, got 2 \(run the release"):
        await world.begin()
    world.policies = COLD
    await world.begin()
    assert world.metric("streams_memory_lost_total") == 3
    assert world.manifest().decide_version == 9


async def test_another_number_of_partitions_is_refused_unless_said(world: Pumps) -> None:
    """With both numbers; said so, the manifest takes the new one, and no later start asks again."""
    rewrite(world, partitions=3)
    world.partitions = 3
    await world.begin()
    world.partitions = 4
    with pytest.raises(
        PartitionsChangedError, match="number of partitions of the topic: expected 3, as at the checkpoint, got 4"
    ):
        await world.begin()
    world.policies = COLD  # there is no need to lose memory over this
    with pytest.raises(PartitionsChangedError, match="number of partitions"):
        await world.begin()
    world.policies = Policies(on_partitions_changed="continue")
    with capture_logs() as logs:
        await world.begin()
    (told,) = _said(logs, "the topic has another number of partitions")
    assert (told["before"], told["now"]) == (3, 4)
    assert world.manifest().partitions == 4
    world.policies = Policies()
    await world.begin()
    assert memory(world.engine) == memory(_whole(world.log)[0])


async def test_a_checkpoint_that_knows_no_number_of_partitions_learns_it(world: Pumps) -> None:
    """As those of the first format."""
    world.partitions = 4
    await world.begin()
    assert world.manifest().partitions == 4


@pytest.mark.parametrize("harmed", ["manifest", "segment"])
async def test_where_everything_is_damaged_cold_names_what_can_still_be_read(world: Pumps, harmed: str) -> None:
    """Without manifests the segments still tell whose rows they were."""
    for path in world.files(harmed):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptCheckpointError) as refusal:
        await world.begin()
    assert f"sensors-0 in {world.store.folder(SHARD)}: every manifest is damaged" in str(refusal.value)
    assert "tidewarden run --cold" in str(refusal.value)
    world.policies = COLD
    with capture_logs() as logs:
        await world.begin()
    (summed,) = _said(logs, "starting without memory")
    assert summed["streams"] == (3 if harmed == "manifest" else 0)
    assert bool(summed["unread"]) == (harmed == "segment")
    assert memory(world.engine) == memory(_whole(world.log)[0])


async def test_cold_takes_nothing_from_a_checkpoint_that_fits(world: Pumps) -> None:
    """It is no order to forget."""
    world.policies = COLD
    await world.begin()
    assert memory(world.engine) == memory(_whole(world.log)[0])
    assert world.alerts() == _whole(world.log)[1]
    assert world.metric("streams_memory_lost_total") == 0


async def test_cold_begins_where_start_says(world: Pumps) -> None:
    """At the latest; and `fail` still means that no shard starts without memory."""
    _anew(world)
    world.policies, world.start = COLD, "fail"
    with pytest.raises(CheckpointError, match="no checkpoint, and start is fail"):
        await world.begin()
    world.start = "latest"
    await world.begin()
    assert world.manifest().position == END
    assert world.engine.streams == 0


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_no_cold_start_is_ever_silent(checkpointed: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever happened to store and source: a start refuses, has all memory, or was told to do without and says so."""
    shutil.rmtree(tmp_path)
    shutil.copytree(checkpointed / "state", tmp_path / "state")
    world = Pumps(feed(END), tmp_path / "state")
    for harm in data.draw(st.lists(st.sampled_from(_HARMS), max_size=3, unique=True)):
        harm(world, data)
    world.policies = Policies(
        on_data_loss=data.draw(st.sampled_from(["fail", "continue"])),
        on_partitions_changed=data.draw(st.sampled_from(["fail", "continue"])),
        cold=data.draw(st.booleans()),
    )
    await start_and_judge(world)


async def start_and_judge(world: Pumps) -> None:
    """A start may refuse and say where; else it has all memory, or gave it up as it was told to."""
    refused = ""
    with capture_logs() as logs:
        try:
            await world.begin()
        except CheckpointError as refusal:
            refused = str(refusal)
    if refused:
        assert str(world.folder) in refused, "a refusal names the store"
        return
    restored, begun = _said(logs, "shard restored"), _said(logs, "shard started without memory")
    assert len(restored) + len(begun) == 1
    if restored:
        assert restored[0]["streams"] == 3
    else:
        assert world.policies.cold
        assert _said(logs, "starting without memory, as --cold says")


def _flip(world: Pumps, data: st.DataObject) -> None:
    for path in data.draw(st.lists(st.sampled_from(sorted(world.store.folder(SHARD).iterdir())), max_size=4)):
        if content := bytearray(path.read_bytes()):
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(content)


def _cut_file(world: Pumps, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(world.store.folder(SHARD).iterdir())))
    path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, path.stat().st_size))])


def _lose_records(world: Pumps, data: st.DataObject) -> None:
    world.low = data.draw(st.integers(0, END))


def _cut_source(world: Pumps, data: st.DataObject) -> None:
    del world.log[data.draw(st.integers(0, END)) :]


def _change_bundle(world: Pumps, data: st.DataObject) -> None:
    world.bundle = data.draw(st.sampled_from([renamed(TINY), retrained(TINY), reworked(TINY, "joint.high", version=9)]))


_HARMS = [
    _flip,
    _cut_file,
    _lose_records,
    _cut_source,
    _change_bundle,
    lambda world, _: _anew(world),
    lambda world, _: setattr(world, "partitions", 5),
]


# Controls: the tests above have teeth -------------------------------------------------------------------------------


async def test_control_a_silent_cold_start_is_seen(world: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where damaged manifests are taken for none."""

    async def nothing(*_: Any) -> None:
        """As if there had never been a checkpoint."""

    monkeypatch.setattr(restore, "load", nothing)
    with pytest.raises(AssertionError):
        await start_and_judge(world)


async def test_control_marks_of_the_old_memory_hold_new_alerts_back(
    world: Pumps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a cold start forgets where its outputs begin, an alert that nobody has seen is taken for a copy."""

    async def none(*_: Any) -> dict[str, int]:
        """No marks: all that stands there counts."""
        return {}

    _anew(world)
    monkeypatch.setattr(restore, "marks_now", none)
    world.policies, world.crash_at, world.every_s = COLD, ("after manifest", 1), 1000
    before = world.alerts()[:]
    await world.survive()
    assert world.crashed == 1
    assert world.alerts() != before + _whole(world.log)[1]


async def test_control_a_hidden_state_of_other_weights_shows(world: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is carried over like any other part."""
    monkeypatch.setattr(rows, "HIDDEN", "no such part")
    world.bundle = retrained(TINY)
    await world.begin()
    assert memory(world.engine) != memory(_carried(world.log, world.bundle)[0])
