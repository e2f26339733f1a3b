"""How far a mean over series may be trusted: intervals by the bootstrap (Efron 1979), drawn over series.

A benchmark's mean moves with the series that happen to be in it; drawing the same number of series with replacement,
many times, shows by how much. The series is the unit: rows of one series are no independent evidence. The percentile
interval is a little too narrow for few series; below ten read it as a lower bound of the doubt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Figures: TypeAlias = NDArray[np.float64]
"""One figure per series, shape (N,)."""

COVERAGE = 0.95
_RESAMPLES = 10_000  # the ends of a 95 % interval then move by about 1 % of its width from seed to seed


class Interval(NamedTuple):
    """A mean with the range that it may as well be."""

    mean: float
    low: float
    """NaN where nothing tells, as for a published figure or for fewer than two series."""
    high: float
    number: int
    """What the mean stands on: series, unless the maker of the interval says otherwise."""


def mean_interval(values: Iterable[float], seed: int = 0) -> Interval:
    """Mean over series with its 95 % interval.

    Args:
        values: One figure per series; NaN where it is not defined for a series, which is then left out.
        seed: Of the draws; the same seed gives the same interval.

    Returns:
        All NaN with number 0 where no figure is left.
    """
    figures = np.asarray(list(values), np.float64)
    figures = figures[~np.isnan(figures)]
    if len(figures) < 2:
        return Interval(float(figures.sum()) if len(figures) else np.nan, np.nan, np.nan, len(figures))
    tails = (1 - COVERAGE) / 2
    low, high = np.quantile(_drawn_means(figures, seed), [tails, 1 - tails])
    return Interval(float(figures.mean()), float(low), float(high), len(figures))


def paired_difference(ours: Iterable[float], theirs: Iterable[float], seed: int = 0) -> Interval:
    """Mean of ours minus theirs over the same series, with its interval; it leaves 0 out where the lead is no luck.

    Pairs cancel what makes a series hard for everybody, so that this interval is much narrower than the two apart.

    Raises:
        ValueError: They are not of one length.
    """
    return mean_interval((a - b for a, b in zip(ours, theirs, strict=True)), seed)


def _drawn_means(figures: Figures, seed: int) -> Figures:
    """Means of as many series, drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(len(figures), size=(_RESAMPLES, len(figures)), dtype=np.int32)
    means: Figures = figures[drawn].mean(axis=1)
    return means
