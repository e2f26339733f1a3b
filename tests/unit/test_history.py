"""Which checkpoints stay as history, when the next is due, and that garbage leaves what they name."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from detector.checkpoint.base import fence_name, garbage, history_name, manifest_name, segment_name
from detector.checkpoint.format import Manifest, Segment, decode_manifest
from detector.checkpoint.history import History, copies, is_due, within
from detector.checkpoint.restore import load_rows
from detector.settings import parse_history
from tests.scenarios.world import SHARD
from tests.unit.test_protocol import Rig

HOURLY = parse_history("1/h for 7d")
HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS


def manifest(
    epoch: int, at_ns: int, *, fence: int = 1, segments: Iterable[str] = (), cold: Iterable[str] = ()
) -> Manifest:
    """One that was created then, and names these."""
    entries = [[Segment(name=name, crc32=0, bytes=1, rows=1) for name in names] for names in (segments, cold)]
    return Manifest(
        cluster="c",
        topic="t",
        partition=0,
        epoch=epoch,
        fence=fence,
        position=epoch,
        highest_event_ns=0,
        segments=entries[0],
        cold=entries[1],
        created=datetime.fromtimestamp(at_ns // 10**9, UTC).isoformat(),
    )


def test_the_first_is_due_at_once_and_the_next_after_the_interval() -> None:
    """By the youngest that is there, whoever wrote it."""
    kept = [manifest(1, 0), manifest(2, HOUR_NS)]
    assert is_due(HOURLY, [], 0)
    assert not is_due(HOURLY, kept, 2 * HOUR_NS - 10**9)
    assert is_due(HOURLY, kept, 2 * HOUR_NS)


def test_no_policy_keeps_nothing() -> None:
    """Nothing is due, and what an earlier policy left is garbage."""
    assert not is_due(None, [], 0)
    assert within(None, [manifest(1, 0)], 0) == []


def test_a_clock_that_was_set_back_does_not_stop_the_history() -> None:
    """A copy from the future holds the next one up for one interval at most."""
    future = [manifest(1, 100 * DAY_NS)]
    assert is_due(HOURLY, future, 0)
    assert not is_due(HOURLY, [manifest(1, HOUR_NS // 2)], 0)


def test_what_is_older_than_the_span_goes() -> None:
    """Oldest first remain."""
    kept = [manifest(day, day * DAY_NS) for day in (3, 1, 2)]
    assert [each.epoch for each in within(HOURLY, kept, 9 * DAY_NS)] == [3]
    assert [each.epoch for each in within(HOURLY, kept, 7 * DAY_NS)] == [1, 2, 3]


def test_leftovers_of_a_crash_are_no_history() -> None:
    """And manifests are not copies."""
    names = [history_name(2, 1), history_name(1, 5), history_name(1, 7) + ".tmp", manifest_name(1, 5)]
    assert copies(names) == [history_name(1, 5), history_name(2, 1)]


_EPOCHS = st.sets(st.integers(1, 30), min_size=2, max_size=12)


@given(_EPOCHS, st.data())
def test_what_a_kept_manifest_names_is_never_deleted(epochs: set[int], data: st.DataObject) -> None:
    """Live or history, base, delta or cold; and all else that is ours is deleted."""
    every = [segment_name(1, epoch) for epoch in range(31)]
    some = st.lists(st.sampled_from(every), max_size=4)
    manifests = [manifest(epoch, epoch * DAY_NS, segments=data.draw(some), cold=data.draw(some)) for epoch in epochs]
    manifests.sort(key=lambda each: each.epoch, reverse=True)
    history = within(HOURLY, manifests, data.draw(st.integers(0, 40)) * DAY_NS)
    names = {fence_name(1), *every}
    names |= {name(1, each.epoch) for each in manifests for name in (manifest_name, history_name)}
    deleted = set(garbage(names, manifests[:2], history))

    needed = {fence_name(1)} | {manifest_name(1, each.epoch) for each in manifests[:2]}
    needed |= {history_name(1, each.epoch) for each in history}
    needed |= {entry.name for each in (*manifests[:2], *history) for entry in (*each.segments, *each.cold)}
    assert deleted == names - needed


async def keep_one(rig: Rig, keeper: object, to: int) -> Manifest:
    """One checkpoint at a position, a minute after the one before."""
    rig.clock.advance(60)
    await rig.advance(to)
    return (await keeper.make_durable(await keeper.take(is_replaying=False))).manifest


async def history_of(rig: Rig) -> list[Manifest]:
    """What lies in the store, decoded."""
    names = copies(await rig.world.store.names(SHARD))
    return [decode_manifest(await rig.world.store.read(SHARD, name), name) for name in names]


async def test_history_is_written_as_the_policy_says_and_can_be_loaded(tmp_path: Path) -> None:
    """A base each, complete as long as it is kept, gone when it is older than the span."""
    rig = Rig(tmp_path)
    keeper = await rig.start(keep_history=parse_history("6/h for 1h"))
    for to in range(1, 91):
        await keep_one(rig, keeper, to)
    kept = await history_of(rig)
    ages_min = [90 - each.position for each in kept]
    assert len(kept) in (6, 7)
    assert all(younger - older <= -10 for younger, older in zip(ages_min[1:], ages_min, strict=False))
    for each in kept:
        assert [entry.name for entry in each.segments] == [segment_name(each.fence, each.epoch)]
        rows = await load_rows(rig.world.store, each)
        assert rows
    named = {entry.name for each in (*kept, *keeper._kept_manifests) for entry in each.segments}
    assert {name for name in await rig.world.store.names(SHARD) if name.startswith("segment")} == named


async def test_the_first_checkpoint_of_each_owner_is_kept_when_due(tmp_path: Path) -> None:
    """One that is killed after each checkpoint leaves a history too."""
    for to in (10, 20, 30):
        rig = Rig(tmp_path)
        rig.clock.advance(60 * to)
        keeper = await rig.start(keep_history=parse_history("6/h for 1h"))
        rig.engine.position = to - 10
        await keep_one(rig, keeper, to)
    assert [each.position for each in await history_of(rig)] == [10, 20, 30]


async def test_a_new_owner_respects_what_former_owners_kept(tmp_path: Path) -> None:
    """Their copies stay until the policy's span is over, and count for when the next is due."""
    keep = parse_history("1/h for 12h")
    rig = Rig(tmp_path)
    keeper = await rig.start(keep_history=keep)
    for to in (10, 20, 30):
        await keep_one(rig, keeper, to)
    (former,) = await history_of(rig)

    successor = Rig(tmp_path)
    successor.clock.advance(600)
    keeper = await successor.start(keep_history=keep)
    successor.engine.position = 30
    for to in (40, 50, 60):
        await keep_one(successor, keeper, to)
    assert await history_of(successor) == [former]
    assert await load_rows(successor.world.store, former)
    successor.clock.advance(13 * 3600)
    for to in (70, 80):
        await keep_one(successor, keeper, to)
    assert former not in await history_of(successor)


async def test_a_damaged_copy_is_dropped_and_an_unreadable_one_stops_the_deleting(tmp_path: Path) -> None:
    """Who can't tell what a copy needs may not delete."""
    history = History(HOURLY)
    rig = Rig(tmp_path)
    keeper = await rig.start(keep_history=HOURLY)
    for to in (10, 20, 30):
        await keep_one(rig, keeper, to)
    (name,) = copies(await rig.world.store.names(SHARD))
    path = rig.world.store.folder(SHARD) / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    await history.learn(rig.world.store, SHARD, [name])
    assert history.within(rig.clock.now_ns()) == []
    path.write_bytes(whole)
    await history.learn(rig.world.store, SHARD, [name])
    assert len(history.within(rig.clock.now_ns())) == 1

    path.unlink()
    path.mkdir()  # it is named, and cannot be read
    fresh = Rig(tmp_path)
    fresh.clock.advance(600)
    keeper = await fresh.start(keep_history=HOURLY)
    before = set(await fresh.world.store.names(SHARD))
    fresh.engine.position = 30
    await keep_one(fresh, keeper, 40)
    assert before <= set(await fresh.world.store.names(SHARD))
