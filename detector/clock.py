"""The only place that reads a clock.

Nothing that influences a score or an alert may come from here: results depend on records alone. What is left are
latencies, schedules and metrics.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where `now` comes from; tests pass a `ManualClock`."""

    def now_ns(self) -> int:
        """Unix time in nanoseconds, for delays and metrics."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go backwards, for schedules and latencies."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        """Unix time in nanoseconds."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()


class ManualClock:
    """A clock that a test moves by hand."""

    def __init__(self, start_ns: int = 0) -> None:
        self._start_ns = self._now_ns = start_ns

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._now_ns += round(seconds * 1e9)

    def now_ns(self) -> int:
        """Unix time in nanoseconds."""
        return self._now_ns

    def monotonic_s(self) -> float:
        """Seconds since the start."""
        return (self._now_ns - self._start_ns) / 1e9
