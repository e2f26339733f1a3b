"""Which shards are ours, and what becomes of them.

    assigned    claim > restore > read            each by itself, while the others go on (T3)
    ours        checkpointed                      checkpoints.py
    revoked     stop feeding > finish the poll in flight > alerts > checkpoint > commit > warm     before one deadline
    fenced      let go at once                    another owner has claimed the shard

A `LiveShard` is one lineage: from a restore to the moment when the shard goes. A poll is bound to the lineage that it
was read for and dropped when that has ended, so that records which outlive a rebalance, or are read for the second
time after it, can reach neither the wrong memory nor the right one twice.

What a source awaits while its group rebalances takes the source's `turn`, which the dataflow holds while it carries a
poll through, and never while it waits for records: those may come only after the rebalance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any

import structlog

from detector.checkpoint.base import Store, highest_fence
from detector.checkpoint.protocol import Checkpointer, Identity, Outputs
from detector.checkpoint.restore import Restored, restore
from detector.checkpoint.warm import Warm
from detector.clock import Clock
from detector.engine import Engine
from detector.errors import CheckpointError, CorruptCheckpointError, FencedError, SinkError, SourceError
from detector.pipeline.checkpoints import Checkpoints
from detector.pipeline.live import Input, LiveShard
from detector.pipeline.standby import WarmShards
from detector.records import Records, Shard
from detector.settings import CheckpointSettings, parse_history
from detector.sinks.deliver import Deliveries
from detector.sources.base import Source
from detector.telemetry import Telemetry

_log = structlog.get_logger(__name__)


class Shards:
    """Takes shards in, has them checkpointed and lets them go; see the module."""

    def __init__(
        self,
        *,
        deliveries: Deliveries,
        store: Store,
        identity: Identity,
        telemetry: Telemetry,
        clock: Clock,
        settings: CheckpointSettings,
        engine_thread: Executor,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self.live: dict[Shard, LiveShard] = {}
        """The shards that are being read now."""
        self._restoring: dict[Shard, tuple[Source, asyncio.Task[None]]] = {}
        self._leaving: dict[Shard, asyncio.Task[None]] = {}
        self.warm = WarmShards(store, identity, telemetry, clock, settings.linger_s)
        self._deliveries, self._store, self._identity = deliveries, store, identity
        self._telemetry, self._clock, self._settings = telemetry, clock, settings
        self._engine_thread, self._spawn = engine_thread, spawn
        self._checkpoints = Checkpoints(telemetry, clock, settings, spawn, self.is_current, self._lose)

    def is_ours(self, shard: Shard) -> bool:
        """Whether it is live, on its way in, or on its way out."""
        return shard in self.live or shard in self._restoring or shard in self._leaving

    def is_restoring(self, source: Source) -> bool:
        """Whether shards of the source are on their way in."""
        return any(of is source for of, _ in self._restoring.values())

    def of(self, source: Source) -> list[LiveShard]:
        """The live shards of a source; a copy, for they come and go while one waits."""
        return [live for live in self.live.values() if live.input.source is source]

    def is_current(self, live: LiveShard) -> bool:
        """Whether this lineage still lasts."""
        return self.live.get(live.shard) is live

    def bound(self, batches: Sequence[Records]) -> list[tuple[LiveShard, Records]]:
        """Each batch with the lineage that it was read for; call at the moment when a poll ends."""
        found = [(self.live.get(records.shard), records) for records in batches]
        return [(live, records) for live, records in found if live is not None and not live.is_resting]

    def still_wanted(self, polled: Sequence[tuple[LiveShard, Records]]) -> list[tuple[LiveShard, Records]]:
        """Less those of shards that were lost, or began to rest, meanwhile: their records are read again later.

        Raises:
            SourceError: The source hands over for the second time what the memory has taken already.
        """
        wanted = [(live, records) for live, records in polled if self.is_current(live) and not live.is_resting]
        for live, records in wanted:
            if len(records) and records.positions[0] < live.position:
                raise SourceError(
                    live.shard,
                    "records were handed over twice",
                    expected=f"positions from {live.position} on",
                    got=int(records.positions[0]),
                    hint="nothing is harmed: the next start replays from the last checkpoint; please report it",
                )
        return wanted

    # In -----------------------------------------------------------------------------------------------------------

    async def take_assignments(self, each: Input) -> None:
        """Begin to restore what was gained."""
        gained = await each.source.assigned()
        if gained is None:
            return
        self._telemetry.assigned(each.source.name, gained)
        for shard in gained:
            self._begin(each, shard)

    def _begin(self, each: Input, shard: Shard, after_s: float = 0.0) -> None:
        restoring = self._spawn(self._restore(each, shard, after_s), f"restore {shard}")
        self._restoring[shard] = each.source, restoring

    def _stop_restoring(self, shard: Shard) -> None:
        if shard in self._restoring:
            _, restoring = self._restoring.pop(shard)
            restoring.cancel()

    async def _restore(self, each: Input, shard: Shard, after_s: float) -> None:
        """Bring a shard back and start reading it; other shards go on meanwhile (T3)."""
        await asyncio.sleep(after_s)
        if leaving := self._leaving.get(shard):
            await asyncio.wait([leaving])  # it came straight back: its outputs and its memory come first
        started_s = self._clock.monotonic_s()
        warm, engine = await self.warm.take(shard), each.new_engine(shard)
        try:
            restored = await self._load(each, shard, engine, warm)
        except FencedError as error:
            self._fenced(each, shard, error)
            return
        engine = warm.memory if warm is not None and restored.was_warm else engine
        await each.source.resume(shard, restored.manifest.position)
        self.live[shard] = self._live_shard(each, engine, restored)
        del self._restoring[shard]
        self._tell_restored(restored, self._clock.monotonic_s() - started_s)

    async def _load(self, each: Input, shard: Shard, engine: Engine, warm: Warm[Engine] | None) -> Restored:
        try:
            return await restore(
                shard,
                memory=engine,
                warm=warm,
                store=self._store,
                source=each.source,
                start=each.start,
                policies=each.policies,
                alerts=self._deliveries.alerts,
                identity=self._identity,
                clock=self._clock,
            )
        except BaseException:
            if warm is not None and not warm.is_spent:
                self.warm.keep(warm)  # another rebalance, or another owner, came first
            raise

    def _live_shard(self, each: Input, engine: Engine, restored: Restored) -> LiveShard:
        settings = self._settings
        checkpointer = Checkpointer(
            manifest=restored.manifest,
            memory=engine,
            engine_thread=self._engine_thread,
            store=self._store,
            source=each.source,
            outputs=Outputs(self._deliveries.alerts, self._deliveries.acknowledged()),
            identity=self._identity,
            clock=self._clock,
            every_s=settings.every_s,
            keep_history=None if settings.keep_history is None else parse_history(settings.keep_history),
        )
        position = restored.manifest.position
        return LiveShard(each, engine, checkpointer, position, restored.replay_until, restored.known_alerts)

    def _tell_restored(self, restored: Restored, took_s: float) -> None:
        shard, position = restored.manifest.shard, restored.manifest.position
        for damaged in restored.passed_over:
            self._telemetry.fell_back(shard)
            _log.warning("damaged checkpoint passed over", shard=str(shard), error=str(damaged))
        replay = restored.replay_until - position
        self._telemetry.restored(
            shard,
            position,
            seconds=took_s,
            rows=restored.rows,
            replay=replay,
            positions_lost=restored.positions_lost,
            carried_over=restored.carried_over,
            memory_lost=restored.memory_lost,
            was_warm=restored.was_warm,
        )
        _log.info(
            "shard started without memory" if restored.is_new else "shard restored",
            shard=str(shard),
            position=position,
            fence=restored.manifest.fence,
            streams=restored.rows,
            warm=restored.was_warm,
            replay=replay,
            took_s=round(took_s, 3),
        )

    # While ours ---------------------------------------------------------------------------------------------------

    async def tend(self, source: Source) -> None:
        """Checkpoint what is due, and rest what stalls; call between two polls."""
        for live in self.of(source):
            await self._checkpoints.tend(live)

    # Out ----------------------------------------------------------------------------------------------------------

    async def revoked(self, each: Input, shards: Sequence[Shard], within_s: float) -> None:
        """Let go of shards that are about to be taken away; returns within the deadline and never raises.

        What is not done by then is left: the next owner replays from the last manifest.
        """
        going = [self.live.pop(shard) for shard in shards if shard in self.live]  # from here on they are fed no more
        for shard in shards:
            self._stop_restoring(shard)
        if going:
            until_s = self._clock.monotonic_s() + within_s
            # Not in the group of tasks, which may be failing right now and would take no more.
            leaving = asyncio.create_task(self._leave(each, going, until_s), name=f"leave {each.source.name}")
            self._leaving |= dict.fromkeys((live.shard for live in going), leaving)
            await asyncio.wait([leaving], timeout=within_s)
        self._telemetry.released(each.source.name, shards)

    async def _leave(self, each: Input, going: Sequence[LiveShard], until_s: float) -> None:
        """Finish the poll in flight, then alerts, checkpoint, commit; what became durable stays warm."""
        try:
            async with each.turn:
                pass
            for sink in self._deliveries.alerts.values():
                await sink.flush()
            await asyncio.gather(*(self._save_leaving(live, until_s) for live in going))
        except (SinkError, SourceError) as error:
            _log.warning("not kept: the next owner replays", source=each.source.name, error=str(error))
        finally:
            for live in going:
                del self._leaving[live.shard]
                self._tell_let_go(live)

    async def _save_leaving(self, live: LiveShard, until_s: float) -> None:
        try:
            await self._checkpoints.save(live, until_s)
        except FencedError as error:
            self._telemetry.fenced(live.input.source.name, live.shard)
            _log.warning("last checkpoint refused", shard=str(live.shard), error=str(error))
        except CheckpointError as error:
            self._telemetry.checkpoint_failed(live.shard)
            _log.warning("last checkpoint failed", shard=str(live.shard), error=str(error))
        if not live.has_moved:
            self.warm.keep(Warm(live.checkpointer.manifest, live.engine))

    def _tell_let_go(self, live: LiveShard) -> None:
        kept = live.checkpointer.manifest.position
        _log.info("shard let go", shard=str(live.shard), why="revoked", position=live.position, kept=kept)

    def _fenced(self, each: Input, shard: Shard, error: FencedError) -> None:
        """Let go of a shard that another owner has claimed, and ask later whether it is still ours.

        Raises:
            FencedError: Shards of this source never move, so that two replicas must have been given the same.
        """
        self._restoring.pop(shard, None)
        self._telemetry.fenced(each.source.name, shard)
        reclaim_s = each.source.reclaim_s
        if reclaim_s is None:
            hint = (
                f"two replicas read it: give source {each.source.name!r} of each other partitions, and restart this one"
            )
            raise FencedError(shard, error.what, expected=error.expected, got=error.got, hint=hint) from error
        _log.warning("shard let go", shard=str(shard), why="fenced", error=str(error), asks_again_s=reclaim_s)
        self._begin(each, shard, after_s=reclaim_s)

    async def lose_if_claimed(self, live: LiveShard, error: CorruptCheckpointError) -> None:
        """Judge what was not found in the store: what another owner has claimed it may also have deleted.

        Raises:
            CorruptCheckpointError: The shard is still ours, and part of its memory is gone.
            FencedError: It is not, and shards of this source never move.
        """
        ours, highest = live.checkpointer.manifest.fence, highest_fence(await self._store.names(live.shard))
        if highest <= ours:
            raise error
        await self._lose(
            live, FencedError(live.shard, "the shard was claimed by another owner", expected=ours, got=highest)
        )

    async def _lose(self, live: LiveShard, error: FencedError) -> None:
        if self.is_current(live):  # else it is on its way out
            del self.live[live.shard]
            self._fenced(live.input, live.shard, error)
            await live.input.source.pause(live.shard)

    async def finish(self) -> None:
        """The last checkpoints of all; here a failure counts, for there is no later one."""
        for shard in list(self._restoring):
            self._stop_restoring(shard)
        async with asyncio.TaskGroup() as saving:
            while self.live:
                shard, live = self.live.popitem()
                saving.create_task(self._save_for_good(live), name=f"finish {shard}")
        if self._leaving:
            await asyncio.wait(self._leaving.values())

    async def _save_for_good(self, live: LiveShard) -> None:
        try:
            await self._checkpoints.save(live)
        except FencedError as error:
            if live.input.source.reclaim_s is None:
                raise
            _log.warning("last checkpoint refused", shard=str(live.shard), error=str(error))

    def abandon(self) -> None:
        """Forget everything: the pipeline is over, well or not, and nothing more is expected of it."""
        self.live.clear()
        for leaving in self._leaving.values():
            leaving.cancel()
