"""The score of the Numenta Anomaly Benchmark: early alarms earn, false ones cost, silence is zero, perfection is 100.

Around each labelled anomaly lies a window. The earliest alarm in it counts, the more the earlier; further ones in the
same window count nothing. An alarm outside costs, less while the last window is near. A window without an alarm costs.
Three profiles weigh these differently. The first 15 % of a series, at most 750 rows, are probation: neither good nor
bad. One threshold serves all series of the corpus; NAB's optimiser picks the one with the highest score, knowing the
labels. (Lavin and Ahmad, ICMLA 2015; numenta/NAB 1.1, `Sweeper` and `Runner.normalize`.)

`optimise` gives NAB's number, `frozen` the same with a threshold found on other series, `crossed` that for two halves
in turn. The optimised number flatters every detector: it is for comparison with published ones, which have the same.

Lowering the threshold past one row after the other changes the corpus' score by that row's gain, so that one sort and
one running sum give the score at every threshold. A test proves the published figures of two detectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
"""Scores or gains, one per row, float64."""

_PROBATION = 0.15  # share of a series, by NAB
_PROBATION_ROWS = 750  # at most: 15 % of 5,000
_STEEPNESS = 5.0  # of NAB's sigmoid, in widths of the window
_FAR = 3.0  # widths behind a window from which a false alarm costs in full
_HALF_LIFE = 256  # samples in which a burst is half forgotten


@dataclass(frozen=True, slots=True)
class Profile:
    """What a user minds: the weights of one of NAB's application profiles."""

    hit: float
    """Earned for an alarm at the very start of a window (`tpWeight`)."""
    false_alarm: float
    """Lost for an alarm far from any window (`fpWeight`)."""
    miss: float
    """Lost for a window without an alarm (`fnWeight`)."""


PROFILES = {
    "standard": Profile(hit=1.0, false_alarm=0.11, miss=1.0),
    "reward_low_FP_rate": Profile(hit=1.0, false_alarm=0.22, miss=1.0),
    "reward_low_FN_rate": Profile(hit=1.0, false_alarm=0.11, miss=2.0),
}
STANDARD = PROFILES["standard"]


@dataclass(frozen=True, slots=True)
class Scored:
    """One series as a detector saw it."""

    scores: ArrayLike
    """Higher is stranger, shape (T,)."""
    windows: Sequence[tuple[int, int]]
    """First row of each window and the row after its last, in order, disjoint."""


@dataclass(frozen=True, slots=True)
class NabScore:
    """Result of a corpus at one threshold."""

    score: float
    """0 for a detector that never alarms, 100 for one that alarms at the start of each window only; can be negative."""
    threshold: float
    """Rows with this score or a higher one are alarms; infinite where silence is best."""
    found: int
    """Windows with an alarm."""
    windows: int
    """Windows in all."""
    false_alarms: int
    """Alarms outside windows, in rows."""


def optimise(corpus: Sequence[Scored], profile: Profile = STANDARD) -> NabScore:
    """Score a corpus at the threshold that suits it best, as NAB does; of equal thresholds the highest.

    Raises:
        ValueError: The corpus has no window, a score is not finite, or windows overlap or lie outside their series.
    """
    rows = _prepared(corpus, profile)
    score = np.concatenate([each.score for each in rows])
    falling = np.argsort(-score, kind="stable")
    total = np.cumsum(np.concatenate([each.gain for each in rows])[falling])
    last = np.flatnonzero(np.diff(score[falling], append=-np.inf))  # of the rows with one score
    best = last[total[last].argmax()]
    return _result(rows, profile, float(score[falling[best]]) if total[best] > 0 else np.inf)


def at_threshold(corpus: Sequence[Scored], threshold: float, profile: Profile = STANDARD) -> NabScore:
    """Score a corpus at a given threshold.

    Raises:
        ValueError: As in `optimise`.
    """
    return _result(_prepared(corpus, profile), profile, threshold)


def frozen(tuned_on: Sequence[Scored], corpus: Sequence[Scored], profile: Profile = STANDARD) -> NabScore:
    """Score a corpus at the threshold that suits other series best: what a user may expect.

    Raises:
        ValueError: As in `optimise`.
    """
    return at_threshold(corpus, optimise(tuned_on, profile).threshold, profile)


def crossed(first: Sequence[Scored], second: Sequence[Scored], profile: Profile = STANDARD) -> float:
    """Score each half of a corpus at the threshold of the other; one number for both, weighted by windows.

    Raises:
        ValueError: As in `optimise`, for either half.
    """
    halves = frozen(second, first, profile), frozen(first, second, profile)
    return sum(half.score * half.windows for half in halves) / sum(half.windows for half in halves)


def one_per_burst(scores: ArrayLike, half_life: int = _HALF_LIFE) -> Floats:
    """Keep of each burst only the rows at which it outdoes itself, and set the others to 0.

    A row is kept when it is above the running maximum of the rows before it, which halves every `half_life` rows. NAB
    charges every row above the threshold, while a user is told once: `decide` opens one anomaly and keeps it open. This
    does the like, looking at the past only and whatever the threshold will be: the row at which the running maximum
    reaches it, where an alarm would open, is always kept. A burst that goes on rising keeps several rows, so that what
    NAB counts is never fewer alarms than an alarm so latched would open.

    Args:
        scores: Not negative, shape (T,).
        half_life: Samples.

    Returns:
        Scores, shape (T,).

    Raises:
        ValueError: A score is negative or NaN.
    """
    score = np.asarray(scores, np.float64)
    if not (score >= 0).all():
        raise ValueError("one_per_burst: scores: expected 0 or more, got a negative one or NaN")
    with np.errstate(divide="ignore"):
        height = np.log2(score)
    row = np.arange(len(score))
    highest = np.maximum.accumulate(height + row / half_life)  # maxima sink: compared on a scale that rises instead
    before = np.concatenate([[-np.inf], highest])[:-1]
    return np.where(height + (row - 1) / half_life > before, score, 0.0)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a series after probation.

    `gain` is what the corpus' score gains when the threshold falls to the row's score, all higher ones being alarms.
    """

    score: Floats
    gain: Floats
    window: NDArray[np.intp]
    """Number of the window that the row lies in, -1 outside."""
    windows: int
    """Windows of the series."""

    @classmethod
    def of(cls, scored: Scored, profile: Profile) -> _Rows:
        score = _checked(scored)
        window, value = _values(len(score), scored.windows, profile)
        probation = min(int(_PROBATION * len(score)), _PROBATION_ROWS)
        score, window, value = score[probation:], window[probation:], value[probation:]
        return cls(score, _gains(score, window, value, profile), window, len(scored.windows))


def _prepared(corpus: Sequence[Scored], profile: Profile) -> list[_Rows]:
    if not any(each.windows for each in corpus):
        raise ValueError("nab: corpus: expected at least one window, got none")
    return [_Rows.of(each, profile) for each in corpus]


def _checked(scored: Scored) -> Floats:
    score = np.asarray(scored.scores, np.float64)
    if not np.isfinite(score).all():
        row = int(np.isfinite(score).argmin())
        raise ValueError(f"nab: scores: expected finite numbers, got {score[row]} first at row {row}")
    edges = [0, *(edge for window in scored.windows for edge in window), len(score)]
    if sorted(edges) != edges or any(first == end for first, end in scored.windows):
        raise ValueError(f"nab: windows: expected rows in order within {len(score)}, got {list(scored.windows)}")
    return score


def _values(rows: int, windows: Iterable[tuple[int, int]], profile: Profile) -> tuple[NDArray[np.intp], Floats]:
    """Window of each row, and what an alarm there is worth on its own, shape (T,) each."""
    window, value = np.full(rows, -1), np.full(rows, -profile.false_alarm)
    for number, (first, end) in enumerate(windows):
        width = end - first
        after = np.arange(1, rows - end + 1) / max(width - 1, 1)  # widths behind the window's last row
        window[first:end] = number
        value[first:end] = profile.hit * _sigmoid(-np.arange(width, 0, -1) / width) / _sigmoid(-1.0)
        value[end:] = profile.false_alarm * np.where(after < _FAR, _sigmoid(after), -1.0)
    return window, value


def _sigmoid(position: float | Floats) -> Floats:
    """Worth of an alarm, 1 to -1: -1 is the start of a window, 0 its end, beyond lies behind it."""
    return np.asarray(-np.tanh(_STEEPNESS / 2 * position))  # NAB writes 2 / (1 + exp(5 position)) - 1


def _gains(score: Floats, window: NDArray[np.intp], value: Floats, profile: Profile) -> Floats:
    """Gain of each row: its value outside windows; inside, by how much it betters the window's best so far."""
    gain = value.copy()
    for number in range(window.max(initial=-1) + 1):
        inside = np.flatnonzero(window == number)
        inside = inside[np.argsort(-score[inside], kind="stable")]
        best = np.maximum.accumulate(value[inside])
        gain[inside] = np.diff(best, prepend=-profile.miss)
    return gain


def _result(rows: Sequence[_Rows], profile: Profile, threshold: float) -> NabScore:
    windows = sum(each.windows for each in rows)
    alarms = [each.score >= threshold for each in rows]
    gained = sum(float(each.gain[alarm].sum()) for each, alarm in zip(rows, alarms, strict=True))
    inside = [each.window[alarm] for each, alarm in zip(rows, alarms, strict=True)]
    return NabScore(
        score=100 * gained / (windows * (profile.hit + profile.miss)),
        threshold=threshold,
        found=sum(len(np.unique(window[window >= 0])) for window in inside),
        windows=windows,
        false_alarms=sum(int((window < 0).sum()) for window in inside),
    )
