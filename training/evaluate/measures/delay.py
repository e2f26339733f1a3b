"""What it is like to be called by the detector: how late it is, and how often it calls for nothing.

Both look at the rows at which alarms *opened*, the moment at which somebody is told. An alarm that was open already
when an event began has not announced it; it detects nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from training.evaluate.measures.bootstrap import Interval
from training.evaluate.measures.counts import rate_interval, share_interval
from training.evaluate.measures.events import Rows

_DAY_S = 86_400.0


class Delay(NamedTuple):
    """How late the detected events were told. Medians are over detected events alone: read them with `share`."""

    events: int
    samples: tuple[int, ...]
    """Rows from the begin of each detected event to the first alarm in it."""
    seconds: tuple[float, ...]
    """The same in seconds; NaN where the period is not known."""

    @property
    def share(self) -> Interval:
        """Share of the events that were detected, with Wilson's 95 % interval."""
        return share_interval(len(self.samples), self.events)

    @property
    def median_samples(self) -> float:
        """NaN where none was detected."""
        return _median(self.samples)

    @property
    def median_s(self) -> float:
        """NaN where none was detected, or a period is not known."""
        return _median(self.seconds)


def detection_delay(opened: ArrayLike, events: Iterable[Rows], period_s: float | None) -> Delay:
    """How long after its begin each event got its first alarm.

    Args:
        opened: (n,) rows at which alarms opened.
        events: Runs of rows annotated as anomalous.
        period_s: Seconds from row to row; None where that is not known.
    """
    rows, events = np.sort(np.asarray(opened, np.int64)), list(events)
    late = []
    for first, end in events:
        at = np.searchsorted(rows, first)
        if at < len(rows) and rows[at] < end:
            late.append(int(rows[at]) - first)
    period = math.nan if period_s is None else period_s
    return Delay(len(events), tuple(late), tuple(samples * period for samples in late))


def pool_delays(delays: Iterable[Delay]) -> Delay:
    """The events of all series together."""
    delays = list(delays)
    return Delay(
        sum(delay.events for delay in delays),
        tuple(samples for delay in delays for samples in delay.samples),
        tuple(seconds for delay in delays for seconds in delay.seconds),
    )


class FalseAlarms(NamedTuple):
    """Alarms for nothing, and the time in which they could have happened."""

    alarms: int
    rows: int
    """Rows in which an alarm would be false."""
    days: float
    """The same in days; NaN where the period is not known."""

    @property
    def per_day(self) -> Interval:
        """Alarms per stream-day with the exact 95 % Poisson interval; its number is that of alarms."""
        return rate_interval(self.alarms, self.days)

    def realised_ratio(self, promised: float) -> Interval:
        """Alarms over those that a budget of `promised` per stream-day lets expect; 1 is a promise kept."""
        return rate_interval(self.alarms, self.days * promised)


def alarms_per_day(
    opened: ArrayLike, events: Iterable[Rows], rows: int, period_s: float | None, *, start: int = 0, grace: int = 0
) -> FalseAlarms:
    """Count the alarms that opened outside events.

    Args:
        opened: (n,) rows at which alarms opened.
        events: Runs of rows annotated as anomalous.
        rows: How many rows the series has.
        period_s: Seconds from row to row; None where that is not known.
        start: First row that counts: say the end of the training part, or of the warm-up.
        grace: Rows after an event in which an alarm is neither right nor wrong: what the event left behind.
    """
    is_clean = np.ones(rows, bool)
    is_clean[:start] = False
    for first, end in events:
        is_clean[first : end + grace] = False
    clean = int(is_clean.sum())
    days = math.nan if period_s is None else clean * period_s / _DAY_S
    return FalseAlarms(int(is_clean[np.asarray(opened, np.int64)].sum()), clean, days)


def pool_alarms(counts: Sequence[FalseAlarms]) -> FalseAlarms:
    """The alarms and the time of all series together."""
    return FalseAlarms(*(sum(column) for column in zip(FalseAlarms(0, 0, 0.0), *counts, strict=True)))


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan
