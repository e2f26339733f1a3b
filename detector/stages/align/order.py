"""The order of a stream's samples.

Given samples sorted by stream, in record order within a stream, and each stream's last accepted event time, it says
which samples are accepted and how long after its predecessor each came. Only accepted samples count as predecessors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.records import NO_TIME, Int64


@dataclass(frozen=True, slots=True)
class Aligned:
    """What became of n samples."""

    accepted: NDArray[np.bool_]
    is_duplicate: NDArray[np.bool_]
    """Of those not accepted: the same time as the last accepted sample; the others are late."""
    elapsed_ns: Int64
    """Since the stream's previous accepted sample; 0 on its first; meaningless where not accepted."""

    def take(self, which: NDArray[np.bool_]) -> Aligned:
        """Those of the samples."""
        return Aligned(self.accepted[which], self.is_duplicate[which], self.elapsed_ns[which])


def align(slots: Int64, event_ns: Int64, last_ns: Int64) -> Aligned:
    """Judge samples by the times of their streams.

    Args:
        slots: Shape (n,), not falling; equal slots stand in record order.
        event_ns: Event time of each sample, at least 0.
        last_ns: Last accepted event time of each sample's stream before this batch, NO_TIME where there is none.
    """
    before = highest_before(firsts(slots), event_ns, last_ns)
    elapsed_ns = np.where(before == NO_TIME, 0, event_ns - before)
    return Aligned(event_ns > before, event_ns == before, elapsed_ns)


def firsts(slots: Int64) -> NDArray[np.bool_]:
    """(n,) which are the first of their slot."""
    is_first = np.empty(len(slots), np.bool_)
    is_first[:1] = True
    np.not_equal(slots[1:], slots[:-1], out=is_first[1:])
    return is_first


def highest_before(is_first: NDArray[np.bool_], event_ns: Int64, last_ns: Int64) -> Int64:
    """(n,) the highest time of each one's stream before it. What is late never exceeds it, so it may count as well."""
    before = last_ns.copy()
    before[1:] = np.where(is_first[1:], last_ns[1:], event_ns[:-1])
    return before if (event_ns >= before).all() else _running_highest(is_first, event_ns, last_ns)


def _running_highest(is_first: NDArray[np.bool_], event_ns: Int64, last_ns: Int64) -> Int64:
    """The same where times fall.

    A running maximum that starts anew with each stream: times are replaced by their ranks, to which a stream's number
    times the number of ranks is added, so that one accumulate over everything never carries from stream to stream.
    """
    times, rank = np.unique(np.concatenate([last_ns, event_ns]), return_inverse=True)
    n = len(event_ns)
    start = (np.cumsum(is_first) - 1) * len(times)
    before = start + rank[:n]
    before[1:] = np.where(is_first[1:], before[1:], np.maximum(before[1:], (start + rank[n:])[:-1]))
    highest: Int64 = times[np.maximum.accumulate(before) - start]
    return highest
