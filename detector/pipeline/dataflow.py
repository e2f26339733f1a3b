"""Carries polls from sources through engines to sinks, in dataflow order.

    source.poll > engine.advance > sinks.deliver > checkpoint if due

Each source is driven by one task. While the engine works on a poll in its own thread, the next poll is under way: one
poll ahead, never two, so a slow engine or a full sink stops the polling, which is the backpressure. Order is kept
everywhere: a shard's records pass the engine, and its outputs reach the sinks, in position order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import structlog

from detector.checkpoint.base import Store
from detector.checkpoint.protocol import Identity
from detector.clock import Clock
from detector.errors import CorruptCheckpointError, SourceError
from detector.pipeline.live import Input, LiveShard
from detector.pipeline.shards import Shards
from detector.records import Outcome, Records, Shard, no_records
from detector.settings import CheckpointSettings
from detector.sinks.deliver import Deliveries
from detector.telemetry import Telemetry

_log = structlog.get_logger(__name__)

_POLL_S = 0.05  # how long a quiet source is waited for; also how soon a drain or an assignment is noticed
_WATCH_S = 2.0  # between looks at lag and checkpoint age
_SPLIT_NAMES = 5  # streams named in one warning; the counter has all

_Polled: TypeAlias = tuple[Sequence[tuple[LiveShard, Records]], float]
"""Batches, each with the lineage that it was read for, and when the poll ended."""


@dataclass(slots=True)
class Pipeline:
    """Runs until drained, or until every source is exhausted; the first failure stops it."""

    inputs: Sequence[Input]
    deliveries: Deliveries
    store: Store
    identity: Identity
    telemetry: Telemetry
    clock: Clock
    checkpoint: CheckpointSettings
    shards: Shards = field(init=False)
    _is_draining: bool = field(init=False, default=False)
    _tasks: asyncio.TaskGroup = field(init=False, default_factory=asyncio.TaskGroup)
    _engine_thread: ThreadPoolExecutor = field(init=False, default_factory=lambda: ThreadPoolExecutor(1, "engine"))

    def __post_init__(self) -> None:
        self.shards = Shards(
            deliveries=self.deliveries,
            store=self.store,
            identity=self.identity,
            telemetry=self.telemetry,
            clock=self.clock,
            settings=self.checkpoint,
            engine_thread=self._engine_thread,
            spawn=self._spawn,
        )

    @property
    def live(self) -> dict[Shard, LiveShard]:
        """The shards that are being read now."""
        return self.shards.live

    async def run(self) -> None:
        """Drive every source to its end, then make the last checkpoints.

        Raises:
            ExceptionGroup: What failed.
        """
        for each in self.inputs:
            each.source.listen(partial(self.shards.revoked, each))
        try:
            async with self._tasks:
                around = [self._spawn(self._watch(), "watch")]
                if self.checkpoint.standby:
                    around.append(self._spawn(self.shards.warm.follow(self.inputs, self.shards.is_ours), "standby"))
                async with asyncio.TaskGroup() as drives:
                    for each in self.inputs:
                        drives.create_task(self._drive(each), name=f"drive {each.source.name}")
                for task in around:
                    task.cancel()
                await self.shards.finish()
        finally:
            self.shards.abandon()
            self._engine_thread.shutdown(wait=False)

    def drain(self) -> None:
        """Stop polling; `run` finishes what is in flight, makes its last checkpoints and returns."""
        self._is_draining = True
        self.telemetry.draining()

    async def _drive(self, each: Input) -> None:
        """One source: poll > advance > deliver > checkpoint if due."""
        ahead = self._poll(each)
        try:
            while True:
                await self.shards.take_assignments(each)
                polled = await self._arrived(ahead)
                async with each.turn:  # who revokes waits for it, and finds nothing in flight
                    batches = self.shards.still_wanted(polled)
                    if self._is_draining:
                        return
                    if not batches and self._is_finished(each):
                        await self._flush(each)
                        return
                    ahead = self._poll(each)
                    await self._carry(batches)
                    await self.shards.tend(each.source)
        finally:
            await asyncio.wait([ahead])  # a poll is never cancelled (T4); it ends by its own timeout

    def _poll(self, each: Input) -> asyncio.Task[_Polled]:
        """Begin a poll. Always awaited to its end (T4)."""

        async def poll() -> _Polled:
            batches = await each.source.poll(_POLL_S)
            return self.shards.bound(batches), self.clock.monotonic_s()

        return asyncio.create_task(poll(), name=f"poll {each.source.name}")

    async def _arrived(self, ahead: asyncio.Task[_Polled]) -> Sequence[tuple[LiveShard, Records]]:
        """What a poll brought."""
        was_waiting = ahead.done()
        batches, ended_s = await ahead
        if was_waiting and batches:
            self.telemetry.paused(self.clock.monotonic_s() - ended_s)
        return batches

    async def _carry(self, batches: Sequence[tuple[LiveShard, Records]]) -> None:
        """Carry a poll through the engines in their thread, shard after shard, and then to the sinks."""
        if not batches:
            return
        batches = [(live, records) for live, records in batches if await self._has_rows(live, records)]
        outcomes = await asyncio.get_running_loop().run_in_executor(
            self._engine_thread, lambda: [live.engine.advance(records) for live, records in batches]
        )
        for (live, records), outcome in zip(batches, outcomes, strict=True):
            await self._deliver(live, records, outcome)
        self._tell_split([(live, outcome.created) for (live, _), outcome in zip(batches, outcomes, strict=True)])

    async def _has_rows(self, live: LiveShard, records: Records) -> bool:
        """Bring back the cold rows that records need; not where another owner has taken them over with the shard."""
        try:
            await live.checkpointer.cold.bring_back(records)
        except CorruptCheckpointError as error:
            await self.shards.lose_if_claimed(live, error)
            return False
        return True

    async def _flush(self, each: Input) -> None:
        """A source has ended: close the samples of narrow records whose channels have not all arrived."""
        for live in self.shards.of(each.source):
            if live.engine.is_narrow:
                await live.checkpointer.cold.bring_back_begun()
            flush = live.engine.flush
            outcome = await asyncio.get_running_loop().run_in_executor(self._engine_thread, flush)
            if outcome.scores or outcome.rejects:
                live.has_flushed = True
                await self._deliver(live, no_records(live.shard, outcome.next_position), outcome)

    async def _deliver(self, live: LiveShard, records: Records, outcome: Outcome) -> None:
        """Hand an outcome to the sinks and tell telemetry, once per poll and shard."""
        held = await self.deliveries.deliver(records, outcome, live.known_alerts)
        live.advance_to(outcome.next_position, self.clock.monotonic_s())
        engine = live.engine
        self.telemetry.polled(
            records,
            outcome,
            streams=engine.streams,
            cold_streams=len(engine.cold),
            open_anomalies=engine.open_anomalies,
            frozen_streams=engine.frozen_streams,
        )
        self.telemetry.delivered(self.deliveries.handed)
        self.deliveries.handed.clear()
        if outcome.alerts:
            self.telemetry.suppressed(records.shard, len(held))
            self.telemetry.alerts_delivered([alert for alert in outcome.alerts if alert.id not in held])

    def _tell_split(self, created: Sequence[tuple[LiveShard, list[str]]]) -> None:
        """Tell, once, of new streams whose narrow records come from two partitions: their channels never meet."""
        for at, (live, streams) in enumerate(created):
            if not streams or not live.engine.is_narrow:
                continue
            not_yet = {later: set(news) for later, news in created[at + 1 :]}  # new in both: told when its turn comes
            for other in self.shards.of(live.input.source):
                known = [] if other is live else other.engine.known(streams)
                if split := [stream for stream in known if stream not in not_yet.get(other, ())]:
                    self.telemetry.streams_split(live.shard, len(split))
                    _log.warning(
                        "streams split over partitions",
                        partitions=[str(other.shard), str(live.shard)],
                        count=len(split),
                        streams=split[:_SPLIT_NAMES],
                        hint="their channels are never joined: key the producer's records by stream",
                    )

    def _is_finished(self, each: Input) -> bool:
        return each.source.exhausted and not self.shards.is_restoring(each.source)

    async def _watch(self) -> None:
        """Do now and then what no poll does: tell lag and age, and how late the event loop is; forget what lingered."""
        while True:
            expected_s = self.clock.monotonic_s() + _WATCH_S
            await asyncio.sleep(_WATCH_S)
            self.telemetry.loop_lagged(max(0.0, self.clock.monotonic_s() - expected_s))
            self.shards.warm.expire()
            for shard, live in list(self.live.items()):
                self.telemetry.unkept(shard, live.unkept_s(self.clock.monotonic_s()))
                try:
                    bounds = await live.input.source.bounds(shard, live.position)
                except SourceError as error:  # the poll will say so too if it lasts
                    _log.warning("lag is not known", shard=str(shard), error=str(error))
                    continue
                self.telemetry.lagged(shard, max(0, bounds.high - live.position))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._tasks.create_task(work, name=name)
