"""How the pipeline moves data: in order, one poll ahead, never past a full sink, and to a clean end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.errors import CheckpointError, SinkError, SourceError
from detector.pipeline import Input
from detector.records import Alert, Outcome, Reason, Records, Shard, Snapshot
from detector.sinks.deliver import Deliveries, sample
from detector.sources.base import Bounds, Revoked
from tests.scenarios.world import SHARD, EchoEngine, ListSource, MemorySink, World, plain_feed, records, s


def whole(world: World) -> Outcome:
    """What the engine says of the log in one piece."""
    return EchoEngine(SHARD).advance(records(world.log, 0))


async def test_everything_arrives_once_and_in_order(tmp_path: Path) -> None:
    """Alerts, scores and dead letters; the memory is kept to the last record."""
    world = World(plain_feed(200), tmp_path)
    await world.run()
    assert world.alerts() == whole(world).alerts
    assert [position for position, _ in world.outputs["scores"]] == whole(world).scores[0].positions.tolist()
    letters = world.outputs["letters"]
    assert [letter.position for letter in letters] == [reject.position for reject in whole(world).rejects]
    assert {letter.value for letter in letters} == {b"broken"}
    assert world.committed == {SHARD: 200}


async def test_the_next_poll_overlaps_the_engine_and_only_the_next(tmp_path: Path) -> None:
    """One poll ahead, never two."""
    world, trace = World(plain_feed(40), tmp_path, largest_poll=5), []

    class Traced(ListSource):
        async def poll(self, timeout_s: float) -> list[Records]:
            batches = await super().poll(timeout_s)
            trace.extend("poll" for batch in batches)
            return batches

    class Slow(EchoEngine):
        def advance(self, batch: Records) -> Outcome:
            time.sleep(0.01)
            trace.append("advance")
            return super().advance(batch)

    await world.run(inputs=[Input(Traced(world), "earliest", lambda shard: Slow(shard))])
    ahead = np.cumsum([1 if event == "poll" else -1 for event in trace])
    assert ahead.max() == 2  # the one in the engine, and the next
    assert trace.count("poll") == trace.count("advance")


async def test_a_full_sink_stops_the_polling(tmp_path: Path) -> None:
    """That is the backpressure: what waits is bounded by the poll in hand and the one ahead."""
    world = World([s(99) for _ in range(100)], tmp_path, largest_poll=1)
    release, polled = asyncio.Event(), []

    class Full(MemorySink):
        async def deliver_alerts(self, shard: Shard, alerts: Sequence[Alert]) -> None:
            await release.wait()
            await super().deliver_alerts(shard, alerts)

    class Counted(ListSource):
        async def poll(self, timeout_s: float) -> list[Records]:
            batches = await super().poll(timeout_s)
            polled.extend(batches)
            return batches

    source = Input(Counted(world), "earliest", EchoEngine)
    pipeline = world.pipeline(inputs=[source], deliveries=Deliveries({"alerts": Full(world, "alerts")}))
    running = asyncio.create_task(pipeline.run())
    async with asyncio.timeout(20):
        while len(polled) < 2:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.1)
    assert len(polled) == 2
    release.set()
    await running
    assert len(world.alerts()) == 100
    assert world.telemetry.registry.get_sample_value("tidewarden_backpressure_seconds_total") > 0.05


async def test_a_drain_keeps_what_was_done_and_leaves_the_rest(tmp_path: Path) -> None:
    """The last checkpoint says exactly how far it came; the next process goes on there, and nothing is doubled."""
    world = World(plain_feed(2000), tmp_path, pace_s=0.001, every_s=1000)
    pipeline = world.pipeline()
    running = asyncio.create_task(pipeline.run())
    async with asyncio.timeout(20):
        while world.engine.position == 0:
            await asyncio.sleep(0.001)
    pipeline.drain()
    await asyncio.wait_for(running, 20)
    at = world.engine.position
    assert 0 < at < 2000
    assert world.committed == {SHARD: at}
    world.pace_s = 0
    await world.run()
    assert world.alerts() == whole(world).alerts
    assert world.telemetry.registry.get_sample_value("tidewarden_alerts_suppressed_total", {"topic": "sensors"}) in (
        None,
        0,
    )


async def test_a_failing_sink_ends_the_daemon(tmp_path: Path) -> None:
    """Its error is the one that comes out; the restart loses nothing."""
    world = World(plain_feed(300), tmp_path, pace_s=0.001)

    async def refuse(sink: str) -> None:
        if sink == "alerts" and len(world.alerts()) > 10:
            raise SinkError("alerts", "not acknowledged")

    world.acknowledge = refuse  # type: ignore[method-assign]  # the broker goes bad
    with pytest.raises(ExceptionGroup) as caught:
        await world.run()
    assert caught.group_contains(SinkError, match="not acknowledged")
    world.acknowledge = World.acknowledge.__get__(world)  # type: ignore[method-assign]  # and well again
    await world.run()
    assert world.alerts() == whole(world).alerts


async def test_a_failing_store_is_counted_and_outlived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processing goes on; once the store is back the memory is kept, with nothing missing."""
    world, failures = World(plain_feed(300), tmp_path, pace_s=0.001), 0
    write = world.store.write

    async def fail(shard: Shard, name: str, blocks: Any) -> None:
        nonlocal failures
        if name.startswith("segment") and failures < 3:
            failures += 1
            raise CheckpointError("disk", "full")
        await write(shard, name, blocks)

    monkeypatch.setattr(world.store, "write", fail)
    await world.run()
    labels = {"source": "list", "topic": "sensors", "partition": "0"}
    assert failures == world.telemetry.registry.get_sample_value("tidewarden_checkpoint_failures_total", labels) == 3
    assert world.committed == {SHARD: 300}
    assert world.alerts() == whole(world).alerts


async def test_a_slow_store_does_not_hold_up_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one checkpoint is written, records go on; there is never a second one beside it."""
    world, at_once, most, moved = World(plain_feed(200), tmp_path, pace_s=0.001), 0, 0, 0
    write = world.store.write

    async def slow(shard: Shard, name: str, blocks: Any) -> None:
        nonlocal at_once, most, moved
        at_once, before = at_once + 1, world.engine.position
        most = max(most, at_once)
        if name.startswith("segment"):
            await asyncio.sleep(0.02)
        await write(shard, name, blocks)
        moved += world.engine.position > before
        at_once -= 1

    monkeypatch.setattr(world.store, "write", slow)
    await world.run()
    assert most == 1
    assert moved > 0
    assert world.alerts() == whole(world).alerts


async def test_a_shard_that_is_lost_is_forgotten_and_can_come_back(tmp_path: Path) -> None:
    """What is replayed after its return is not sent again."""
    world = World(plain_feed(300), tmp_path, pace_s=0.001, every_s=1000)

    class Fickle(ListSource):
        moves = 0

        def listen(self, revoked: Revoked) -> None:
            self.revoked = revoked

        async def poll(self, timeout_s: float) -> list[Records]:
            if self.moves < 3 and self._next is not None and self._next > 60 * (self.moves + 1):
                self.moves += 1
                self._next = None
                self.rebalance = asyncio.create_task(self._rebalance())
            return await super().poll(timeout_s)

        async def _rebalance(self) -> None:
            await self.revoked([SHARD], 0.0)  # no time at all: it is dropped, and replayed
            self._gained = [SHARD]

    def new_engine(shard: Shard) -> EchoEngine:
        world.engine = EchoEngine(shard)
        return world.engine

    await world.run(inputs=[Input(Fickle(world), "earliest", new_engine)])
    assert world.alerts() == whole(world).alerts
    assert world.engine.position == 300
    assert world.telemetry.registry.get_sample_value("tidewarden_alerts_suppressed_total", {"topic": "sensors"}) > 0


def test_sampled_scores_are_those_of_picked_streams() -> None:
    """A stream is seen whole or not at all, the same ones every time, about the share that was asked for."""
    outcome = EchoEngine(SHARD).advance(records([s(i, f"pump-{i % 1000}") for i in range(3000)], 0))
    picked = sample(outcome.scores[0], 0.1)
    streams = set(picked.streams)
    assert 60 < len(streams) < 140
    assert len(picked) == 3 * len(streams)
    assert picked.positions.tolist() == [i for i in range(3000) if f"pump-{i % 1000}" in streams]
    assert sample(outcome.scores[0], 1.0) is outcome.scores[0]


async def test_what_is_merely_unwanted_is_no_dead_letter(tmp_path: Path) -> None:
    """Late and repeated samples are counted only."""
    world = World([], tmp_path)
    batch, sink = records([s(1), s(2)], 0), MemorySink(world, "letters")
    outcome = Outcome(SHARD, 2)
    outcome.rejects = whole(World([s(None), s(1)], tmp_path)).rejects
    outcome.rejects.append(replace(outcome.rejects[0], index=1, position=1, reason=Reason.LATE))
    await Deliveries(dead_letters={"letters": sink}).deliver(batch, outcome, {})
    await sink.flush()
    assert [letter.position for letter in world.outputs["letters"]] == [0]


class Still(EchoEngine):
    """An engine that does nothing, for measuring what is around it."""

    def advance(self, batch: Records) -> Outcome:
        """Move on."""
        self.position = batch.next_position
        return Outcome(batch.shard, batch.next_position)

    def snapshot(self, *, full: bool = False) -> Snapshot:
        """Nothing changed."""
        return Snapshot(self.shard, self.position, self.highest, [], full)


async def test_the_pipeline_costs_little_per_record(tmp_path: Path) -> None:
    """At polls of 4,000 records less than 0.1 us each beside source and engine; ten times that is allowed here.

    By the processor's clock: how much of it others take is no matter of ours.
    """
    world, polls, size = World([], tmp_path, every_s=1000), 200, 4000
    values: list[bytes | None] = [b"1"] * size
    batch = records([s(1)] * size, 0)

    class Full(ListSource):
        count = 0

        async def poll(self, timeout_s: float) -> list[Records]:
            if self._next is None or self.exhausted:
                await asyncio.sleep(0.001)
                return []
            self.count += 1
            self._next = self.count * size
            positions = batch.positions + self._next - size
            return [Records(SHARD, values, values, positions, batch.append_ns, self._next)]

        @property
        def exhausted(self) -> bool:
            return self.count >= polls

    pipeline = world.pipeline(inputs=[Input(Full(world), "earliest", lambda _: Still(SHARD))])
    started_s = time.process_time()
    await pipeline.run()
    per_record_us = (time.process_time() - started_s) / (polls * size) * 1e6
    print(f"pipeline and telemetry: {per_record_us:.3f} us per record")  # noqa: T201  # the measurement, for people
    assert per_record_us < 1.0


async def test_a_source_that_cannot_tell_its_end_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lag is unknown while a broker is away; that is no reason to end."""
    monkeypatch.setattr("detector.pipeline.dataflow._WATCH_S", 0.01)
    world = World(plain_feed(200), tmp_path, pace_s=0.001)

    class Away(ListSource):
        asked = 0

        async def bounds(self, shard: Shard, near: int | None = None) -> Bounds:
            self.asked += 1
            if self.asked == 2:
                raise SourceError("broker", "away")
            return await super().bounds(shard, near)

    source = Away(world)
    await world.run(inputs=[Input(source, "earliest", lambda _: world.engine)])
    assert source.asked > 2
    labels = {"source": "list", "topic": "sensors", "partition": "0"}
    assert world.telemetry.registry.get_sample_value("tidewarden_lag_records", labels) is not None
    assert world.alerts() == whole(world).alerts


async def test_a_shard_may_be_restored_while_another_is_checkpointed(tmp_path: Path) -> None:
    """The shards are looked at one after the other, and each look may wait."""
    world, other, is_taking = World(plain_feed(50), tmp_path), Shard("cluster", "sensors", 1), asyncio.Event()
    names = world.store.names

    class Two(ListSource):
        async def assigned(self) -> list[Shard] | None:
            gained = await super().assigned()
            return [*gained, other] if gained else gained

        async def resume(self, shard: Shard, position: int) -> None:
            if shard == SHARD:
                await super().resume(shard, position)

    class Patient(MemorySink):
        async def alert_mark(self, shard: Shard) -> int | None:
            if shard == SHARD and shard in pipeline.live:  # its first checkpoint is being taken
                is_taking.set()
                while other not in pipeline.live:
                    await asyncio.sleep(0.001)
            return await super().alert_mark(shard)

    async def late(shard: Shard) -> list[str]:
        if shard == other:
            await is_taking.wait()
        return await names(shard)

    world.store.names = late  # type: ignore[method-assign]  # the second shard comes in the middle
    sink = Patient(world, "alerts")
    pipeline = world.pipeline(
        inputs=[Input(Two(world), "earliest", EchoEngine)], deliveries=Deliveries({"alerts": sink})
    )
    await asyncio.wait_for(pipeline.run(), 10)
    assert world.alerts() == whole(world).alerts
