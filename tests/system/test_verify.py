"""`tidewarden verify` on a real broker, over a feed with checkpoints and kills: it says equal, and names what is not.

What stands on the outputs is copied to topics of its own, where one digit is changed, a record is left out, another is
put in: each must be named exactly, or nobody could trust the word "equal".
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from aiokafka import AIOKafkaConsumer, TopicPartition
from typer.testing import CliRunner, Result

from detector import cli
from detector.checkpoint.format import Manifest, decode_manifest, encode_manifest
from detector.engine.freezing import Freezing
from detector.errors import CannotVerifyError, ConfigurationError
from tests.golden import learner
from tests.kafka.topics import create_topic, delete_records, produce, read_all
from tests.system.conftest import say
from tests.system.feed import Feed
from tests.system.feeder import Feeder
from tests.system.processes import ROOT, until
from tests.system.site import KafkaSite, kafka_site
from tests.system.test_kill import finish

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

KILLS = 4
PER_S = 900.0  # records of each topic; on a quick machine all is over in seconds, and alerts are to come in them
PARTITION = 1
FROZEN = [{"stream": "pump-0*", "from": "2020-09-13T13:00:00Z"}]  # 200 ticks behind the first of 2 x CALM

Sent = dict[str, list[bytes]]
"""What stands on the outputs' partition, by kind."""


@pytest.fixture(scope="module")
def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> KafkaSite:
    """A daemon that was killed a few times over a wide and a narrow topic, with a history of many checkpoints."""
    seed = random.SystemRandom().randrange(10**6)
    say(f"seed {seed}")
    folder = tmp_path_factory.mktemp("verify")

    async def work() -> KafkaSite:
        feeds = {name: Feed(seed, partitions=2, streams=20, narrow=name == "narrow") for name in ("wide", "narrow")}
        store = {"type": "dir", "path": str(folder / "state"), "keep_history": "9999/min for 1h"}
        made = await kafka_site(kafka, folder, feeds, store=store, every_s=0.25)
        made.write(yaml.safe_load(made.config.read_text()) | {"engine": {"max_streams": 6}})  # of 10: some are evicted
        daemon, kept = made.start(), 0
        try:
            async with Feeder(made, PER_S) as feeder:
                for _ in range(KILLS):
                    await until(lambda kept=kept: fewest_kept(made) >= kept + 2, "more history")
                    daemon.kill()
                    kept, daemon = fewest_kept(made), made.start()
                await feeder.finish()
            await finish(made, [daemon])
        finally:
            daemon.end()
        return made

    return asyncio.run(work())


def fewest_kept(site: KafkaSite) -> int:
    """How many checkpoints the shard with the shortest history has kept."""
    folders = list((site.folder / "state").glob("*/"))
    return min((len(list(folder.glob("history-*.json"))) for folder in folders), default=0) if len(folders) == 4 else 0


def kept_as_history(site: KafkaSite) -> list[Manifest]:
    """Every manifest of the history."""
    return [decode_manifest(path.read_bytes(), path) for path in (site.folder / "state").rglob("history-*.json")]


@pytest.fixture(params=["wide", "narrow"])
def source(request: pytest.FixtureRequest) -> str:
    """Which of its topics."""
    return str(request.param)


def verify(site: KafkaSite, source: str, *arguments: object, config: Path | None = None) -> Result:
    """The command."""
    of = ["--source", source, "--topic", site.topics[source]]
    line = ["verify", "-c", config or site.config, *of, *arguments]
    return CliRunner().invoke(cli.app, [str(each) for each in line])


def verdict(result: Result) -> Any:
    """What it says, for programs."""
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    return json.loads(result.stdout)


def listed(site: KafkaSite, source: str) -> list[dict[str, Any]]:
    """The checkpoints of the partition."""
    found: list[dict[str, Any]] = verdict(verify(site, source, "--partition", PARTITION, "--list", "--json"))
    assert len(found) >= 5, "too little history to prove anything"
    return found


def middle(site: KafkaSite, source: str) -> tuple[int, int]:
    """A range that begins and ends between checkpoints."""
    positions = [each["from_offset"] for each in listed(site, source)]
    return positions[1] + 7, positions[-1] - 5


def over(site: KafkaSite, source: str, config: Path | None = None, span: tuple[int, int] | None = None) -> Result:
    """Verify the middle."""
    start, end = span or middle(site, source)
    options = ("--partition", PARTITION, "--from-offset", start, "--to-offset", end, "--json")
    return verify(site, source, *options, config=config)


def sent_from(site: KafkaSite, source: str, span: tuple[int, int]) -> Callable[[bytes], bool]:
    """Whether a score or alert comes from a record of the range."""

    def is_so(value: bytes) -> bool:
        of = json.loads(value)["source"]
        is_shard = (of["topic"], of["partition"]) == (site.topics[source], PARTITION)
        return is_shard and span[0] <= of["offset"] < span[1]

    return is_so


def copied(site: KafkaSite, tmp_path: Path, change: Callable[[Sent], None]) -> Path:
    """A configuration whose outputs are copies, changed."""

    async def copy() -> dict[str, str]:
        topics = {"alerts": site.alerts_topic, "scores": site.scores_topic}
        standing = {kind: (await read_all(site.address, topic))[PARTITION] for kind, topic in topics.items()}
        sent = {kind: [record.value for record in records] for kind, records in standing.items()}
        change(sent)
        made = {kind: await create_topic(site.address, 2) for kind in topics}
        for kind, topic in made.items():
            await produce(site.address, topic, sent[kind], partition=PARTITION)
        return made

    settings = yaml.safe_load(site.config.read_text())
    made = asyncio.run(copy())
    settings["sinks"]["alerts"]["out"]["topic"] = made["alerts"]
    settings["sinks"]["scores"]["all"]["topic"] = made["scores"]
    path = tmp_path / "copy.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def traces(site: KafkaSite) -> dict[str, Any]:
    """All that a reader could leave on the broker: offsets of groups, ends of topics."""

    async def look() -> dict[str, Any]:
        found: dict[str, Any] = {}
        groups = {each.group for each in site.settings.sources.values()}
        topics = [*site.topics.values(), site.alerts_topic, site.scores_topic]
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(2)]
        for group in sorted(groups):
            consumer = AIOKafkaConsumer(bootstrap_servers=site.address, group_id=group, enable_auto_commit=False)
            await consumer.start()
            try:
                found[group] = {str(each): await consumer.committed(each) for each in partitions}
                ends = await consumer.end_offsets(partitions)
            finally:
                await consumer.stop()
            found["ends"] = {str(each): end for each, end in ends.items()}
        return found

    files = {path: path.read_bytes() for path in (site.folder / "state").rglob("*") if path.is_file()}
    return asyncio.run(look()) | {"files": files}


def test_an_untouched_past_is_equal_and_stays_untouched(site: KafkaSite, source: str) -> None:
    """Every score and alert of the range; no offset, topic or file is another afterwards."""
    before = traces(site)
    said = verdict(over(site, source))
    assert said["verdict"] == "all equal"
    assert said["differences"] == []
    assert said["checkpoint"]["position"] <= said["from_offset"]
    assert min(said["scores"] / 20, said["alerts"]) > 5, "too quiet to prove anything"
    assert any(manifest.cold for manifest in kept_as_history(site)), "no stream was evicted"
    assert [each["compared"] for each in said["outputs"]] == [said["alerts"], said["scores"]]
    assert traces(site) == before
    assert any(each is not None for each in before[site.settings.sources[source].group].values())


def test_a_range_may_be_told_in_times(site: KafkaSite) -> None:
    """Those of the records; a time without a zone is UTC."""
    records = asyncio.run(read_all(site.address, site.topics["wide"]))[PARTITION]
    start, end = middle(site, "wide")
    times = [_iso(records[offset].timestamp) for offset in (start, end)]
    said = verdict(verify(site, "wide", "--partition", PARTITION, "--from", times[0], "--to", times[1], "--json"))
    first = next(record.offset for record in records if record.timestamp >= records[start].timestamp)
    last = next(record.offset for record in records if record.timestamp >= records[end].timestamp)
    assert (said["verdict"], said["from_offset"], said["to_offset"]) == ("all equal", first, last)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")


def test_what_is_told_to_people_fits_their_terminal(site: KafkaSite) -> None:
    """The verdict last; 80 columns but for names."""
    start, end = middle(site, "wide")
    told = verify(site, "wide", "--partition", PARTITION, "--from-offset", start, "--to-offset", end)
    assert told.exit_code == 0
    assert told.stdout.endswith("\nall equal\n")
    assert max(map(len, told.stdout.splitlines())) <= 80


def test_a_changed_digit_of_a_score_is_named(site: KafkaSite, source: str, tmp_path: Path) -> None:
    """Stream, offset, field, what must stand there and what does; nothing else differs."""
    span = middle(site, source)
    is_ours, victim = sent_from(site, source, span), {}

    def change(sent: Sent) -> None:
        at = [number for number, value in enumerate(sent["scores"]) if is_ours(value)][37]
        score = json.loads(sent["scores"][at])
        victim.update(score)
        sent["scores"][at] = sent["scores"][at].replace(b'"score":', b'"score":1')

    done = over(site, source, copied(site, tmp_path, change), span)
    (difference,) = verdict(done)["differences"]
    assert done.exit_code == 1
    assert (difference["what"], difference["kind"], difference["field"]) == ("altered", "scores", "score")
    assert (difference["stream"], difference["offset"]) == (victim["stream"], victim["source"]["offset"])
    assert (difference["expected"], difference["got"]) == (victim["score"], float(f"1{victim['score']}"))


def test_an_altered_alert_is_named(site: KafkaSite, source: str, tmp_path: Path) -> None:
    """Appended behind the true one, with its id: a copy that is none."""
    span = middle(site, source)
    is_ours, forged = sent_from(site, source, span), {}

    def change(sent: Sent) -> None:
        alert = json.loads(next(value for value in sent["alerts"] if is_ours(value)))
        forged.update(alert | {"peak_score": 14.5})
        sent["alerts"].append(json.dumps(forged).encode())

    done = over(site, source, copied(site, tmp_path, change), span)
    (difference,) = verdict(done)["differences"]
    assert done.exit_code == 1
    assert (difference["what"], difference["kind"], difference["field"]) == ("altered", "alerts", "peak_score")
    assert (difference["stream"], difference["got"]) == (forged["stream"], 14.5)


def test_missing_and_forged_records_are_named(site: KafkaSite, tmp_path: Path) -> None:
    """A score that was never sent, an alert that the records do not give."""
    span = middle(site, "wide")
    is_ours, lost = sent_from(site, "wide", span), {}

    def change(sent: Sent) -> None:
        one = next(value for value in sent["scores"] if is_ours(value))
        lost.update(json.loads(one))
        sent["scores"] = [value for value in sent["scores"] if value != one]  # a kill may have left copies
        alert = json.loads(next(value for value in sent["alerts"] if is_ours(value) and b'"silent"' not in value))
        sent["alerts"].append(json.dumps(alert | {"id": "0" * 32}).encode())

    done = verdict(over(site, "wide", copied(site, tmp_path, change), span))
    found = {(each["what"], each["kind"]): each for each in done["differences"]}
    assert found.keys() == {("missing", "scores"), ("extra", "alerts")}
    assert found["missing", "scores"]["offset"] == lost["source"]["offset"]
    assert found["extra", "alerts"]["got"] == "0" * 32


def test_copies_that_are_equal_are_no_difference(site: KafkaSite, tmp_path: Path) -> None:
    """At least once is what is promised."""
    span = middle(site, "wide")

    def change(sent: Sent) -> None:
        for values in sent.values():
            values += values[-50:]

    said = verdict(over(site, "wide", copied(site, tmp_path, change), span))
    assert said["verdict"] == "all equal"
    assert sum(each["copies"] for each in said["outputs"]) > 0


@pytest.mark.parametrize(
    ("span", "expected"),
    [((0, 5), "no checkpoint at or before offset 0: expected history that reaches it, got offsets"),
     ((10**9, 2 * 10**9), "can be verified")],
)  # fmt: skip
def test_a_range_outside_of_history_is_refused(site: KafkaSite, span: tuple[int, int], expected: str) -> None:
    """With what can be verified; exit code 2 says that nothing is known."""
    first = listed(site, "wide")[0]["from_offset"]
    if first == 0 and span[0] == 0:
        pytest.fail("the history begins with the log: the test shows nothing")
    done = over(site, "wide", span=span)
    assert isinstance(done.exception, CannotVerifyError)
    assert done.exception.exit_code == 2
    assert expected in str(done.exception)


def test_an_end_behind_the_last_checkpoint_is_cut(site: KafkaSite) -> None:
    """What follows may be on its way still; people are told."""
    start, _ = middle(site, "wide")
    end = listed(site, "wide")[-1]["to_offset"]
    told = verify(site, "wide", "--partition", PARTITION, "--from-offset", start, "--to-offset", end + 10**6)
    assert told.exit_code == 0
    assert f"offsets {start} to {end - 1}" in told.stdout


def test_another_bundle_or_configuration_cannot_verify(site: KafkaSite, tmp_path: Path) -> None:
    """It would differ, and prove nothing."""
    for change, expected in (
        ({"bundle": str(ROOT / "tests/golden/bench.onnx")}, "bundle of detector 'pumps'"),
        ({"time_zone": "Europe/Berlin"}, "configuration"),
    ):
        settings = yaml.safe_load(site.config.read_text())
        settings["detectors"]["pumps"] |= change
        path = tmp_path / "other.yaml"
        path.write_text(yaml.safe_dump(settings))
        done = over(site, "wide", path)
        assert isinstance(done.exception, CannotVerifyError)
        assert expected in str(done.exception)


def test_what_cannot_be_meant_is_refused(site: KafkaSite) -> None:
    """Exit code 2, with what was expected."""
    for options in (
        ["--partition", PARTITION, "--from-offset", 1],
        ["--partition", PARTITION, "--from", "yesterday", "--to-offset", 9],
        ["--from-offset", 1, "--to-offset", 9],
        ["--partition", 7, "--from-offset", 1, "--to-offset", 9],
    ):
        done = verify(site, "wide", *options)
        assert isinstance(done.exception, ConfigurationError | CannotVerifyError)
        assert done.exception.exit_code == 2


@pytest.fixture
def other_numerics(site: KafkaSite) -> Iterator[None]:
    """The same past, made on another kind of processor, as its checkpoints say."""
    before = {path: path.read_bytes() for path in (site.folder / "state").rglob("*.json")}
    for path, data in before.items():
        path.write_bytes(encode_manifest(msgspec.structs.replace(decode_manifest(data, path), numerics="abacus")))
    yield
    for path, data in before.items():
        path.write_bytes(data)


@pytest.mark.usefixtures("other_numerics")
def test_other_numerics_are_told_and_compared_within_the_tolerance(site: KafkaSite, tmp_path: Path) -> None:
    """The bundle's own: a score within it is equal, one beyond it is not."""
    span = middle(site, "wide")
    is_ours = sent_from(site, "wide", span)

    def by(nines: float) -> Callable[[Sent], None]:
        def change(sent: Sent) -> None:
            at = [number for number, value in enumerate(sent["scores"]) if is_ours(value)][37]
            score = json.loads(sent["scores"][at])
            sent["scores"][at] = json.dumps(score | {"score": score["score"] + nines}).encode()

        return change

    near = verdict(over(site, "wide", copied(site, tmp_path, by(1e-6)), span))
    assert (near["verdict"], near["other_numerics"]) == ("all equal within the tolerance", "abacus")
    far = verdict(over(site, "wide", copied(site, tmp_path, by(0.5)), span))
    assert [each["field"] for each in far["differences"]] == ["score"]


def test_the_list_says_what_can_be_verified(site: KafkaSite, source: str) -> None:
    """Each line a checkpoint: from where, until where, how old, whether the log is still there."""
    found = listed(site, source)
    positions: Sequence[int] = [each["from_offset"] for each in found]
    assert list(positions) == sorted(positions)
    assert {each["log"] for each in found} == {"there"}
    assert "history" in {each["kept"] for each in found}
    assert {each["to_offset"] for each in found} == {max(positions)}


@pytest.mark.parametrize("store", ["kafka", "object"], indirect=True)
async def test_history_in_other_stores_verifies_as_well(
    kafka: str, tmp_path: Path, store: dict[str, Any], seed: int
) -> None:
    """A checkpoint is a checkpoint, wherever it lies."""
    keep = {"keep_history": "60/min for 1h"}
    made = await kafka_site(
        kafka, tmp_path, {"wide": Feed(seed, partitions=2, streams=20)}, store=store | keep, every_s=0.3
    )

    def kept() -> int:
        found = verify(made, "wide", "--partition", PARTITION, "--list", "--json")
        return len(json.loads(found.stdout or "[]"))

    daemon = made.start()
    try:
        async with Feeder(made, PER_S) as feeder:
            async with asyncio.timeout(120):
                while await asyncio.to_thread(kept) < 7:  # the last ones may be listed once, as history and newest
                    await asyncio.sleep(0.2)
            await feeder.finish()
        await finish(made, [daemon])
    finally:
        daemon.end()
    said = verdict(await asyncio.to_thread(over, made, "wide"))
    assert (said["verdict"], said["scores"] > 20) == ("all equal", True)


@pytest.fixture(scope="module")
def frozen_site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> KafkaSite:
    """A daemon half of whose streams learn nothing from the middle of the feed on, kept from before that."""
    folder, seed = tmp_path_factory.mktemp("frozen"), random.SystemRandom().randrange(10**6)
    say(f"seed {seed}")

    async def work() -> KafkaSite:
        store = {"type": "dir", "path": str(folder / "state"), "keep_history": "9999/min for 1h"}
        feed = Feed(seed, partitions=2, streams=20)
        made = await kafka_site(kafka, folder, {"wide": feed}, store=store, every_s=0.25)
        settings = yaml.safe_load(made.config.read_text())
        settings["detectors"]["pumps"] |= {"bundle": str(learner.PATH), "freeze": FROZEN}
        made.write(settings)
        daemon = made.start()
        try:
            async with Feeder(made, 0.0) as feeder:  # as many ticks as are calm
                await feeder.finish()
            await until(lambda: bool(kept_positions(made)), "a checkpoint before the freeze")
            async with Feeder(made, 0.0) as feeder:  # as many again
                await feeder.finish()
            await finish(made, [daemon])
        finally:
            daemon.end()
        return made

    return asyncio.run(work())


def kept_positions(site: KafkaSite) -> list[int]:
    """Where the partition's history can be entered."""
    return sorted(each.position for each in kept_as_history(site) if each.partition == PARTITION)


def frozen_span(site: KafkaSite) -> tuple[int, int]:
    """A range that begins before the freeze, between checkpoints, and ends in it."""
    return kept_positions(site)[0] + 7, len(site.feeds["wide"].taken[PARTITION]) - 5


def test_a_range_with_a_freeze_in_it_verifies(frozen_site: KafkaSite) -> None:
    """The replay freezes the samples that were frozen, and no other; the streams beside them learn on."""
    said = verdict(over(frozen_site, "wide", span=frozen_span(frozen_site)))
    assert (said["verdict"], said["differences"]) == ("all equal", [])
    assert said["scores"] > 200


def test_control_a_replay_that_freezes_nothing_differs(frozen_site: KafkaSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the freeze on, and in frozen streams alone."""

    def nothing(self: Freezing, *arguments: Any) -> None:
        return None

    monkeypatch.setattr(Freezing, "learning", nothing)
    done = over(frozen_site, "wide", span=frozen_span(frozen_site))
    differences = verdict(done)["differences"]
    assert done.exit_code == 1
    assert {each["stream"] for each in differences} <= {f"pump-{number:02d}" for number in range(10)}


def test_another_freeze_cannot_verify(frozen_site: KafkaSite, tmp_path: Path) -> None:
    """It is another configuration."""
    settings = yaml.safe_load(frozen_site.config.read_text())
    settings["detectors"]["pumps"]["freeze"][0]["until"] = "2030-01-01T00:00Z"
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(settings))
    done = over(frozen_site, "wide", path, span=frozen_span(frozen_site))
    assert isinstance(done.exception, CannotVerifyError)
    assert "configuration" in str(done.exception)


def test_commands_of_the_manual_do_what_it_says(site: KafkaSite, tmp_path: Path) -> None:
    """Each line of docs/verify.md; names, times and offsets are those of the place."""
    start, end = middle(site, "wide")
    records = asyncio.run(read_all(site.address, site.topics["wide"]))[PARTITION]
    first, last = (_iso(records[offset].timestamp) for offset in (start, end))
    here = {"prod.yaml": site.config, "sensors": site.topics["wide"], "--partition 3": f"--partition {PARTITION}"}
    here |= {"2026-11-20T08:00Z": first, "2026-11-20T09:00Z": last, "120000": start, "150000": end}
    commands = re.findall(r"^    tidewarden (.*)$", (ROOT / "docs/verify.md").read_text(), re.MULTILINE)
    assert len(commands) == 3
    for line in commands:
        for name, own in here.items():
            line = line.replace(name, str(own))
        source = ["--source", "wide"]  # the site has two, the manual one
        done = CliRunner().invoke(cli.app, [*shlex.split(line), *source])
        assert done.exit_code == 0, (line, done.exception)
        assert "--list" in line or done.stdout.endswith("\nall equal\n")


def test_a_log_that_was_deleted_cannot_be_verified(site: KafkaSite) -> None:
    """Last, for it is true from then on: the list says so, and a range behind the deletion can still be verified."""
    found = listed(site, "wide")
    cut = found[2]["from_offset"] + 1
    asyncio.run(delete_records(site.address, site.topics["wide"], PARTITION, cut))
    done = over(site, "wide", span=(cut + 1, cut + 100))
    assert isinstance(done.exception, CannotVerifyError)
    assert "the log was deleted" in str(done.exception)
    logs = [each["log"] for each in listed(site, "wide")]
    assert logs[:3] == ["deleted"] * 3
    assert logs[-1] == "there"
    later = next(each["from_offset"] for each in found if each["from_offset"] >= cut)
    assert verdict(over(site, "wide", span=(later, found[-1]["to_offset"])))["verdict"] == "all equal"
