"""A shard's memory: rows in arenas, most of the time; in the store where a stream has not been heard for long.

    snapshot > kept | dropped     for a checkpoint
    restore, adopt                from one
    evict > bring back            rows of streams that make room, and come back with the streams' next samples

Where a row is changes nothing of what comes out for its stream. An open anomaly keeps its row here, for it is looked at
when other streams' records pass (silence); so does a stream that is about to be forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from detector.engine.lane import Lane
from detector.errors import LineageError
from detector.records import NO_TIME, ArenaRows, Int64, Shard, Snapshot
from detector.stages.decide import open_slots
from detector.stages.route import Router
from detector.state.arena import Arena, Structured
from detector.state.cold import COLD_ROWS, ColdIndex, ColdStreams

_CROWD = 8  # an eighth more than max_streams is a crowd


class ShardMemory:
    """One shard's rows. Not thread-safe; call from one thread at a time."""

    def __init__(
        self,
        shard: Shard,
        lanes: Sequence[Lane],
        *,
        max_streams: int,
        max_cold_streams: int,
        rejects_unknown: bool,
    ) -> None:
        self.shard = shard
        self.cold = ColdIndex()
        """Streams whose rows are in the store."""
        self._lanes = lanes
        self._max_streams, self._max_cold_streams = max_streams, max_cold_streams
        self._rejects_unknown = rejects_unknown
        self._router = self._new_router()
        self._next_position, self._last_position, self._highest_ns = 0, -1, NO_TIME
        self._forgotten_ns = NO_TIME
        self._polls = self._returned = 0

    @property
    def streams(self) -> int:
        """How many streams have their rows here."""
        return len(self._router.slots)

    @property
    def open_anomalies(self) -> int:
        """How many anomalies are open."""
        return sum(len(arena.open) for arena in self._router.arenas)

    @property
    def frozen_streams(self) -> int:
        """How many streams with a row here learnt nothing from their last sample, by the operator's word."""
        arenas = enumerate(self._router.arenas)
        frozen = (arena.frozen for number, arena in arenas if self._lane_of(number).freezing is not None)
        return sum(int(np.count_nonzero(each)) for each in frozen)

    @property
    def is_crowded(self) -> bool:
        """Whether there are so many streams that the next checkpoint should come early."""
        return self.streams > self._max_streams + self._max_streams // _CROWD

    # For checkpoints --------------------------------------------------------------------------------------------------

    @property
    def saved_bytes(self) -> int:
        """About how many bytes a base of all rows takes."""
        return sum(arena.saved_bytes for arena in self._router.arenas)

    @property
    def changed_bytes(self) -> int:
        """About how many bytes of rows changed since the last snapshot that was kept."""
        return sum(arena.changed_bytes for arena in self._router.arenas)

    def snapshot(self, *, full: bool = False) -> Snapshot:
        """Copy what changed since the last snapshot that was kept, or everything. Follow it by `kept` or `dropped`."""
        rows = [arena.snapshot(full=full) for arena in self._router.arenas]
        return Snapshot(
            shard=self.shard,
            next_position=self._next_position,
            highest_event_ns=self._highest_ns,
            arenas=[some for some in rows if some.streams or some.gone],
            full=full,
            last_position=self._last_position,
            forgotten_ns=self._forgotten_ns,
        )

    def kept(self) -> None:
        """The last snapshot is durable: forget that its rows were dirty."""
        for arena in self._router.arenas:
            arena.kept()

    def dropped(self) -> None:
        """The last snapshot could not be kept: its rows are dirty again."""
        for arena in self._router.arenas:
            arena.dropped()

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
        """Start from a checkpoint, forgetting what is in memory; rows and cold segments come oldest first."""
        self.cold = ColdIndex()
        self._router = self._new_router()
        self._forgotten_ns = NO_TIME
        self.extend(next_position, highest_event_ns, arenas, last_position, forgotten_ns=forgotten_ns, cold=cold)

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
        """Go on from a later checkpoint: its rows replace those in memory, the others stay; new cold segments join."""
        self._next_position, self._highest_ns = next_position, highest_event_ns
        self._last_position = next_position - 1 if last_position is None else last_position
        self._forgotten_ns = forgotten_ns
        self.cold.forget(forgotten_ns)
        for rows in arenas:
            self.adopt(rows)
        for segment in cold:
            # A row here counts before a cold one, and what was last heard before `forgotten_ns` is forgotten.
            is_live = (self._router.slots.codes(segment.streams) < 0) & (segment.heard_ns >= forgotten_ns)
            self.cold.names[self.cold.add(segment.streams, segment.heard_ns, is_live)] = segment.name

    def adopt(self, rows: ArenaRows) -> None:
        """Take rows of a checkpoint: those that are gone go first, then rows come, and later ones replace earlier."""
        if self.cold:
            self.cold.remove(rows.streams)
        number = self._arena_of(rows)
        arena = self._router.arenas[number]
        self._router.let_go(number, self._router.slots_in(number, rows.gone), is_told=True)
        slots = self._router.take_in(number, rows.streams, rows.labels)
        arena.write(slots, rows)
        # As if heard before all polls to come, in the order of event times.
        last_ns = rows.arrays["last_ns"].astype(np.int64, copy=False)
        arena.touched[slots] = np.maximum(last_ns, 0) - max(self._highest_ns, 0) - 1
        arena.open.difference_update(slots.tolist())
        arena.open.update(slots[open_slots(cast(Structured, rows.arrays["decide"]))].tolist())

    # Eviction ---------------------------------------------------------------------------------------------------------

    def evict(self) -> dict[int, list[ArenaRows]]:
        """Take out the rows that are too many, of the streams heard the longest ago.

        They are cold from here on, as the segments returned: number > its rows.
        """
        excess = self.streams - self._max_streams
        if excess <= 0:
            return {}
        found = [self._evictable(number) for number in range(len(self._router.arenas))]
        arenas = np.repeat(np.arange(len(found)), [len(slots) for slots in found])
        slots = np.concatenate(found)
        touched = np.concatenate([arena.touched[at] for arena, at in zip(self._router.arenas, found, strict=True)])
        chosen = np.argpartition(touched, excess)[:excess] if excess < len(touched) else np.arange(len(touched))
        chosen = chosen[np.argsort(touched[chosen], kind="stable")]  # those that left together may come back together
        evicted: dict[int, list[ArenaRows]] = {}
        for start in range(0, len(chosen), COLD_ROWS):
            part = np.sort(chosen[start : start + COLD_ROWS])
            rows, heard_ns = self._take_out(arenas[part], slots[part])
            evicted[self.cold.add([stream for each in rows for stream in each.streams], heard_ns)] = rows
        return evicted

    def bring_back(self, arenas: Sequence[ArenaRows]) -> None:
        """Take back rows of streams that are cold, before their next samples are scored."""
        for rows in arenas:
            still = [at for at, stream in enumerate(rows.streams) if stream in self.cold]
            if not still:
                continue
            rows = rows if len(still) == len(rows.streams) else rows.take(still)
            self.adopt(rows)
            number = self._arena_of(rows)
            slots = self._router.slots_in(number, rows.streams)
            self._router.arenas[number].dirty[slots] = True  # the checkpoint has them elsewhere
            self._router.arenas[number].touched[slots] = self._polls
            self._returned += len(slots)

    # Forgetting -------------------------------------------------------------------------------------------------------

    def forget(self, before_ns: int, *, spare_untold: bool = True) -> int:
        """Streams last heard before an event time lose their memory, wherever it is; says how many.

        One with an open anomaly is spared until its silence was told of.
        """
        self._forgotten_ns = max(self._forgotten_ns, before_ns)
        forgotten = self.cold.forget(before_ns)
        for number, arena in enumerate(self._router.arenas):
            old = np.flatnonzero((arena.heard_ns() < before_ns) & arena.held[: len(arena.streams)])
            if spare_untold:
                old = old[~np.isin(old, _untold(arena))]
            self._router.let_go(number, old)
            forgotten += len(old)
        return forgotten

    def _oldest_heard_ns(self) -> int:
        """No stream was last heard before this event time."""
        heard = [arena.heard_ns()[arena.held[: len(arena.streams)]] for arena in self._router.arenas]
        return min([self.cold.oldest_ns, *(int(each.min()) for each in heard if len(each))])

    # Parts ------------------------------------------------------------------------------------------------------------

    def _evictable(self, number: int) -> NDArray[np.intp]:
        arena = self._router.arenas[number]
        may_go = arena.held[: len(arena.streams)] & (arena.heard_ns() >= self._forgotten_ns)
        may_go[as_slots(arena.open)] = False
        return np.flatnonzero(may_go)

    def _take_out(self, arenas: NDArray[np.intp], slots: NDArray[np.intp]) -> tuple[list[ArenaRows], Int64]:
        """Copy rows of several arenas, each given by its arena's number and its slot, and free their slots."""
        taken, heard_ns = [], []
        for number in np.unique(arenas).tolist():
            at, arena = slots[arenas == number], self._router.arenas[number]
            taken.append(arena.copy(at))
            heard_ns.append(arena.heard_ns()[at])
            self._router.let_go(number, at)
        return taken, np.concatenate(heard_ns)

    def _arena_of(self, rows: ArenaRows) -> int:
        names = [lane.detector.name for lane in self._lanes]
        if rows.detector not in names:
            raise LineageError(self.shard, "detector of saved rows", expected=f"one of {names}", got=rows.detector)
        return self._router.arena(names.index(rows.detector), rows.channels)

    def _lane_of(self, arena: int) -> Lane:
        return self._lanes[self._router.claim_of[arena]]

    def _new_router(self) -> Router:
        return Router(
            self.shard.topic,
            [lane.claim for lane in self._lanes],
            self.cold,
            max_streams=self._max_streams + self._max_cold_streams,
            rejects_unknown=self._rejects_unknown,
        )


def _untold(arena: Arena) -> NDArray[np.intp]:
    """Slots with an open anomaly whose silence, if it is silent, was not told of."""
    slots = as_slots(arena.open)
    rows = arena.decide.take(slots)
    return slots[np.flatnonzero(rows["silent_ns"] != rows["last_ns"])]


def as_slots(slots: set[int]) -> NDArray[np.intp]:
    """Slots as an array, in any order."""
    return np.fromiter(slots, np.intp, len(slots))
