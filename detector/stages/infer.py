"""Infer: one model call for one wave. Gathers the rows, adds the clock, steps the model and puts the rows back.

The clock features are looked up in a table of the week's minutes, so that they have the same bits on every machine
and in every wave, and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from detector.records import Float32, Float64, Int64

CLOCK_FEATURES = 4
_MINUTE_NS = 60 * 10**9
_DAY, _WEEK = 24 * 60, 7 * 24 * 60  # minutes
_FIRST_DAY = 3 * _DAY  # 1970-01-01 was a Thursday; weeks start on Monday
_SPAN = 15  # minutes; time zones change their offset only at quarters of an hour, UTC


class Step(Protocol):
    """What came of one model call; docs/contract.md has the shapes."""

    @property
    def score(self) -> Float32:
        """Nines, shape (B,)."""
        ...

    @property
    def blame(self) -> Float32:
        """Share of the score, shape (B, C)."""
        ...

    @property
    def expected(self) -> Float64:
        """Forecast of the sample, shape (B, C), raw units."""
        ...

    @property
    def lower(self) -> Float64:
        """Lower end of its band."""
        ...

    @property
    def upper(self) -> Float64:
        """Upper end of its band."""
        ...

    @property
    def next_state(self) -> Float32:
        """The memory after the sample, shape (B, S)."""
        ...


class Model(Protocol):
    """What runs the step; `detector.model.session.Session` does."""

    def step(
        self,
        values: Float64,
        observed: Float32,
        elapsed: Float32,
        clock: Float32,
        state: Float32,
        further: Mapping[str, Float32],
    ) -> Step:
        """Score one sample of each of B streams; `further` as in `WaveInput`."""
        ...


class WaveInput(NamedTuple):
    """One sample of each of B streams."""

    slots: Int64
    values: Float64
    """(B, C) raw units, NaN where missing."""
    elapsed_s: Float64
    event_ns: Int64
    further: Mapping[str, Float32] = MappingProxyType({})
    """Further inputs of which something is said, each (B, width)."""


def infer(model: Model, state: Float32, wave: WaveInput, clock: WallClock) -> Step:
    """Step the model over one wave and write the new memory into `state`.

    Args:
        model: Runs the step.
        state: The arena's rows, shape (slots, S); those of the wave are replaced.
        wave: The samples; no slot comes twice.
        clock: Makes the clock features.
    """
    step = model.step(
        wave.values,
        np.isfinite(wave.values).astype(np.float32),
        wave.elapsed_s.astype(np.float32)[:, None],
        clock.features(wave.event_ns),
        state.take(wave.slots, axis=0),
        wave.further,
    )
    _scatter(state, wave.slots, step.next_state)
    return step


def _scatter(state: Float32, slots: Int64, rows: Float32) -> None:
    if rows.dtype != np.float32 or rows.shape != (len(slots), state.shape[1]):
        raise TypeError(f"next_state: expected float32 ({len(slots)}, {state.shape[1]}), got {rows.dtype} {rows.shape}")
    _rows(state)[slots] = _rows(np.ascontiguousarray(rows))


def _rows(matrix: Float32) -> NDArray[np.void]:
    """Each row as one item, which NumPy copies whole; float by float it takes twice as long."""
    rows: NDArray[np.void] = matrix.view(np.dtype((np.void, matrix.itemsize * matrix.shape[1])))[:, 0]
    return rows


class WallClock:
    """Sine and cosine of the time of day and of the week in one time zone, at the start of the minute."""

    def __init__(self, time_zone: str) -> None:
        self._offset = _offsets(time_zone)

    def features(self, event_ns: Int64) -> Float32:
        """The features of each event time, shape (B, 4)."""
        minute = event_ns // _MINUTE_NS
        return _week().take((minute + self._offsets(minute)) % _WEEK, axis=0)

    def _offsets(self, minute: Int64) -> Int64 | int:
        if self._offset is None:
            return 0
        span = minute // _SPAN
        if (span == span[0]).all():
            return self._offset(int(span[0]))
        spans, which = np.unique(span, return_inverse=True)
        offsets: Int64 = np.array([self._offset(one) for one in spans.tolist()], np.int64)[which]
        return offsets


@lru_cache
def _offsets(time_zone: str) -> Callable[[int], int] | None:
    """Minutes east of UTC in each quarter of an hour since 1970, or None for UTC itself."""
    if time_zone == "UTC":
        return None
    zone = ZoneInfo(time_zone)

    @lru_cache(maxsize=100_000)
    def offset(span: int) -> int:
        at = datetime.fromtimestamp(span * _SPAN * 60, UTC).astimezone(zone).utcoffset()
        return 0 if at is None else int(at.total_seconds()) // 60

    return offset


@lru_cache(maxsize=1)
def _week() -> Float32:
    """The features of each minute of a week that begins as 1970 did, shape (10080, 4)."""
    minute = np.arange(_WEEK)
    day = 2 * np.pi * (minute % _DAY) / _DAY
    week = 2 * np.pi * ((minute + _FIRST_DAY) % _WEEK) / _WEEK
    return np.stack([np.sin(day), np.cos(day), np.sin(week), np.cos(week)], axis=1).astype(np.float32)
