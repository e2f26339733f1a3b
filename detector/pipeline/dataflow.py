"""Moves data between sources, engines, sinks and checkpoints, in dataflow order; reads nothing out of it.

    source.poll > engine.advance > sinks.deliver > checkpoint if due

Each source is driven by one task. While the engine works on a poll in its own thread, the next poll is under way: one
poll ahead, never two, so a slow engine or a full sink stops the polling, which is the backpressure. Order is kept
everywhere: a shard's records pass the engine, and its outputs reach the sinks, in position order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from detector.checkpoint.base import Store
from detector.checkpoint.protocol import Checkpointer, Identity, Outputs, Taken, Written
from detector.checkpoint.restore import Restored, Start, restore
from detector.clock import Clock
from detector.engine import Engine
from detector.errors import CheckpointError, SourceError
from detector.records import Outcome, Records, Shard
from detector.settings_checks import Keep
from detector.sinks.deliver import Deliveries
from detector.sources.base import Source
from detector.telemetry import Telemetry

_log = structlog.get_logger(__name__)

_POLL_S = 0.05  # how long a quiet source is waited for; also how soon a drain or an assignment is noticed
_WATCH_S = 2.0  # between looks at lag and checkpoint age


@dataclass(frozen=True, slots=True)
class Input:
    """A source, and how its shards are begun and scored."""

    source: Source
    start: Start
    new_engine: Callable[[Shard], Engine]


@dataclass(slots=True)
class LiveShard:
    """A shard that is restored and being read."""

    source: Source
    engine: Engine
    checkpointer: Checkpointer
    position: int
    replay_until: int
    """Below it outputs may have been sent before a restart."""
    known_alerts: Mapping[str, frozenset[str]]
    """Per sink the ids not to send again; emptied when the replay ends."""
    writing: asyncio.Task[None] | None = None
    """The checkpoint under way."""

    @property
    def is_replaying(self) -> bool:
        """Whether records are being read for the second time."""
        return self.position < self.replay_until

    @property
    def has_moved(self) -> bool:
        """Whether there is anything that the last manifest does not know."""
        return self.position != self.checkpointer.manifest.position

    def advance_to(self, position: int) -> None:
        """Note that everything below `position` was handed to the sinks."""
        self.position = position
        if not self.is_replaying:
            self.known_alerts = {}


@dataclass(slots=True)
class Pipeline:
    """Runs until drained, or until every source is exhausted; the first failure stops it."""

    inputs: Sequence[Input]
    deliveries: Deliveries
    store: Store
    identity: Identity
    telemetry: Telemetry
    clock: Clock
    checkpoint_every_s: float
    keep_history: Keep | None = None
    live: dict[Shard, LiveShard] = field(default_factory=dict)
    """The shards that are being read now."""
    _restoring: dict[Shard, asyncio.Task[None]] = field(init=False, default_factory=dict)
    _is_draining: bool = field(init=False, default=False)
    _tasks: asyncio.TaskGroup = field(init=False, default_factory=asyncio.TaskGroup)
    _engine_thread: ThreadPoolExecutor = field(init=False, default_factory=lambda: ThreadPoolExecutor(1, "engine"))

    async def run(self) -> None:
        """Drive every source to its end, then make the last checkpoints.

        Raises:
            ExceptionGroup: What failed.
        """
        try:
            async with self._tasks:
                watch = self._spawn(self._watch(), "watch")
                async with asyncio.TaskGroup() as drives:
                    for each in self.inputs:
                        drives.create_task(self._drive(each), name=f"drive {each.source.name}")
                watch.cancel()
            await self._checkpoint_all()
        finally:
            self._engine_thread.shutdown(wait=False)

    def drain(self) -> None:
        """Stop polling; `run` finishes what is in flight, makes its last checkpoints and returns."""
        self._is_draining = True
        self.telemetry.draining()

    # Dataflow -----------------------------------------------------------------------------------------------------

    async def _drive(self, each: Input) -> None:
        """One source: poll > advance > deliver > checkpoint if due."""
        ahead = self._poll(each.source)
        try:
            while True:
                await self._take_assignments(each)
                batches = await self._arrived(ahead)
                if self._is_draining or (not batches and self._is_finished(each.source)):
                    return
                ahead = self._poll(each.source)
                for records, outcome in zip(batches, await self._advance(batches), strict=True):
                    await self._deliver(records, outcome)
                await self._checkpoint_due(each.source)
        finally:
            await asyncio.wait([ahead])  # a poll is never cancelled (T4); it ends by its own timeout

    def _poll(self, source: Source) -> asyncio.Task[tuple[list[Records], float]]:
        """Begin a poll; it also tells when it ended. Always awaited to its end (T4)."""

        async def poll() -> tuple[list[Records], float]:
            return await source.poll(_POLL_S), self.clock.monotonic_s()

        return asyncio.create_task(poll(), name=f"poll {source.name}")

    async def _arrived(self, ahead: asyncio.Task[tuple[list[Records], float]]) -> list[Records]:
        """The records of a poll, less those of shards lost meanwhile."""
        was_waiting = ahead.done()
        batches, ended_s = await ahead
        if was_waiting and batches:
            self.telemetry.paused(self.clock.monotonic_s() - ended_s)
        return [records for records in batches if records.shard in self.live]

    async def _advance(self, batches: Sequence[Records]) -> list[Outcome]:
        """Carry a poll through the engines, shard after shard, in the engine's thread."""
        if not batches:
            return []
        work = [(self.live[records.shard].engine, records) for records in batches]
        return await asyncio.get_running_loop().run_in_executor(
            self._engine_thread, lambda: [engine.advance(records) for engine, records in work]
        )

    async def _deliver(self, records: Records, outcome: Outcome) -> None:
        """Hand an outcome to the sinks and tell telemetry, once per poll and shard."""
        live = self.live[records.shard]
        held = await self.deliveries.deliver(records, outcome, live.known_alerts)
        live.advance_to(outcome.next_position)
        engine = live.engine
        self.telemetry.polled(records, outcome, streams=engine.streams, open_anomalies=engine.open_anomalies)
        self.telemetry.delivered(self.deliveries.handed)
        self.deliveries.handed.clear()
        if outcome.alerts:
            self.telemetry.suppressed(records.shard, len(held))
            self.telemetry.alerts_delivered([alert for alert in outcome.alerts if alert.id not in held])

    def _is_finished(self, source: Source) -> bool:
        return source.exhausted and not self._restoring

    # Checkpoints --------------------------------------------------------------------------------------------------

    async def _checkpoint_due(self, source: Source) -> None:
        """Begin the checkpoints that are due; they become durable while their shards go on."""
        for live in list(self.live.values()):  # others may be restored while we wait
            if live.source is source and live.writing is None and live.has_moved and live.checkpointer.is_due():
                taken = await live.checkpointer.take(is_replaying=live.is_replaying)
                live.writing = self._spawn(self._make_durable(live, taken), f"checkpoint {live.checkpointer.shard}")

    async def _make_durable(self, live: LiveShard, taken: Taken) -> None:
        """A store that fails is tried again later; a sink that fails, or another owner, ends the daemon."""
        try:
            written = await live.checkpointer.make_durable(taken)
        except CheckpointError as error:
            self.telemetry.checkpoint_failed(live.checkpointer.shard)
            if not error.retriable and self.live.get(live.checkpointer.shard) is live:
                raise  # a shard that we have just lost may well be fenced
            _log.warning("checkpoint failed", shard=str(live.checkpointer.shard), error=str(error))
        else:
            self._tell_written(written)
        finally:
            live.writing = None

    async def _checkpoint_all(self) -> None:
        """The last checkpoints: here a failure counts, for there is no later one."""
        for live in self.live.values():
            if live.has_moved:
                taken = await live.checkpointer.take(is_replaying=live.is_replaying)
                self._tell_written(await live.checkpointer.make_durable(taken))

    def _tell_written(self, written: Written) -> None:
        manifest = written.manifest
        self.telemetry.checkpointed(
            manifest.shard,
            position=manifest.position,
            seconds=written.took_s,
            rows=written.rows,
            size_bytes=written.bytes,
        )

    # Assignments --------------------------------------------------------------------------------------------------

    async def _take_assignments(self, each: Input) -> None:
        """Begin to restore what was gained, let go of what was lost."""
        gained, lost = await each.source.assigned()
        if gained or lost:
            self.telemetry.assigned(each.source.name, gained, lost)
        for shard in lost:
            await self._let_go(shard)
        for shard in gained:
            self._restoring[shard] = self._spawn(self._restore(each, shard), f"restore {shard}")

    async def _restore(self, each: Input, shard: Shard) -> None:
        """Bring a shard back and start reading it; other shards go on meanwhile (T3)."""
        started_s = self.clock.monotonic_s()
        engine = each.new_engine(shard)
        restored = await restore(
            shard,
            memory=engine,
            engine_thread=self._engine_thread,
            store=self.store,
            source=each.source,
            start=each.start,
            alerts=self.deliveries.alerts,
            identity=self.identity,
            clock=self.clock,
        )
        self.live[shard] = self._live_shard(each.source, engine, restored)
        await each.source.resume(shard, restored.manifest.position)
        del self._restoring[shard]
        self._tell_restored(restored, self.clock.monotonic_s() - started_s)

    def _live_shard(self, source: Source, engine: Engine, restored: Restored) -> LiveShard:
        checkpointer = Checkpointer(
            manifest=restored.manifest,
            memory=engine,
            engine_thread=self._engine_thread,
            store=self.store,
            source=source,
            outputs=Outputs(self.deliveries.alerts, self.deliveries.acknowledged()),
            identity=self.identity,
            clock=self.clock,
            every_s=self.checkpoint_every_s,
            keep_history=self.keep_history,
        )
        position = restored.manifest.position
        return LiveShard(source, engine, checkpointer, position, restored.replay_until, restored.known_alerts)

    def _tell_restored(self, restored: Restored, took_s: float) -> None:
        shard, position = restored.manifest.shard, restored.manifest.position
        for damaged in restored.passed_over:
            self.telemetry.fell_back(shard)
            _log.warning("damaged checkpoint passed over", shard=str(shard), error=str(damaged))
        if restored.changed:
            hint = "records that are replayed may give other alerts than before the restart"
            _log.warning("changed since the checkpoint", shard=str(shard), what=restored.changed, hint=hint)
        replay = restored.replay_until - position
        self.telemetry.restored(shard, position, seconds=took_s, rows=restored.rows, replay=replay)
        _log.info(
            "shard started without memory" if restored.is_new else "shard restored",
            shard=str(shard),
            position=position,
            streams=restored.rows,
            replay=replay,
            took_s=round(took_s, 3),
        )

    async def _let_go(self, shard: Shard) -> None:
        """Forget a shard that is no longer ours: its next owner replays from the last manifest."""
        if restoring := self._restoring.pop(shard, None):
            restoring.cancel()
        if live := self.live.pop(shard, None):
            if live.writing:
                await asyncio.wait([live.writing])
            for sink in self.deliveries.alerts.values():
                await sink.flush()

    # Around it ----------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Tell telemetry now and then what no poll can tell: lag, and how late the event loop is."""
        while True:
            expected_s = self.clock.monotonic_s() + _WATCH_S
            await asyncio.sleep(_WATCH_S)
            self.telemetry.loop_lagged(max(0.0, self.clock.monotonic_s() - expected_s))
            for shard, live in list(self.live.items()):
                try:
                    bounds = await live.source.bounds(shard, live.position)
                except SourceError as error:  # the poll will say so too if it lasts
                    _log.warning("lag is not known", shard=str(shard), error=str(error))
                    continue
                self.telemetry.lagged(shard, max(0, bounds.high - live.position))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._tasks.create_task(work, name=name)
