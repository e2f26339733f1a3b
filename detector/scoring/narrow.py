"""Long tables: a row is one channel's value of one stream at one time. The daemon's own join makes samples of them.

Each file is joined by itself, to its end, as the daemon joins a file; its samples come in the order in which they were
closed, those that the end closed last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.records import NO_TIME, Float64, Int64, Reason
from detector.stages.align import Joined, Partials, join


@dataclass(frozen=True, slots=True)
class LongRows:
    """The rows of a long table, m of them."""

    stream: NDArray[np.intp]
    event_ns: Int64
    channel: list[str]
    value: Float64
    refused: dict[int, Reason]
    """Rows that the daemon could not decode, by their place."""


@dataclass(frozen=True, slots=True)
class JoinedRows:
    """The k samples of a long table."""

    channels: tuple[str, ...]
    stream: NDArray[np.intp]
    event_ns: Int64
    values: Float64
    """(k, C) raw units, NaN where missing."""
    row: NDArray[np.intp]
    """(k,) the first row of each."""
    refused: Counter[Reason]
    """Rows that went into no sample."""


def join_rows(rows: LongRows, channels: Sequence[str] | None) -> JoinedRows:
    """Join rows to samples; without `channels` those of the rows, in order of first sight."""
    refused = dict(rows.refused)
    refused |= dict.fromkeys(np.flatnonzero(np.isinf(rows.value)).tolist(), Reason.NOT_FINITE)
    refused |= {at: Reason.MISSING_FIELD for at, name in enumerate(rows.channel) if not name}
    is_good = np.ones(len(rows.channel), np.bool_)
    is_good[list(refused)] = False
    names = tuple(dict.fromkeys(np.array(rows.channel, object)[is_good])) if channels is None else tuple(channels)
    column = {name: number for number, name in enumerate(names)}
    columns = np.array([column.get(name, -1) for name in rows.channel], np.intp)
    good = np.flatnonzero(is_good & (columns >= 0))
    good = good[np.argsort(rows.stream[good], kind="stable")]
    streams, slots = np.unique(rows.stream[good], return_inverse=True)
    joined, ended = _join(slots, columns[good], rows.event_ns[good], rows.value[good], len(streams), len(names))
    taken = good[joined.accepted]
    slot, event_ns = np.append(joined.slots, ended.slots), np.append(joined.event_ns, ended.event_ns)
    first = _first_rows(slots[joined.accepted], rows.event_ns[taken], taken, slot, event_ns)
    order = np.argsort(np.append(good[joined.closing], np.full(len(ended.slots), len(rows.channel))), kind="stable")
    counts = Counter(refused.values())
    counts[Reason.DUPLICATE] = int(np.count_nonzero(joined.is_duplicate))
    counts[Reason.LATE] = int(np.count_nonzero(~joined.accepted)) - counts[Reason.DUPLICATE]
    return JoinedRows(
        channels=names,
        stream=streams[slot][order],
        event_ns=event_ns[order],
        values=np.concatenate([joined.values, ended.values])[order],
        row=first[order],
        refused=+counts,
    )


@dataclass(frozen=True, slots=True)
class _Ended:
    """Samples that the end of the rows closed."""

    slots: Int64
    event_ns: Int64
    values: Float64


def _join(
    slots: Int64, columns: NDArray[np.intp], event_ns: Int64, values: Float64, streams: int, channels: int
) -> tuple[Joined, _Ended]:
    partials = Partials(
        np.full(streams, NO_TIME), np.full((streams, channels), np.nan), np.ones((streams, channels), np.uint8)
    )
    joined = join(slots, columns, event_ns, values, partials)
    left = np.flatnonzero(~partials.arrived.all(axis=1))
    return joined, _Ended(left, partials.event_ns[left], partials.values[left])


def _first_rows(of_slot: Int64, at_ns: Int64, rows: NDArray[np.intp], slot: Int64, event_ns: Int64) -> NDArray[np.intp]:
    """The first row of each sample: rows and samples, sorted by stream and time, stand in the same order."""
    by_sample = np.lexsort((rows, at_ns, of_slot))
    is_first = np.ones(len(rows), np.bool_)
    sorted_slots, sorted_ns = of_slot[by_sample], at_ns[by_sample]
    is_first[1:] = (sorted_slots[1:] != sorted_slots[:-1]) | (sorted_ns[1:] != sorted_ns[:-1])
    first = np.empty(len(slot), np.intp)
    first[np.lexsort((event_ns, slot))] = rows[by_sample][is_first]
    return first
