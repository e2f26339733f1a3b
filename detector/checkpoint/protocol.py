"""The one place that knows in which order a checkpoint is made.

    1. Wave boundary    copy the rows that changed and the marks of the alert outputs; nothing of the shard is in flight
                        (rows of streams that are too many leave memory here: cold.py)
    2. Acknowledged     every output of a record below the position is confirmed by its sink
    3. Rows durable     the copied rows, as a segment, and those that left, as cold ones
    4. Manifest durable the commit point, refused where another owner has claimed the shard since
    5. Forget           those rows are no longer dirty, and those that left no longer in memory
    6. Commit           tell the source's outside; advisory, bounded, never raises
    7. History          a copy of the manifest stays for `tidewarden verify` where the policy wants one: a base, then
    8. Garbage          delete what neither the last two manifests nor the history name

Why this order: a crash before 4 leaves the manifest before it, and the records since then are replayed; the alerts they
give again carry the ids that they had, so they are recognised and not sent twice. Were 4 to come before 2, an alert
could be lost for ever: its record would lie below the position, and nobody would read it again.

Processing goes on from step 2, which is why step 1 takes the marks: whatever is delivered after it stands behind them.
While a replay lasts the marks rest, because outputs of later positions, sent before the crash, stand behind them too.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import msgspec

from detector.checkpoint.base import (
    Store,
    garbage,
    highest_fence,
    history_name,
    manifest_name,
    needs_base,
    segment_name,
)
from detector.checkpoint.cold import ColdRows, ColdTaken, EvictingMemory
from detector.checkpoint.format import Manifest, Segment, encode_manifest
from detector.checkpoint.history import History
from detector.checkpoint.lineage import Identity as Identity  # what a Checkpointer is told, from here on
from detector.checkpoint.lineage import with_rows
from detector.checkpoint.segments import write_segment
from detector.clock import Clock
from detector.errors import CheckpointError, FencedError
from detector.records import NO_TIME, ArenaRows, Shard, Snapshot
from detector.settings import Keep
from detector.sinks.base import Sink
from detector.sources.base import Source
from detector.state.cold import ColdStreams

_T = TypeVar("_T")
_LONGEST_BACKOFF_S = 60.0
_DOUBLINGS = 6  # beyond the longest wait; without a bound a disk that is full for hours overflows the power
_CROWDED_S = 1.0  # between checkpoints while there are too many streams
_COLLECT_FROM_EPOCH = 2  # until then what was there before a cold start stays, in case it was a mistake


class Memory(EvictingMemory, Protocol):
    """The side of an engine that checkpoints see; called on the engine's own thread once the engine is at work."""

    @property
    def streams(self) -> int:
        """How many streams have memory."""
        ...

    @property
    def is_crowded(self) -> bool:
        """Whether there are so many streams that the next checkpoint should come early."""
        ...

    @property
    def saved_bytes(self) -> int:
        """About how many bytes a base of all rows takes."""
        ...

    @property
    def changed_bytes(self) -> int:
        """About how many bytes of rows the next snapshot takes."""
        ...

    def snapshot(self, *, full: bool = False) -> Snapshot:
        """Copy the rows that changed since the last snapshot that was kept, or all of them."""
        ...

    def kept(self) -> None:
        """The last snapshot is durable."""
        ...

    def dropped(self) -> None:
        """The last snapshot is not; its rows are dirty again."""
        ...

    def restore(
        self,
        next_position: int,
        highest_event_ns: int,
        arenas: Sequence[ArenaRows],
        last_position: int | None = None,
        *,
        forgotten_ns: int = NO_TIME,
        cold: Sequence[ColdStreams] = (),
    ) -> None:
        """Start from a checkpoint, or from nothing at a position."""
        ...

    def extend(
        self,
        next_position: int,
        highest_event_ns: int,
        arenas: Sequence[ArenaRows],
        last_position: int | None = None,
        *,
        forgotten_ns: int = NO_TIME,
        cold: Sequence[ColdStreams] = (),
    ) -> None:
        """Go on from a later checkpoint of the same shard: its rows replace those in memory, the others stay."""
        ...


@dataclass(frozen=True, slots=True)
class Outputs:
    """The sinks whose acknowledgement a checkpoint waits for."""

    alerts: Mapping[str, Sink]
    others: Sequence[Sink] = ()
    """Complete scores and dead letters; sampled scores promise nothing and are left out."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What step 1 took at a wave boundary."""

    snapshot: Snapshot
    cold: ColdTaken
    alert_marks: dict[str, int]


@dataclass(frozen=True, slots=True)
class Written:
    """A checkpoint that is durable."""

    manifest: Manifest
    rows: int
    bytes: int
    full: bool
    took_s: float
    evicted: int
    """Streams whose rows left memory."""


class Checkpointer:
    """Makes the checkpoints of one shard, one at a time, from the manifest it was restored to."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        memory: Memory,
        engine_thread: Executor,
        store: Store,
        source: Source,
        outputs: Outputs,
        identity: Identity,
        clock: Clock,
        every_s: float,
        keep_history: Keep | None = None,
    ) -> None:
        self.manifest = manifest
        self._kept_manifests = [manifest]
        self._epoch = manifest.epoch
        self._memory, self._engine_thread = memory, engine_thread
        self._store, self._source, self._outputs, self._identity = store, source, outputs, identity
        self._clock, self._every_s = clock, every_s
        self._history = History(keep_history)
        self.cold = ColdRows(manifest, memory, engine_thread, store, identity)
        """Rows of streams that left memory."""
        self._failures = 0
        self.durable_s = clock.monotonic_s()
        """When the last manifest became durable; its age tells a stalled store."""
        self._due_s = self.durable_s + every_s

    @property
    def shard(self) -> Shard:
        """Whose checkpoints these are."""
        return self.manifest.shard

    def is_due(self) -> bool:
        """Whether it is time for the next one; sooner while there are too many streams and the store works."""
        now_s = self._clock.monotonic_s()
        is_crowded = self._memory.is_crowded and not self._failures and now_s >= self.durable_s + _CROWDED_S
        return is_crowded or now_s >= self._due_s

    async def take(self, *, is_replaying: bool) -> Taken:
        """Step 1. Call at a wave boundary, after the outputs of everything before it were handed to the sinks."""
        with contextlib.suppress(CheckpointError):
            await self._history.glance(self._store, self.shard)
        # 1. Wave boundary.
        cold, snapshot = await self._on_engine(self._at_boundary)
        marks = dict(self.manifest.alert_marks)
        if not is_replaying:
            marks |= await marks_now(self.shard, self._outputs.alerts)
        return Taken(snapshot, cold, marks)

    def _at_boundary(self) -> tuple[ColdTaken, Snapshot]:
        cold, memory = self.cold.take(), self._memory
        wants_base = self.manifest.mixed or self._history.is_due(self._clock.now_ns())
        full = wants_base or needs_base(self.manifest.segments, memory.saved_bytes, memory.changed_bytes)
        return cold, memory.snapshot(full=full)

    async def make_durable(self, taken: Taken, *, is_waited_for: bool = False) -> Written:
        """Steps 2 to 8, while the shard goes on; only up to 6 where a rebalance waits for it.

        Raises:
            SinkError: An output below the position is lost; only a restart from the last manifest brings it back.
            FencedError: The shard belongs to somebody else.
            CheckpointError: The store failed; the rows are dirty again and `is_due` backs off.
        """
        started_s = self._clock.monotonic_s()
        try:
            # 2. Acknowledged.
            await self._acknowledge()
            # 3. Rows durable.
            segments = await self._write_rows(taken.snapshot)
            cold = await self.cold.write(taken.cold, self.manifest.fence, self._epoch)
            # 4. Manifest durable: the commit point.
            manifest = await self._write_manifest(taken, segments, cold)
        except CheckpointError:
            await self._on_engine(self._memory.dropped)
            self._back_off()
            raise
        # 5. Forget.
        await self._on_engine(lambda: self._forget(taken))
        self._advance_to(manifest, started_s)
        # 6. Commit.
        await self._source.commit({self.shard: manifest.position})
        if not is_waited_for:
            await self._tidy(taken, manifest)
        return self._report(taken, manifest, self.durable_s - started_s)

    def _forget(self, taken: Taken) -> None:
        self._memory.kept()
        self.cold.kept(taken.cold)

    async def _tidy(self, taken: Taken, manifest: Manifest) -> None:
        """Steps 7 and 8; what fails here is done after a later checkpoint."""
        with contextlib.suppress(CheckpointError):
            # 7. History.
            if taken.snapshot.full and self._history.is_due(self._clock.now_ns()):
                await self._keep(manifest)
            # 8. Garbage.
            await self._collect_garbage()

    async def _acknowledge(self) -> None:
        for sink in (*self._outputs.alerts.values(), *self._outputs.others):
            await sink.flush()

    async def _write_rows(self, snapshot: Snapshot) -> list[Segment]:
        """Write the rows and name all segments that the next manifest consists of."""
        self._epoch += 1
        former = [] if snapshot.full else self.manifest.segments
        if not any(rows.streams or rows.gone for rows in snapshot.arenas):
            return list(former)
        name = segment_name(self.manifest.fence, self._epoch)
        return [*former, await write_segment(self._store, self.shard, name, snapshot.arenas)]

    async def _write_manifest(self, taken: Taken, segments: list[Segment], cold: list[Segment]) -> Manifest:
        position = taken.snapshot.next_position
        manifest = msgspec.structs.replace(
            self.manifest,
            epoch=self._epoch,
            position=position,
            highest_event_ns=taken.snapshot.highest_event_ns,
            last_position=taken.snapshot.last_position,
            alert_marks=taken.alert_marks,
            anchor=await self._source.anchor(self.shard, position),
            segments=segments,
            cold=cold,
            forgotten_ns=taken.snapshot.forgotten_ns,
            created=created(self._clock),
        )
        manifest = with_rows(manifest, taken.snapshot.arenas, self._identity, full=taken.snapshot.full)
        await write_manifest(self._store, manifest)
        return manifest

    async def _keep(self, manifest: Manifest) -> None:
        """Copy a manifest whose rows are a base: what verify starts from needs no deltas that come and go."""
        name = history_name(manifest.fence, manifest.epoch)
        await self._store.write(self.shard, name, [encode_manifest(manifest)])
        self._history.add(manifest)

    async def _collect_garbage(self) -> None:
        if self.manifest.epoch < _COLLECT_FROM_EPOCH:
            return
        names = await self._store.names(self.shard)
        await self._history.learn(self._store, self.shard, names)
        kept = self._history.within(self._clock.now_ns())
        await self._store.delete(self.shard, garbage(names, self._kept_manifests, kept))

    def _report(self, taken: Taken, manifest: Manifest, took_s: float) -> Written:
        rows = sum(len(arena.streams) for arena in taken.snapshot.arenas)
        size = manifest.segments[-1].bytes if rows else 0
        return Written(manifest, rows, size, taken.snapshot.full, took_s, taken.cold.evicted)

    def _advance_to(self, manifest: Manifest, started_s: float) -> None:
        self._kept_manifests = [manifest, self.manifest]
        self.manifest = manifest
        self.durable_s = self._clock.monotonic_s()
        self._due_s = started_s + self._every_s
        self._failures = 0

    def _back_off(self) -> None:
        self._failures += 1
        wait_s = min(2.0 ** min(self._failures - 1, _DOUBLINGS), self._every_s, _LONGEST_BACKOFF_S)
        # Shards, and replicas, that saw one store fail are not to come back to it all at once.
        jitter = random.Random(f"{self.shard} {self._epoch} {self._failures}").uniform(0.75, 1.25)
        self._due_s = self._clock.monotonic_s() + wait_s * jitter

    async def _on_engine(self, act: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._engine_thread, act)


async def write_manifest(store: Store, manifest: Manifest) -> None:
    """Make a manifest durable unless somebody with a higher fence owns the shard.

    A claim between the check and the write does no harm: the new owner's manifests sort above this one.

    Raises:
        FencedError: The shard belongs to somebody else.
    """
    fence = highest_fence(await store.names(manifest.shard))
    if fence > manifest.fence:
        where = f"{manifest.shard} in {store.where(manifest.shard)}"
        raise FencedError(where, "the shard was claimed by another owner", expected=manifest.fence, got=fence)
    await store.write(manifest.shard, manifest_name(manifest.fence, manifest.epoch), [encode_manifest(manifest)])


async def marks_now(shard: Shard, alerts: Mapping[str, Sink]) -> dict[str, int]:
    """Where the shard's alerts end now on each output that has positions."""
    marks = {name: await sink.alert_mark(shard) for name, sink in alerts.items()}
    return {name: mark for name, mark in marks.items() if mark is not None}


def created(clock: Clock) -> str:
    """Now, for people."""
    return datetime.fromtimestamp(clock.now_ns() // 1_000_000_000, UTC).isoformat()
