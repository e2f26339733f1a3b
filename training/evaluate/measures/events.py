"""Precision and recall by events, as counted for spacecraft telemetry (Hundman et al. 2018, section 4.2; telemanom).

An alarm is a run of rows, a true event is a run of rows; what counts is whether they touch:

    true positive     a true event that at least one alarm touches, counted once
    false positive    an alarm that touches no true event
    false negative    a true event that no alarm touches

Nothing is filled up or adjusted. A lasting alarm is still cheap here: one alarm over the whole series has precision and
recall 1. Read these figures beside the false-alarm rate of `skab`, never alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Rows: TypeAlias = tuple[int, int]
"""A run of rows: first, and one past the last."""


class EventCount(NamedTuple):
    """Events told right and wrong; `pool` adds up the counts of several series, for precision is no mean of means."""

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def precision(self) -> float:
        """Share of true ones in what was reported; NaN where nothing was."""
        return _share(self.true_positives, self.false_positives)

    @property
    def recall(self) -> float:
        """Share of true events that were reported; NaN where there are none."""
        return _share(self.true_positives, self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of the two; 0 where nothing was right, NaN where there was nothing to tell."""
        return _share(2 * self.true_positives, self.false_positives + self.false_negatives)


def intervals(flags: ArrayLike) -> list[Rows]:
    """Runs of non-zero flags (T,), in order."""
    is_set = np.asarray(flags) != 0
    edges = np.flatnonzero(np.diff(is_set, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def precision_recall(alarms: Iterable[Rows], truth: Iterable[Rows]) -> EventCount:
    """Match the alarms of one series with its true events.

    Args:
        alarms: Runs of rows in which the detector's anomaly was open.
        truth: Runs of rows annotated as anomalous.
    """
    alarms, truth = list(alarms), list(truth)
    found = sum(any(_touch(alarm, event) for alarm in alarms) for event in truth)
    wrong = sum(not any(_touch(alarm, event) for event in truth) for alarm in alarms)
    return EventCount(found, wrong, len(truth) - found)


def pool(counts: Iterable[EventCount]) -> EventCount:
    """The counts of all series together."""
    return EventCount(*(sum(column) for column in zip(EventCount(0, 0, 0), *counts, strict=True)))


def _touch(a: Rows, b: Rows) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _share(right: int, wrong: int) -> float:
    return right / (right + wrong) if right + wrong else math.nan
