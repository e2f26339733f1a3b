"""Samples of narrow records of which not all has arrived: what the join remembers of them, and how they end.

Where a source ends, nothing more can arrive: what is there is closed as it is. Such a sample stands at the position
after the last record. No other one of its stream can ever stand there: should the source grow, the record at that
position closes nothing that was begun before it, and with two channels or more it does not close its own either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.records import NO_TIME, Int64, Samples, Shard
from detector.stages.align import Partials
from detector.state.arena import Arena
from detector.state.slots import Slots, arena_of, slot_of

_NEVER = np.iinfo(np.int64).max


def partials_of(arena: Arena) -> Partials:
    """What the join remembers; may not outlive the call (see Arena)."""
    return Partials(arena.join_ns, arena.join_values, arena.join_arrived)


def begun_ns(streams: Sequence[str], slots: Slots, arenas: Sequence[Arena]) -> Int64:
    """(n,) the time of the open sample of each stream, the highest integer where there is none."""
    begun = np.full(len(streams), _NEVER)
    if all(len(arena.channels) == 1 for arena in arenas):
        return begun  # with one channel nothing waits; spares a look-up that costs as much as routing
    codes = slots.codes(streams)
    for number, arena in enumerate(arenas):
        here = np.flatnonzero(arena_of(codes) == number)
        rows = slot_of(codes[here])
        begun[here] = np.where(arena.join_arrived[rows].all(axis=1), _NEVER, arena.join_ns[rows])
    return begun


def close_all(arenas: Sequence[Arena], shard: Shard, position: int) -> Samples:
    """Close every open sample, as if nulls had arrived, and give them out in order of arena and stream."""
    slots = [_open(arena) for arena in arenas]
    count = sum(map(len, slots))
    samples = Samples(
        shard=shard,
        index=np.arange(count),
        streams=[arena.streams[slot] for arena, at in zip(arenas, slots, strict=True) for slot in at.tolist()],
        event_ns=np.concatenate([np.empty(0, np.int64), *(a.join_ns[at] for a, at in zip(arenas, slots, strict=True))]),
        append_ns=np.full(count, NO_TIME),
        positions=np.full(count, position),
        shapes=[arena.channels for arena in arenas],
        shape_of=np.repeat(np.arange(len(arenas)), [len(at) for at in slots]),
        cells=[arena.join_values[at] for arena, at in zip(arenas, slots, strict=True)],
    )
    for arena, at in zip(arenas, slots, strict=True):
        arena.join_arrived[at], arena.dirty[at] = 1, True
    return samples


def _open(arena: Arena) -> NDArray[np.intp]:
    """Slots with an open sample, by stream: the order of slots may be another one after a restart."""
    if not arena.is_narrow:
        return np.empty(0, np.intp)
    slots = np.flatnonzero(~arena.join_arrived[: len(arena.streams)].all(axis=1)).tolist()
    return np.array(sorted(slots, key=arena.streams.__getitem__), np.intp)
