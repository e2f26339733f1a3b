"""The decisions of the checkpoint protocol, and its order when something fails. Crashes are in tests/scenarios."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from detector.checkpoint import base
from detector.checkpoint.base import fence_name, garbage, manifest_name, needs_base, segment_name
from detector.checkpoint.format import Manifest, Segment, encode_segment, segment_of
from detector.checkpoint.protocol import Checkpointer, Outputs
from detector.checkpoint.restore import load, restore
from detector.clock import ManualClock
from detector.errors import CheckpointError, FencedError, SinkError
from detector.settings import Keep
from detector.stages.decide import DECIDE
from detector.state.arena import Arena
from tests.scenarios.world import SHARD, EchoEngine, ListSource, MemorySink, StumblingStore, World, plain_feed, records

MB = 1 << 20


def manifest(fence: int, epoch: int, *segments: Segment) -> Manifest:
    """A manifest that names these segments."""
    return Manifest(
        cluster="c",
        topic="t",
        partition=0,
        epoch=epoch,
        fence=fence,
        position=epoch,
        highest_event_ns=0,
        segments=list(segments),
    )


def segment(fence: int, epoch: int, size: int = 1) -> Segment:
    """A segment of so many bytes."""
    return Segment(name=segment_name(fence, epoch), crc32=0, bytes=size, rows=1)


def test_the_newest_manifest_is_the_one_with_the_highest_fence() -> None:
    """Whatever a former owner still writes sorts below; leftovers of a crash are no manifests."""
    names = [manifest_name(1, 9), manifest_name(2, 3), manifest_name(2, 10), manifest_name(3, 1) + ".tmp", "notes.txt"]
    assert base.manifests_newest_first(names) == [manifest_name(2, 10), manifest_name(2, 3), manifest_name(1, 9)]


def test_the_owner_is_the_highest_claim() -> None:
    """Of fences, not of what else carries a number."""
    assert base.highest_fence([fence_name(2), fence_name(11), manifest_name(12, 1), "fence-x"]) == 11
    assert base.highest_fence([]) == 0


@pytest.mark.parametrize(
    ("sizes", "saved", "changed", "expected"),
    [
        ([], 0, 0, True),
        ([10 * MB], 10 * MB, 9 * MB, False),
        ([10 * MB, 8 * MB], 10 * MB, 5 * MB, False),
        ([10 * MB, 8 * MB], 10 * MB, 7 * MB, True),
        ([10 * MB], 4 * MB, 0, True),  # most of them left
        ([1000, 9000], 1000, 9000, False),  # too little to be spared
        ([1000] + [1] * 62, 1000, 1, False),
        ([1000] + [1] * 63, 1000, 1, True),
    ],
)
def test_a_base_is_written_when_deltas_outgrow_it(sizes: list[int], saved: int, changed: int, expected: bool) -> None:
    """So a restore reads at most 2.5 times the live rows, from at most 64 files."""
    assert needs_base([segment(1, epoch, size) for epoch, size in enumerate(sizes)], saved, changed) is expected


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_restore_reads_at_most_two_and_a_half_times_the_live_rows(seed: int) -> None:
    """Whatever changes, comes and leaves between checkpoints; small ones are not counted."""
    numbers = np.random.default_rng(seed)
    rows = Arena("d", "sha", ("a", "b"), np.zeros(1500, np.float32), np.zeros(1, DECIDE))
    segments: list[Segment] = []
    bases, most = 0, 0.0
    for epoch in range(120):
        held = np.flatnonzero(rows.held[: len(rows.streams)])
        rows.free(numbers.choice(held, int(len(held) * numbers.choice([0, 0, 0.1, 0.6])), replace=False))
        for _ in range(int(numbers.choice([0, 5, 100, 400]))):
            rows.create(f"stream-{numbers.integers(1 << 40)}", {})
        held = np.flatnonzero(rows.held[: len(rows.streams)])
        rows.dirty[numbers.choice(held, int(len(held) * numbers.random()), replace=False)] = True
        full = needs_base(segments, rows.saved_bytes, rows.changed_bytes)
        blocks = encode_segment([rows.snapshot(full=full)])
        segments = [*([] if full else segments), segment_of(f"{epoch}", blocks, 0)]
        rows.kept()
        live = sum(map(len, encode_segment([rows.copy(np.flatnonzero(rows.held[: len(rows.streams)]))])))
        read = sum(segment.bytes for segment in segments)
        assert read <= max(2.5 * live, 1.1 * MB)
        bases, most = bases + full, max(most, read / live if read > 1.1 * MB else 0.0)
    assert 5 < bases < 90
    assert most > 2.0  # and not by writing nothing but bases


def test_garbage_is_what_the_kept_manifests_do_not_name() -> None:
    """A later owner's files and foreign ones are not ours to judge."""
    kept = [manifest(2, 6, segment(1, 4), segment(2, 6)), manifest(2, 5, segment(1, 4))]
    needed = {manifest_name(2, 6), manifest_name(2, 5), segment_name(1, 4), segment_name(2, 6), fence_name(2)}
    litter = {manifest_name(1, 4), segment_name(2, 5), segment_name(2, 7) + ".tmp", fence_name(1)}
    others = {manifest_name(3, 5), segment_name(3, 6), fence_name(3), "README", "segment-x"}
    assert set(garbage(needed | litter | others, kept)) == litter


class Rig:
    """A checkpointer over a world, driven by hand."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.clock = ManualClock()
        self.world = World(plain_feed(100), folder, clock=self.clock, **settings)
        self.thread = ThreadPoolExecutor(1)
        self.engine = EchoEngine(SHARD)
        self.sink = MemorySink(self.world, "alerts")
        self.source = ListSource(self.world)
        self.store = StumblingStore(self.world, self.world.store)

    async def start(self, keep_history: Keep | None = None) -> Checkpointer:
        """Restore, as a process does."""
        self.restored = await restore(
            SHARD,
            memory=self.engine,
            store=self.store,
            source=self.source,
            start="earliest",
            alerts={"alerts": self.sink},
            identity=self.world.identity,
            clock=self.clock,
        )
        return Checkpointer(
            manifest=self.restored.manifest,
            memory=self.engine,
            engine_thread=self.thread,
            store=self.store,
            source=self.source,
            outputs=Outputs({"alerts": self.sink}),
            identity=self.world.identity,
            clock=self.clock,
            every_s=10,
            keep_history=keep_history,
        )

    async def advance(self, to: int) -> None:
        """Carry records up to a position through engine and sink."""
        outcome = self.engine.advance(records(self.world.log[self.engine.position : to], self.engine.position))
        await self.sink.deliver_alerts(SHARD, outcome.alerts)


async def test_each_checkpoint_is_loaded_as_it_was(tmp_path: Path) -> None:
    """Bases, deltas, and a position that moved without any row."""
    rig = Rig(tmp_path)
    keeper = await rig.start()
    for to in (3, 4, 5, 6, 7, 40, 41):
        await rig.advance(to)
        written = await keeper.make_durable(await keeper.take(is_replaying=False))
        loaded = await load(rig.world.store, SHARD)
        assert loaded is not None
        assert loaded.manifest == written.manifest == keeper.manifest
        fresh = EchoEngine(SHARD)
        fresh.restore(loaded.manifest.position, loaded.manifest.highest_event_ns, loaded.arenas)
        assert (fresh.rows, fresh.position, fresh.highest) == (rig.engine.rows, to, rig.engine.highest)
        assert rig.world.committed == {SHARD: to}
    assert len(keeper.manifest.segments) < 6  # deltas outgrew their base at least once


async def test_garbage_of_the_last_two_manifests_stays(tmp_path: Path) -> None:
    """A damaged newest one can be passed over."""
    rig = Rig(tmp_path)
    keeper = await rig.start()
    for to in range(5, 100, 5):
        await rig.advance(to)
        await keeper.make_durable(await keeper.take(is_replaying=False))
    names = await rig.world.store.names(SHARD)
    assert len(base.manifests_newest_first(names)) == 2
    rig.world.store.folder(SHARD).joinpath(base.manifests_newest_first(names)[0]).write_bytes(b"torn")
    loaded = await load(rig.world.store, SHARD)
    assert loaded is not None
    assert loaded.manifest.position == 90
    assert "checksum of the manifest" in str(loaded.passed_over[0])


async def test_a_store_that_fails_is_tried_again_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows stay dirty, the wait doubles, give or take a quarter, the age grows."""
    rig = Rig(tmp_path)
    keeper = await rig.start()
    write = rig.world.store.write

    async def full(*_: object) -> None:
        raise CheckpointError("disk", "full")

    waits = []
    monkeypatch.setattr(rig.world.store, "write", full)
    for to in (10, 20, 30):
        await rig.advance(to)
        with pytest.raises(CheckpointError, match="disk: full"):
            await keeper.make_durable(await keeper.take(is_replaying=False))
        waits.append(next(wait / 100 for wait in range(1, 2000) if rig.clock.advance(0.01) or keeper.is_due()))
    assert waits == pytest.approx([1, 2, 4], rel=0.26)
    assert keeper.durable_s == 0
    monkeypatch.setattr(rig.world.store, "write", write)
    await keeper.make_durable(await keeper.take(is_replaying=False))
    loaded = await load(rig.world.store, SHARD)
    assert loaded is not None
    assert (
        dict(zip(loaded.arenas[0].streams, loaded.arenas[0].arrays["state"][:, 0].tolist(), strict=True))
        == rig.engine.rows
    )


async def test_a_store_may_fail_for_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More failures in a row than a float has powers of two; the next attempt is as far off as ever."""
    rig = Rig(tmp_path)
    keeper = await rig.start()

    async def full(*_: object) -> None:
        raise CheckpointError("disk", "full")

    monkeypatch.setattr(rig.world.store, "write", full)
    await rig.advance(10)
    for _ in range(1_100):
        with pytest.raises(CheckpointError, match="disk: full"):
            await keeper.make_durable(await keeper.take(is_replaying=False))
    rig.clock.advance(10 * 1.25)
    assert keeper.is_due()


async def test_an_output_that_is_lost_stops_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written: the last manifest brings the records back, and with them the alert."""
    rig = Rig(tmp_path)
    keeper = await rig.start()
    await rig.advance(50)

    async def refuse() -> None:
        raise SinkError("alerts", "not acknowledged")

    monkeypatch.setattr(rig.sink, "flush", refuse)
    before = await rig.world.store.names(SHARD)
    with pytest.raises(SinkError):
        await keeper.make_durable(await keeper.take(is_replaying=False))
    assert await rig.world.store.names(SHARD) == before


async def test_a_former_owner_cannot_write_a_manifest(tmp_path: Path) -> None:
    """The fence was raised: it learns so and must stop."""
    rig = Rig(tmp_path)
    former = await rig.start()
    await rig.advance(20)
    taken = await former.take(is_replaying=False)
    successor = Rig(tmp_path)
    await successor.start()
    with pytest.raises(
        FencedError, match=r"sensors-0 in .*: the shard was claimed by another owner: expected 1, got 2"
    ):
        await former.make_durable(taken)


async def test_a_former_owner_that_slips_through_is_not_believed(tmp_path: Path) -> None:
    """It checked the fence, then the successor claimed and wrote; its manifest sorts below, and deletes nothing."""
    rig, successor = Rig(tmp_path), Rig(tmp_path)
    former = await rig.start()
    await rig.advance(20)
    write = rig.world.store.write

    async def slow(shard: Any, name: str, blocks: Any) -> None:
        if name.startswith("manifest"):
            keeper = await successor.start()
            await successor.advance(60)
            await keeper.make_durable(await keeper.take(is_replaying=False))
        await write(shard, name, blocks)

    rig.world.store.write = slow  # type: ignore[method-assign]  # the race, made certain
    await former.make_durable(await former.take(is_replaying=False))
    loaded = await load(successor.world.store, SHARD)
    assert loaded is not None
    assert (loaded.manifest.fence, loaded.manifest.position) == (2, 60)


async def test_marks_rest_while_a_replay_lasts(tmp_path: Path) -> None:
    """Alerts of later positions, sent before the crash, stand behind the old mark and must be found again."""
    rig = Rig(tmp_path)
    keeper = await rig.start()
    await rig.advance(50)
    await rig.sink.flush()
    assert len(rig.world.alerts()) > 3
    assert (await keeper.take(is_replaying=True)).alert_marks == {"alerts": 0}
    assert (await keeper.take(is_replaying=False)).alert_marks == {"alerts": len(rig.world.alerts())}


async def test_outputs_accepted_later_stand_behind_the_mark(tmp_path: Path) -> None:
    """The mark is taken with the rows, not when the flush ends."""
    rig = Rig(tmp_path)
    keeper = await rig.start()
    await rig.advance(30)
    taken = await keeper.take(is_replaying=False)
    await rig.advance(60)
    written = await keeper.make_durable(taken)
    assert written.manifest.position == 30
    later = {
        alert.id
        for alert in EchoEngine(SHARD).advance(records(rig.world.log[:60], 0)).alerts
        if alert.source.offset >= 30
    }
    tail = await rig.sink.alert_tail(SHARD, written.manifest.alert_marks["alerts"])
    assert later
    assert later <= tail.ids


async def test_the_shard_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """What happens after step 1 is in the next one."""
    rig = Rig(tmp_path, linger_s=0.01)
    keeper = await rig.start()
    await rig.advance(10)
    writing = asyncio.create_task(keeper.make_durable(await keeper.take(is_replaying=False)))
    await rig.advance(90)
    assert (await writing).manifest.position == 10
    await keeper.make_durable(await keeper.take(is_replaying=False))
    loaded = await load(rig.world.store, SHARD)
    assert loaded is not None
    fresh = EchoEngine(SHARD)
    fresh.restore(90, 0, loaded.arenas)
    assert fresh.rows == rig.engine.rows
    assert msgspec.structs.asdict(loaded.manifest)["position"] == 90
