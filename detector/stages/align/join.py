"""Join: samples out of narrow records, each one channel's value of one stream at one time.

A stream collects values for one time, the highest it has heard of. Each record of it, in order:

    1. older than that time                              late
    2. of that time, its channel has arrived             duplicate
    3. of that time, its channel has not                 goes into the sample; the last one to arrive closes it
    4. of a later time                                   closes the sample as it is, and begins the next

A null is a value that has arrived and says that the channel is missing. A sample belongs to the record that closed it:
its index and position are that record's. No two samples of a stream belong to the same record, which their alerts' ids
rely on: a record that closes the sample before it (4) begins one which, with two channels or more, lacks the others;
and with one channel every sample is closed by its own record (3), so that none is ever left for the next to close.

Given records sorted by slot, in record order within a slot, everything is done at once, on a table with a row for each
sample that the batch touches: per slot first the one that it has so far, then those that begin here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.records import Bytes, Float64, Int64
from detector.stages.align.order import firsts, highest_before


class Partials(NamedTuple):
    """What has arrived of each slot's last sample. A sample of which all has arrived is closed."""

    event_ns: Int64
    """(slots,) its time; the highest that the stream has heard of, or NO_TIME."""
    values: Float64
    """(slots, C) raw units, NaN where missing or not arrived."""
    arrived: Bytes
    """(slots, C) 1 where a value or a null has arrived."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of m records, and the k samples that they closed, sorted by slot and in order within a slot."""

    accepted: NDArray[np.bool_]
    """(m,)"""
    is_duplicate: NDArray[np.bool_]
    """(m,) Of those not accepted; the others are late."""
    closing: NDArray[np.intp]
    """(k,) which record closed each sample; no two of a slot are the same."""
    slots: Int64
    event_ns: Int64
    values: Float64
    """(k, C) raw units, NaN where missing."""


class _Table(NamedTuple):
    """Samples by row: their slots and times, and which of them are open."""

    slots: Int64
    event_ns: Int64
    values: Float64
    arrived: NDArray[np.bool_]
    is_open: NDArray[np.bool_]


def join(slots: Int64, columns: NDArray[np.intp], event_ns: Int64, values: Float64, partials: Partials) -> Joined:
    """Join a batch of records with what their slots have so far, and note in `partials` what they have then.

    Args:
        slots: Shape (m,), not falling; equal slots stand in record order.
        columns: (m,) which channel each record is of.
        event_ns: (m,) its time, at least 0.
        values: (m,) its value, NaN where it says that the channel is missing.
        partials: Of all slots; rows of `slots` are changed.
    """
    before_ns = highest_before(firsts(slots), event_ns, partials.event_ns[slots])
    on_time = np.flatnonzero(event_ns >= before_ns)  # (n,) rule 1
    slots, columns, event_ns, values = slots[on_time], columns[on_time], event_ns[on_time], values[on_time]
    begins = event_ns > before_ns[on_time]
    is_first = firsts(slots)
    row = np.cumsum(begins) + np.cumsum(is_first) - 1  # (n,) which sample of the table each record is of
    so_far = row[is_first] - begins[is_first]  # (slots here,) the row of what each slot has so far
    table = _table(row, so_far, slots, event_ns, partials)
    is_new = _fill(table, row, columns, values)
    closing = _close(table, row, begins, is_new)
    ends = np.append(so_far[1:], len(table.slots))[: len(so_far)] - 1  # the last row of each slot
    here = table.slots[ends]
    partials.event_ns[here] = table.event_ns[ends]
    partials.values[here], partials.arrived[here] = table.values[ends], table.arrived[ends]
    accepted, is_duplicate = np.zeros((2, len(before_ns)), np.bool_)
    accepted[on_time], is_duplicate[on_time] = is_new, ~is_new
    closed = np.flatnonzero(closing >= 0)
    return Joined(
        accepted=accepted,
        is_duplicate=is_duplicate,
        closing=on_time[closing[closed]],
        slots=table.slots[closed],
        event_ns=table.event_ns[closed],
        values=table.values[closed],
    )


def _table(
    row: NDArray[np.intp], so_far: NDArray[np.intp], slots: Int64, event_ns: Int64, partials: Partials
) -> _Table:
    """The samples before any of the records has arrived."""
    rows, channels = (int(row[-1]) + 1 if len(row) else 0), partials.values.shape[1]
    table = _Table(
        slots=np.empty(rows, np.int64),
        event_ns=np.empty(rows, np.int64),
        values=np.full((rows, channels), np.nan),
        arrived=np.zeros((rows, channels), np.bool_),
        is_open=np.ones(rows, np.bool_),
    )
    table.slots[row], table.event_ns[row] = slots, event_ns
    here = table.slots[so_far] = slots[firsts(slots)]
    table.event_ns[so_far], table.values[so_far] = partials.event_ns[here], partials.values[here]
    table.arrived[so_far] = partials.arrived[here]
    table.is_open[so_far] = ~table.arrived[so_far].all(axis=1)
    return table


def _fill(table: _Table, row: NDArray[np.intp], columns: NDArray[np.intp], values: Float64) -> NDArray[np.bool_]:
    """Put values into their samples; which of them were not there yet: rules 2 and 3."""
    at, cell = np.arange(len(row)), row * table.values.shape[1] + columns
    first = np.empty(table.values.size, np.intp)
    first[cell[::-1]] = at[::-1]  # of several assignments the last one stays, which is the first record
    is_new: NDArray[np.bool_] = (first[cell] == at) & ~table.arrived.reshape(-1)[cell]
    table.values.reshape(-1)[cell[is_new]] = values[is_new]
    table.arrived.reshape(-1)[cell[is_new]] = True
    return is_new


def _close(
    table: _Table, row: NDArray[np.intp], begins: NDArray[np.bool_], is_new: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """(rows,) which record closed each sample here, -1 where none did: rules 3 and 4."""
    is_complete = np.asarray(table.arrived.all(axis=1), np.bool_)
    closing = np.full(len(is_complete), -1)
    closing[row[is_new]] = np.flatnonzero(is_new)  # of several assignments the last one stays
    closing[~is_complete | ~table.is_open] = -1
    begin = np.flatnonzero(begins)
    before = row[begin] - 1  # the sample that each of these records leaves behind, of the same slot
    is_left_open = ~is_complete[before]
    closing[before[is_left_open]] = begin[is_left_open]
    return closing
