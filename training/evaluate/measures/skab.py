"""Point-wise F1 with false-alarm and missed-alarm rates, as the SKAB leader board has them (Katser and Kozitsyn 2020).

Rows of all files are pooled before any ratio is taken. F1 alone proves nothing there, for more than half of the rows
are anomalous and "everything is" already has 0.70: the three figures belong together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class PointCount(NamedTuple):
    """Rows told right and wrong; `pool` adds up those of several files."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def f1(self) -> float:
        """TP / (TP + (FP + FN) / 2); NaN where no row is anomalous and none was flagged."""
        return _share(self.true_positives, (self.false_positives + self.false_negatives) / 2)

    @property
    def far_percent(self) -> float:
        """False-alarm rate: flagged among the normal rows, in percent."""
        return 100 * _share(self.false_positives, self.true_negatives)

    @property
    def mar_percent(self) -> float:
        """Missed-alarm rate: not flagged among the anomalous rows, in percent."""
        return 100 * _share(self.false_negatives, self.true_positives)


def f1_far_mar(labels: ArrayLike, flags: ArrayLike) -> PointCount:
    """Compare flags with labels row by row.

    Args:
        labels: (T,) non-zero where anomalous; of the rows after the training part alone.
        flags: (T,) non-zero where the detector's anomaly was open.

    Raises:
        ValueError: Lengths differ.
    """
    truth, told = np.asarray(labels) != 0, np.asarray(flags) != 0
    if truth.shape != told.shape:
        raise ValueError(f"skab: flags: expected {truth.shape}, got {told.shape}")
    pairs = (truth & told, ~truth & told, truth & ~told, ~truth & ~told)
    return PointCount(*(int(pair.sum()) for pair in pairs))


def pool(counts: Iterable[PointCount]) -> PointCount:
    """The counts of all files together."""
    return PointCount(*(sum(column) for column in zip(PointCount(0, 0, 0, 0), *counts, strict=True)))


def _share(part: float, rest: float) -> float:
    return part / (part + rest) if part + rest else math.nan
