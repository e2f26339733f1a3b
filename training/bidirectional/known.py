"""What is known of a cell without looking at it: what was measured before, after, and beside it.

A stream that walks at random between two known ends lies around the straight line between them (the Brownian bridge).
With c the spread of a channel's changes from sample to sample, s that of its values, and d periods to either end,

    line   = (last / d_before + next / d_after) / (1 / d_before + 1 / d_after)      linear interpolation
    spread = (1 / (c^2 d_before) + 1 / (c^2 d_after) + 1 / s^2) ^ -1/2              never beyond that of the values

This is what an untrained network says, and the unit in which it corrects itself. Three corrections are offered to it as
levers, in that unit: the way to the channel's mean, and how a cubic curve bends away from the line because of the slope
with which the channel comes, and of that with which it goes on (Hermite).

Axes: N stretches, T samples in time, C channels, K clock features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.records import Float32, Float64

LEVERS = 3
"""To the mean, by the slope before, by the slope after."""
QUERY = LEVERS + 3
"""Beside the levers: how far away each end is, and how wide the spread."""
HEARD = 5
"""What a network hears of a cell: level, change, whether it was measured, how smooth the channel is, gap."""
TOLD = 3
"""What a cell tells of itself to the other channels of its moment: off its line, level, whether it was measured."""

_FAR = 10.0  # spreads; what lies further is as good as there

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Usual:
    """What a stream's channels are like; (C,) each, raw units."""

    mean: Float64
    values: Float64
    """Spread of the values: s."""
    changes: Float64
    """Spread of the changes from one period to the next: c."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of each cell without looking at it."""

    line: Float64
    """(N, T, C) raw units."""
    spread: Float64
    """(N, T, C) raw units, above 0."""
    query: Float32
    """(N, T, C, QUERY), the levers first."""
    told: Float32
    """(N, T, C, TOLD) of the cell itself: for the other channels alone."""
    onward: Float32
    """(N, T, HEARD * C + K) what a network hears that reads onward; the gaps are the last of it but the clock."""
    backward: Float32
    """The same for one that reads backward, in the order of time."""


def usual(values: Float64, periods: Float64) -> Usual:
    """Measure what is usual.

    Args:
        values: (T, C) raw units, NaN where missing.
        periods: (T,) time in periods, rising.
    """
    mean, spread, changes = (np.zeros(values.shape[1]) for _ in range(3))
    for c, column in enumerate(values.T):
        seen = ~np.isnan(column)
        x, t = column[seen], periods[seen]
        if len(x):
            mean[c], spread[c] = x.mean(), x.std()
        if len(x) > 1:
            # The mean size of a normal variable is sqrt(2 / pi) spreads; one jump weighs less in it than in a variance.
            changes[c] = np.mean(np.abs(np.diff(x)) / np.sqrt(np.diff(t))) * np.sqrt(np.pi / 2)
    spread = np.where(spread > 0, spread, np.maximum(np.abs(mean), 1.0) * 1e-6)  # of a constant
    return Usual(mean, spread, np.clip(changes, 1e-3 * spread, None))


def around(values: Float64, shown: Bools, periods: Float64, clock: Float32, normal: Usual) -> Known:
    """Find what is known of each cell.

    Args:
        values: (N, T, C) raw units; what is not shown is not looked at.
        shown: (N, T, C).
        periods: (N, T) time in periods, rising.
        clock: (N, T, K).
        normal: What is usual of each stretch, (N, 1, C) each.
    """
    values = np.where(shown, values, 0.0)
    last, before, slope_before = _before(values, shown, periods)
    turned = _before(values[:, ::-1], shown[:, ::-1], -periods[:, ::-1])
    following, after, slope_after = (one[:, ::-1] for one in turned)
    weight_before, weight_after = 1 / before, 1 / after  # 0 where there is no end
    total = weight_before + weight_after
    with np.errstate(invalid="ignore", divide="ignore"):
        line = np.where(total > 0, (weight_before * last + weight_after * following) / total, normal.mean)
        bends = _bends(last, before, slope_before, following, after, -slope_after)
    spread = (total / normal.changes**2 + 1 / normal.values**2) ** -0.5
    levers = np.stack([normal.mean - line, *bends], axis=-1) / spread[..., None]
    gaps = [1 - 1 / (1 + distance) for distance in (before, after)]
    query = np.concatenate([levers, np.stack([*gaps, np.log(spread / normal.values)], axis=-1)], axis=-1)
    level = (values - normal.mean) / normal.values
    told = np.stack([(values - line) / spread, level, np.ones_like(level)], axis=-1) * shown[..., None]
    smooth = np.broadcast_to(np.log(normal.changes / normal.values), level.shape)

    def heard(end: Float64, gap: Float64) -> Float32:
        change = np.where(gap < 1, np.arcsinh((values - end) / normal.changes), 0.0)
        parts = [level * shown, change * shown, shown, smooth, gap]
        return _narrow(np.concatenate([*parts, clock], axis=-1))

    onward, backward = heard(last, gaps[0]), heard(following, gaps[1])
    return Known(line, spread, _narrow(query), _narrow(told), onward, backward)


def _narrow(x: Float64) -> Float32:
    return np.clip(np.nan_to_num(x), -_FAR, _FAR).astype(np.float32)


def _before(values: Float64, shown: Bools, periods: Float64) -> tuple[Float64, Float64, Float64]:
    """Of the last cell shown strictly before each (N, T, C): its value, how long ago, and the slope that led to it.

    Where there is none it is 0, infinitely long ago; the slope is NaN where there are not two.
    """
    rows = np.where(shown, np.arange(shown.shape[1])[:, None], -1)
    latest = np.maximum.accumulate(rows, axis=1)
    where = np.concatenate([np.full_like(rows[:, :1], -1), latest[:, :-1]], axis=1)
    none, where = where < 0, where.clip(0)
    times = np.broadcast_to(periods[..., None], values.shape)
    value = np.where(none, 0.0, np.take_along_axis(values, where, axis=1))
    distance = np.where(none, np.inf, times - np.take_along_axis(times, where, axis=1))
    slope = np.where(none, np.nan, (values - value) / distance)
    return value, distance, np.where(none, np.nan, np.take_along_axis(slope, where, axis=1))


def _bends(
    last: Float64, before: Float64, slope_before: Float64, following: Float64, after: Float64, slope_after: Float64
) -> tuple[Float64, Float64]:
    """How far the cubic through both ends lies off the line by each end's slope; not a number where one is missing."""
    whole = before + after
    done, straight = before / whole, (following - last) / whole
    come = done * (1 - done) ** 2 * whole * (slope_before - straight)
    go = -(done**2) * (1 - done) * whole * (slope_after - straight)
    return come, go
