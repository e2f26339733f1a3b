"""Volume under the surface (VUS): area under a precision-recall curve, averaged over widths of a soft border.

The border of a labelled anomaly is seldom right to the sample. VUS (Paparrizos et al., VLDB 2022) lets each label fade
out on both sides over w // 2 samples, with the weight sqrt(1 - distance / w), measures the area under the curve, and
averages over w = 0, 1, ..., window. The TSB-AD benchmark (Liu and Paparrizos, NeurIPS 2024) ranks by it, with `window`
the period of the series. Recall is also multiplied by the share of anomalies of which at least one sample is found;
anomalies whose borders meet count as one there.

The original walks over the series for each of 250 thresholds and each width. Here every sample is filed once under the
first threshold that it reaches; a count per file, summed up along the thresholds, then says for each of them what the
original finds by looking. A test proves the result equal to TSB_AD 1.5 (`generate_curve`, version "opt") within 1e-9.

Axes: T samples, J anomalies, K = 250 thresholds from high to low, W = window + 1 widths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
"""Anything measured, in float64 as the original does."""
Rows: TypeAlias = NDArray[np.intp]
"""Row indices or counts."""

_THRESHOLDS = 250  # of TSB-AD, evenly spaced in the order of scores, not in their values
_ACF_LAGS = 400  # of TSB-AD: the longest period that is looked for, plus 100
_ACF_ROWS = 20_000  # of TSB-AD: it looks for the period in the first rows only
_FIRST_LAG = 3  # of TSB-AD: a shorter period is noise
_NO_PERIOD = 125  # of TSB-AD: the window of a series without a clear period


@dataclass(frozen=True, slots=True)
class Volume:
    """Areas under the curves of one series, averaged over the widths of the soft border."""

    pr: float
    """VUS-PR, 0 to 1: the measure that TSB-AD ranks by."""
    roc: float
    """VUS-ROC, 0 to 1."""


def vus_pr(labels: ArrayLike, scores: ArrayLike, window: int) -> float:
    """Return VUS-PR as TSB_AD 1.5 computes it; see `volume`."""
    return volume(labels, scores, window).pr


def vus_roc(labels: ArrayLike, scores: ArrayLike, window: int) -> float:
    """Return VUS-ROC as TSB_AD 1.5 computes it; see `volume`."""
    return volume(labels, scores, window).roc


def volume(labels: ArrayLike, scores: ArrayLike, window: int) -> Volume:
    """Measure how well scores rank the labelled rows above the others.

    Args:
        labels: 1 in anomalies, else 0, shape (T,).
        scores: Higher is stranger, shape (T,); only their order matters.
        window: Widest soft border in samples; `period` of the series by the rules of TSB-AD.

    Raises:
        ValueError: Shapes differ, a label is neither 0 nor 1, all labels are equal, a score is NaN, or the window is
            negative.
    """
    truth, score = _checked(labels, scores, window)
    starts, ends = _anomalies(truth)
    rank = _rank(score)
    inside = _reached(rank[truth])
    border = _border(truth, starts, ends, rank, window)
    found = _found(starts, ends, rank, window)
    return _areas(_reached(rank)[:, None], inside[:, None] + border, len(truth), float(truth.sum()), border, found)


def period(values: ArrayLike) -> int:
    """Return the period of a series in samples: the lag of the highest peak of its autocorrelation.

    It is TSB_AD 1.5's `find_length_rank(values, rank=1)`, proven equal in a test. TSB-AD takes the first channel of a
    multivariate series. Without a clear period, or with one beyond 303 samples, it is 125.

    Args:
        values: One channel, shape (T,).
    """
    head = np.asarray(values, np.float64).reshape(-1)[:_ACF_ROWS]
    correlation = _autocorrelation(head)[_FIRST_LAG:]
    middle = correlation[1:-1]
    peaks = 1 + np.flatnonzero((middle > correlation[:-2]) & (middle > correlation[2:]))
    if not len(peaks):
        return _NO_PERIOD
    best = int(peaks[np.argsort(correlation[peaks])[-1]])
    return best + _FIRST_LAG if 3 <= best <= 300 else _NO_PERIOD


def _autocorrelation(values: Floats) -> Floats:
    """Autocorrelation at lags 0 to 400, shape (401,) or shorter; NaN throughout for a constant series."""
    centred = values - values.mean()
    spectrum = np.fft.fft(centred, n=_smooth_length(2 * len(values) + 1))
    covariance = np.fft.ifft(spectrum * np.conjugate(spectrum))[: len(values)].real[: _ACF_LAGS + 1]
    with np.errstate(invalid="ignore"):
        return np.asarray(covariance / covariance[0])


def _smooth_length(least: int) -> int:
    """Smallest 2^a 3^b 5^c that is not less: lengths at which a Fourier transform is quick."""
    odd: list[int] = [3**b * 5**c for b in range(12) for c in range(8)]
    return min(part << max(0, (-(-least // part) - 1).bit_length()) for part in odd)


def _checked(labels: ArrayLike, scores: ArrayLike, window: int) -> tuple[NDArray[np.bool_], Floats]:
    truth, score = np.asarray(labels), np.asarray(scores, np.float64)
    if truth.ndim != 1 or truth.shape != score.shape:
        raise ValueError(f"vus: shapes: expected (T,) twice, got labels {truth.shape} and scores {score.shape}")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("vus: labels: expected 0 and 1 only")
    if truth.all() or not truth.any():
        raise ValueError("vus: labels: expected at least one anomaly and one normal row, got all rows alike")
    if np.isnan(score).any():
        raise ValueError(f"vus: scores: expected numbers, got NaN first at row {int(np.isnan(score).argmax())}")
    if window < 0:
        raise ValueError(f"vus: window: expected 0 or more samples, got {window}")
    return truth.astype(bool), score


def _anomalies(truth: NDArray[np.bool_]) -> tuple[Rows, Rows]:
    """First and last row of each anomaly, shape (J,) each."""
    steps = np.diff(truth.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1


def _rank(score: Floats) -> Rows:
    """First threshold that each row reaches, shape (T,), 0 to K - 1: the last threshold is the lowest score."""
    falling = -np.sort(-score)
    thresholds = falling[np.linspace(0, len(score) - 1, _THRESHOLDS).astype(int)]
    return np.searchsorted(-thresholds, -score, side="left")


def _reached(rank: Rows, weight: Any = None) -> Floats:
    """Number, or weight, of rows that reach each threshold, shape (K,)."""
    return np.cumsum(np.bincount(rank, weight, minlength=_THRESHOLDS), dtype=np.float64)


def _border(truth: NDArray[np.bool_], starts: Rows, ends: Rows, rank: Rows, window: int) -> Floats:
    """Weight of the soft border that reaches each threshold, for each width, shape (K, W).

    A row in the border of several anomalies carries the sum of their weights, at most 1.
    """
    distance = np.arange(1, window // 2 + 1)
    row = np.stack([starts - distance[:, None], ends + distance[:, None]], axis=1)  # (D, 2, J), nearest first
    kept = (row >= 0) & (row < len(truth))
    kept[kept] = ~truth[row[kept]]
    upto = np.cumsum(kept.sum((1, 2)))
    far = np.broadcast_to(distance[:, None, None], row.shape)[kept]
    rows, place = np.unique(row[kept], return_inverse=True)
    border = np.zeros((_THRESHOLDS, window + 1))
    for width in range(2, window + 1):
        near = slice(upto[width // 2 - 1])
        weight = np.bincount(place[near], np.sqrt(1 - far[near] / width), minlength=len(rows))
        border[:, width] = _reached(rank[rows], np.minimum(weight, 1))
    return border


def _found(starts: Rows, ends: Rows, rank: Rows, window: int) -> Floats:
    """Share of anomalies, border and all, of which some row reaches each threshold, for each width, shape (K, W)."""
    last = len(rank) - 1
    padded = np.append(rank, _THRESHOLDS)
    found = np.zeros((_THRESHOLDS, window + 1))
    for half in range(window // 2 + 1):
        apart = ends[:-1] + half < starts[1:] - half
        first = np.maximum(starts[np.append(True, apart)] - half, 0)
        beyond = np.minimum(ends[np.append(apart, True)] + half, last) + 1
        best = np.minimum.reduceat(padded, np.stack([first, beyond], axis=1).reshape(-1))[::2]
        found[:, 2 * half : 2 * half + 2] = (_reached(best) / len(best))[:, None]
    return found


def _areas(flagged: Floats, hits: Floats, total: int, truths: float, border: Floats, found: Floats) -> Volume:
    """Areas under both curves from counts per threshold and width, each of shape (K, W) or (K, 1)."""
    positives = truths + border / 2  # between the labels and the labels with the border that was found
    recall = np.minimum(hits / positives, 1) * found
    false_alarms = (flagged - hits) / (total - positives)
    precision = hits / flagged
    rise = np.diff(recall, axis=0, prepend=0)
    curve = np.pad(recall, ((1, 1), (0, 0)), constant_values=((0, 1), (0, 0)))
    run = np.diff(false_alarms, axis=0, prepend=0, append=1)
    area = (rise * precision).sum(0), (run * (curve[1:] + curve[:-1]) / 2).sum(0)
    return Volume(pr=float(area[0].mean()), roc=float(area[1].mean()))
