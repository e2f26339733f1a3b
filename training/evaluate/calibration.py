"""Does a score mean what it says, and does the budget hold? A bundle on streams in which nothing is wrong.

    rows = calibration_table(read_bundle(path))      # 16 streams of each of eight kinds, 300,000 samples long

**Nines.** Of the samples of a stream, one in 10 ** n is promised to reach n nines: for 2, 3 and 4 nines, before and
after `calibrated_after`, and at the thresholds with which the budgets begin. **Budgets.** So many alarms per stream
and day are promised, whatever the time between samples: all of `decide` runs at each budget and period, from the end
of the warm-up on. All goes through the daemon's own `Session`, `infer` and `decide`, streams side by side in one wave;
the model runs once, with samples 10 s apart, for on regular samples it knows the period by the clock alone.

Nothing here was trained on these streams (training/synthetic/stationary.py). A promise is kept if what happened is
within a factor of 2 of it (5 before `calibrated_after`); where fewer than 16 are promised, if its 95 % interval is not
wholly outside. Streams differ, so a count is taken for as many independent ones as its spread over streams allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detector.model.bundle import Bundle
from detector.model.session import Session
from detector.records import Float32, Float64, Int64
from detector.settings import DecideSettings
from detector.stages.decide import DecideWave, Policy, decide, initial_decide
from detector.stages.infer import Step, WallClock, WaveInput, infer
from training.evaluate.measures.counts import rate_interval
from training.synthetic.stationary import KINDS, stationary

BUDGETS = (0.1, 1.0, 10.0)  # alarms per stream and day
PERIODS_S = (1.0, 10.0, 60.0)
NINES = (2.0, 3.0, 4.0)
CALIBRATED_AFTER = 20_000  # samples; for bundles whose metadata do not say

_MODEL_PERIOD_S = 10.0
_FIRST_NS = 1_700_000_000 * 10**9
_S_PER_DAY = 86_400.0
_ENOUGH = 16.0  # promised; fewer, and chance alone may be off by a factor of 2
_FACTOR, _EARLY_FACTOR = 2.0, 5.0
_MANY = 500.0  # events from which the normal interval is the Poisson interval

Watch: TypeAlias = Callable[[Sequence[int]], Iterator[int]]
Counts: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Row:
    """One promise on one kind of streams."""

    kind: str
    promise: str
    """What was promised, in words: `3 nines`, `3 nines, early`, `1 a day at 10 s`."""
    promised: float
    """How often it was to happen, in all streams together."""
    realised: int
    """How often it did."""
    low: float
    """95 % interval of the ratio."""
    high: float
    factor: float
    """By how much the two may differ."""

    @property
    def ratio(self) -> float:
        """Realised over promised."""
        return self.realised / self.promised if self.promised else math.nan

    @property
    def is_kept(self) -> bool:
        """Whether it is within the factor, or so little was promised that it may be."""
        if self.promised >= _ENOUGH:
            return 1 / self.factor <= self.ratio <= self.factor
        return self.low <= self.factor and self.high >= 1 / self.factor


def calibration_table(
    bundle: Bundle,
    seeds: int = 16,
    samples: int = 300_000,
    budgets: Sequence[float] = BUDGETS,
    progress: Watch = iter,
    kinds: Sequence[str] = tuple(KINDS),
) -> list[Row]:
    """Hold a bundle to its promises.

    Args:
        bundle: With one channel, or for any.
        seeds: Streams of each kind.
        samples: Of each stream.
        budgets: Alarms per stream and day to promise.
        progress: Shows progress over the samples.
        kinds: Of training/synthetic/stationary.py.
    """
    values = np.stack([stationary(kind, samples, seed) for kind in kinds for seed in range(seeds)], axis=1)
    figures = bundle.metadata.get("calibration") or {}
    nines = _Nines(bundle, budgets, values.shape[1], samples, int(figures.get("calibrated_after", CALIBRATED_AFTER)))
    alarms = [_Alarms(bundle, budget, values.shape[1]) for budget in budgets]
    for t, step in zip(progress(range(samples)), _steps(bundle, values), strict=False):
        nines.count(t, step.score)
        for each in alarms:
            each.count(t, values[t], step)
    rows: list[Row] = []
    for place, kind in enumerate(kinds):
        own = slice(place * seeds, (place + 1) * seeds)
        rows += nines.rows(kind, own) + [row for each in alarms for row in each.rows(kind, own, samples)]
    return rows


def _steps(bundle: Bundle, values: Float64) -> Iterator[Step]:
    """What the model says of each sample of all streams (T, B)."""
    session, count = Session(bundle), values.shape[1]
    state = np.tile(bundle.initial_row(1), (count, 1))
    slots, clock = np.arange(count), WallClock("UTC")
    for t, row in enumerate(values):
        elapsed_s = np.full(count, _MODEL_PERIOD_S if t else 0.0)
        yield infer(
            session, state, WaveInput(slots, row[:, None], elapsed_s, _event_ns(t, _MODEL_PERIOD_S, count)), clock
        )


class _Nines:
    """Counts, per stream, how often scores reached so many nines."""

    def __init__(
        self, bundle: Bundle, budgets: Sequence[float], streams: int, samples: int, calibrated_after: int
    ) -> None:
        thresholds = {
            f"threshold of {budget:g} a day at {period_s:g} s": _first_threshold(bundle, budget, period_s)
            for budget in budgets
            for period_s in PERIODS_S
        }
        self._of = {f"{nines:g} nines": nines for nines in NINES} | thresholds
        self._levels = np.array([*self._of.values()], np.float32)[:, None]
        self._warm_up, self._samples = bundle.warm_up, samples
        self._begins = min(samples, bundle.warm_up + calibrated_after)
        self._reached: dict[bool, Counts] = {
            is_early: np.zeros((len(self._of), streams), np.int64) for is_early in (True, False)
        }

    def count(self, t: int, score: Float32) -> None:
        if t >= self._warm_up:
            self._reached[t < self._begins] += score >= self._levels

    def rows(self, kind: str, own: slice) -> list[Row]:
        rows = []
        for is_early, counts in self._reached.items():
            samples = self._begins - self._warm_up if is_early else self._samples - self._begins
            for (promise, nines), each in zip(self._of.items(), counts[:, own], strict=True):
                promised = 10.0**-nines * samples * len(each)
                if promised and (nines in NINES or not is_early):
                    words, factor = (f"{promise}, early", _EARLY_FACTOR) if is_early else (promise, _FACTOR)
                    rows.append(_row(kind, words, promised, each, factor))
        return rows


class _Alarms:
    """Counts, per period and stream, the anomalies that one budget lets `decide` open."""

    def __init__(self, bundle: Bundle, budget_per_day: float, streams: int) -> None:
        self._budget, self._streams, self._warm_up = budget_per_day, streams, bundle.warm_up
        self._policy = _policy(bundle, budget_per_day)
        self._periods = np.repeat(PERIODS_S, streams)
        count = len(self._periods)
        self._slots, self._rows = np.arange(count), initial_decide(self._policy, count)
        self._band, self._opened = np.zeros((count, 2, 1)), np.zeros(count, np.int64)

    def count(self, t: int, values: Float64, step: Step) -> None:
        """Let `decide` judge sample t of all streams, once for each period."""
        repeats = len(PERIODS_S)
        wave = DecideWave(
            slots=self._slots,
            event_ns=np.concatenate([_event_ns(t, period_s, self._streams) for period_s in PERIODS_S]),
            elapsed_s=self._periods if t else np.zeros(len(self._periods)),
            positions=np.full(len(self._slots), t),
            score=np.tile(step.score, repeats),
            blame=np.tile(step.blame, (repeats, 1)),
            values=np.tile(values[:, None], (repeats, 1)),
            expected=np.tile(step.expected, (repeats, 1)),
            lower=np.tile(step.lower, (repeats, 1)),
            upper=np.tile(step.upper, (repeats, 1)),
        )
        self._opened[decide(self._rows, self._band, wave, self._policy).opened] += 1

    def rows(self, kind: str, own: slice, samples: int) -> list[Row]:
        rows = []
        for period_s, counts in zip(PERIODS_S, self._opened.reshape(len(PERIODS_S), -1)[:, own], strict=True):
            days = max(0, samples - self._warm_up) * period_s / _S_PER_DAY * len(counts)
            promise = f"{self._budget:g} a day at {period_s:g} s"
            rows.append(_row(kind, promise, self._budget * days, counts, _FACTOR))
        return rows


def _policy(bundle: Bundle, budget_per_day: float) -> Policy:
    return Policy.of(DecideSettings(budget_per_day=budget_per_day), bundle)


def _first_threshold(bundle: Bundle, budget_per_day: float, period_s: float) -> float:
    """Nines at which `decide` begins at a budget, its exceedances per alarm as the bundle has them."""
    none: Any = np.zeros(1, np.int64)
    return float(_policy(bundle, budget_per_day).thresholds(np.array([period_s]), none, none, np.zeros(1))[0])


def _event_ns(t: int, period_s: float, streams: int) -> Int64:
    return np.full(streams, _FIRST_NS + round(t * period_s * 1e9))


def _row(kind: str, promise: str, promised: float, counts: Counts, factor: float) -> Row:
    """Add the streams up; a count that spreads `many` times as far as chance has it is so much less telling."""
    total = int(counts.sum())
    many = max(1.0, float(counts.var(ddof=1) / counts.mean())) if total and len(counts) > 1 else 1.0
    if total / many >= _MANY:
        half = 1.96 * math.sqrt(total * many)
        low, high = (total - half) / promised, (total + half) / promised
    else:
        interval = rate_interval(round(total / many), promised / many)
        low, high = interval.low, interval.high
    return Row(kind, promise, promised, total, low, high, factor)
