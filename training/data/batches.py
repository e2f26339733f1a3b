"""Arrays for the detector: many streams side by side, shorter ones padded, what is missing or padding masked.

Axes: N streams of a batch, T samples in time, C channels, K clock features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from detector.records import Float32, Float64, Int64
from training.data.series import Series

_MINUTE_NS = 60_000_000_000


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
    elapsed, clock = np.zeros(shape, np.float32), np.zeros((*shape, 4), np.float32)
    for row, one in enumerate(series):
        values[row, : len(one), : len(one.channels)] = one.values
        elapsed[row, : len(one)] = one.elapsed_s
        clock[row, : len(one)] = clock_features(one.time_ns, zone)
    return Block(series, values, (~np.isnan(values)).astype(np.float32), elapsed, clock)


def clock_features(time_ns: Int64, zone: str) -> Float32:
    """(T, K) sine and cosine of time of day and of day of week, at the start of the minute, in the plant's zone."""
    minutes, where = np.unique(time_ns // _MINUTE_NS, return_inverse=True)
    local = minutes + _offset_minutes(minutes, zone)
    day = 2 * np.pi * (local % 1440) / 1440
    week = 2 * np.pi * ((local + 3 * 1440) % 10_080) / 10_080  # 1970 began on a Thursday
    return np.stack([np.sin(day), np.cos(day), np.sin(week), np.cos(week)], axis=1).astype(np.float32)[where]


def _offset_minutes(minutes: Int64, zone: str) -> Int64:
    """Minutes that the zone is ahead of UTC; asked once a quarter of an hour, where offsets may change."""
    quarters, where = np.unique(minutes // 15, return_inverse=True)
    place = ZoneInfo(zone)
    offsets = [datetime.fromtimestamp(int(q) * 900, UTC).astimezone(place).utcoffset() for q in quarters]
    return np.array([int(offset.total_seconds()) // 60 if offset else 0 for offset in offsets], np.int64)[where]
