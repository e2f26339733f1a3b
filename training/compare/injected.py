"""Faults put into a healthy stream on purpose, where nobody labelled any: what is wrong is then known to the sample.

Five things that happen to sensors: a spike, a step, a drift, more noise, a reading that stands still. Each hits one
channel for a while, with a size in units of that channel's own spread; where and how follows from the seed alone, so
that every candidate meets the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from detector.records import Bytes, Float64
from training.data.series import Series

_EVERY = 200  # samples for each fault
_LENGTHS = (8, 40)  # samples of all but spikes
_SIZES = (1.0, 3.0)  # spreads


def inject(one: Series, seed: Sequence[int]) -> tuple[Series, Bytes]:
    """Put faults into the span after the cut.

    Args:
        one: A stream; it stays as it is.
        seed: Of what is put where.

    Returns:
        The stream with its faults, and (T,) 1 where they are.
    """
    rng = np.random.default_rng(seed)
    values, labels = one.values.copy(), np.zeros(len(one), np.uint8)
    count = max(1, (len(one) - one.cut) // _EVERY)
    for place in np.array_split(np.arange(one.cut, len(one)), count):
        fault = _FAULTS[rng.integers(len(_FAULTS))]
        length = min(2 if fault is _spike else int(rng.integers(*_LENGTHS)), max(1, len(place) // 3))
        first = int(place[0] + rng.integers(len(place) // 3, max(len(place) - length, len(place) // 3) + 1))
        rows, channel = slice(first, first + length), int(rng.integers(values.shape[1]))
        size = float(rng.choice([-1, 1]) * rng.uniform(*_SIZES)) * _spread(one.values[:, channel])
        values[rows, channel] = fault(values[rows, channel], size, rng)
        labels[rows] = 1
    return replace(one, values=values), labels


def _spread(column: Float64) -> float:
    """Between the 5th and the 95th percentile, in standard deviations of a normal; 1 where it never moves."""
    seen = column[~np.isnan(column)]
    low, high = np.quantile(seen, [0.05, 0.95]) if len(seen) else (0.0, 0.0)
    return float(high - low) / 3.29 or 1.0


def _spike(readings: Float64, size: float, rng: np.random.Generator) -> Float64:
    return readings + 2 * size


def _step(readings: Float64, size: float, rng: np.random.Generator) -> Float64:
    return readings + size


def _drift(readings: Float64, size: float, rng: np.random.Generator) -> Float64:
    return readings + np.linspace(0, 2 * size, len(readings))


def _noise(readings: Float64, size: float, rng: np.random.Generator) -> Float64:
    return readings + size * rng.standard_normal(len(readings))


def _stuck(readings: Float64, size: float, rng: np.random.Generator) -> Float64:
    return np.where(np.isnan(readings), np.nan, readings[0])


_FAULTS: tuple[Callable[[Float64, float, np.random.Generator], Float64], ...] = (_spike, _step, _drift, _noise, _stuck)
