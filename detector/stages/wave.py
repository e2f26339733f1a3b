"""Wave: split samples into waves, at most one sample of each stream and at most `wave_rows` rows in each.

Given the slots of the samples, sorted, in order within a slot; gives back index arrays into them. Sample j of a
stream comes in a later wave than sample j - 1. Within a wave the slots rise, so that rows are read in memory order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.records import Int64


def wave(slots: Int64, wave_rows: int) -> list[NDArray[np.intp]]:
    """Indexes of each wave's samples, in the order in which the waves are to run.

    Args:
        slots: Shape (n,), not falling; equal slots stand in record order.
        wave_rows: Most samples of a wave.
    """
    turn = _turns(slots)  # (n,) how many samples of the same stream stand before
    last = int(turn.max(initial=-1))
    if last == 0:
        return _cut(np.arange(len(slots)), wave_rows)
    by_turn = np.argsort(turn.astype(np.min_scalar_type(last)), kind="stable")  # small integers sort in linear time
    ends = np.cumsum(np.bincount(turn, minlength=last + 1))
    return [part for turn_of in np.split(by_turn, ends[:-1]) for part in _cut(turn_of, wave_rows)]


def _turns(slots: Int64) -> NDArray[np.intp]:
    at = np.arange(len(slots))
    is_first = np.empty(len(slots), np.bool_)
    is_first[:1] = True
    np.not_equal(slots[1:], slots[:-1], out=is_first[1:])
    return at - np.maximum.accumulate(np.where(is_first, at, 0))


def _cut(index: NDArray[np.intp], rows: int) -> list[NDArray[np.intp]]:
    return [index[start : start + rows] for start in range(0, len(index), rows)]
