"""Arrays for the detector: many streams side by side, shorter ones padded, what is missing or padding masked.

Axes: N streams of a batch, T samples in time, C channels, K clock features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detector.records import Float32, Float64
from detector.stages.infer import CLOCK_FEATURES, WallClock
from training.data.series import Series


@dataclass(frozen=True, slots=True)
class Block:
    """Streams side by side, raw; what is padding, in time or in channels, counts as missing."""

    series: list[Series]
    values: Float64
    """(N, T, C) raw units, NaN where missing or padding."""
    observed: Float32
    """(N, T, C) 1 where measured, 0 where missing or padding."""
    elapsed: Float32
    """(N, T) seconds since the sample before."""
    clock: Float32
    """(N, T, K) time of day and of week."""


def blocks(series: Sequence[Series], zone: str, most: int) -> Iterator[Block]:
    """Put streams with equally many channels and of like length side by side, `most` at a time."""
    by_channels: dict[int, list[Series]] = defaultdict(list)
    for one in series:
        by_channels[len(one.channels)].append(one)
    for group in by_channels.values():
        group = sorted(group, key=len)
        for first in range(0, len(group), most):
            yield block(group[first : first + most], zone)


def block(series: list[Series], zone: str) -> Block:
    """Pad streams to the longest of them, and to the one with most channels."""
    shape = (len(series), max(map(len, series)))
    values = np.full((*shape, max(len(one.channels) for one in series)), np.nan)
    elapsed, clock = np.zeros(shape, np.float32), np.zeros((*shape, CLOCK_FEATURES), np.float32)
    wall = WallClock(zone)
    for row, one in enumerate(series):
        values[row, : len(one), : len(one.channels)] = one.values
        elapsed[row, : len(one)] = one.elapsed_s
        clock[row, : len(one)] = wall.features(one.time_ns)
    return Block(series, values, (~np.isnan(values)).astype(np.float32), elapsed, clock)
