"""From smoothed forecast errors to alarms, without a parametric model of them (Hundman et al. 2018, sections 3.2, 3.3).

Given the smoothed errors of a series so far, one looks for the threshold epsilon = mean + z sd whose removal of what
lies above it calms mean and sd the most, while little is removed and in few runs:

    argmax over z of  (fall of the mean / mean + fall of the sd / sd) / (rows above + runs above ^ 2)

Runs above it are then pruned: in falling order of their peaks, those after the last fall by more than 13 % are dropped.

As in telemanom, errors are judged in batches of 70 rows, as they would arrive, each against the errors of the 30
latest batches. Unlike there, the first batches are judged against what is there so far, not all at once in the end:
telemanom takes the first 2,100 rows together, which a stream cannot. The threshold on errors that are *lower* than
usual, which telemanom's code has and the paper has not, is left out.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.evaluate.measures.events import Rows, intervals

Errors: TypeAlias = NDArray[np.float64]
"""(T,) smoothed absolute errors, in units of the training part's range."""

_BATCH = 70  # rows that arrive together; also the delay that this detector has by construction
_HISTORY = 30 * _BATCH  # rows that a batch is judged against
_BUFFER = 100  # rows on each side of an error above the threshold that belong to it
_PRUNE = 0.13  # least relative fall from peak to peak
_NONE_WINS = 12.0  # sd; the threshold where no other tells anything
_DEVIATIONS = np.arange(2.5, _NONE_WINS, 0.5).tolist()  # z that are tried
_RUNS_MOST, _SHARE_MOST = 5, 0.5  # a threshold with more runs or rows above it tells nothing
_ERROR_MIN = 0.05  # of the values' range and spread: what is smaller is no anomaly, whatever its rank


def smooth(errors: Errors, span: int = int(_HISTORY * 0.05)) -> Errors:
    """Exponentially weighted mean with the weights of the past alone, normalised (a span of 105 rows in telemanom)."""
    keep = 1 - 2 / (span + 1)
    smoothed, total, weight = np.empty_like(errors), 0.0, 0.0
    for at, error in enumerate(errors.tolist()):
        total, weight = total * keep + error, weight * keep + 1
        smoothed[at] = total / weight
    return smoothed


def alarms(errors: Errors, values: NDArray[np.float64], start: int) -> NDArray[np.uint8]:
    """Flag the rows of a series that telemanom would report.

    Args:
        errors: Smoothed errors (T,).
        values: What was forecast (T,), on the same scale.
        start: First row with an error to speak of; rows before it are neither judged nor a measure.

    Returns:
        (T,) 1 where anomalous.
    """
    flags = np.zeros(len(errors), np.uint8)
    for first in range(start, len(errors), _BATCH):
        past = slice(max(start, first + _BATCH - _HISTORY), first + _BATCH)
        found = _judge(errors[past], values[past])
        new = min(_BATCH, len(errors) - first)
        flags[first : first + new] = found[-new:]
    return flags


def _judge(errors: Errors, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of a stretch belong to anomalies."""
    none = np.zeros(len(errors), bool)
    low, high = np.percentile(values, [5, 95])
    tells = errors.std() > _ERROR_MIN * values.std() or errors.max() > _ERROR_MIN * (high - low)
    if not tells or errors.max() <= _ERROR_MIN:
        return none
    is_over = (errors > _threshold(errors)) & (errors > _ERROR_MIN * (high - low))
    for first, end in _pruned(errors, is_over):
        none[first:end] = True
    return none


def _threshold(errors: Errors) -> float:
    """The epsilon that wins, else the one at 12 sd."""
    mean, sd = float(errors.mean()), float(errors.std())
    best, winner = 0.0, _NONE_WINS
    for z in _DEVIATIONS:
        value = _gain(errors, mean, sd, mean + z * sd)
        if value >= best:
            best, winner = value, z
    return mean + winner * sd


def _gain(errors: Errors, mean: float, sd: float, epsilon: float) -> float:
    """What a threshold is worth; negative where it tells nothing."""
    is_over = errors > epsilon
    if not is_over.any():
        return -1.0
    widened = _widened(is_over)
    rows, runs = int(widened.sum()), len(intervals(widened))
    if runs > _RUNS_MOST or rows >= _SHARE_MOST * len(errors):
        return -1.0
    rest = errors[errors < epsilon]
    return float(((mean - rest.mean()) / mean + (sd - rest.std()) / sd) / (rows + runs**2))


def _pruned(errors: Errors, is_over: NDArray[np.bool_]) -> list[Rows]:
    """The runs that stand out from each other and from the highest error outside."""
    widened = _widened(is_over)
    runs = sorted(intervals(widened), key=lambda run: -errors[slice(*run)].max())
    outside = errors[~widened]
    peaks = [float(errors[slice(*run)].max()) for run in runs] + [float(outside.max()) if len(outside) else 0.0]
    falls = [(above - below) / above for above, below in pairwise(peaks)]
    kept = max((at + 1 for at, fall in enumerate(falls) if fall >= _PRUNE), default=0)
    return runs[:kept]


def _widened(is_over: NDArray[np.bool_]) -> NDArray[np.bool_]:
    widened = is_over.copy()
    for first, end in intervals(is_over):
        widened[max(0, first - _BUFFER + 1) : end + _BUFFER - 1] = True
    return widened
