"""The hit rate of the UCR Anomaly Archive (Wu and Keogh 2021): does the highest score fall on the one anomaly?

Each series has exactly one anomaly, after a training part without any. The place of the highest score in the rest is
the answer; it is right within the anomaly widened on each side by its own length, at least 100 rows. No threshold is
needed, and none can be tuned.

What is asked for is a stretch, not a row, so the answer is where the mean of the latest 32 scores is highest, for every
method alike. The rule was chosen on the dev series (19: 14 hits by single rows, 17 by means of 16, 32, 64 or 100); the
hits by single rows are told beside it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.evaluate.measures.bootstrap import Interval
from training.evaluate.measures.counts import share_interval
from training.evaluate.measures.events import intervals

SPAN = 32  # rows; less than the least slack, so that a mean that peaks after the anomaly's end still lies on it
_SLACK_MIN = 100  # rows; the archive's own rule for short anomalies


def is_hit(labels: ArrayLike, scores: ArrayLike, train: int) -> bool:
    """Whether the highest score after the training part falls on the anomaly; of equal ones the first counts.

    Args:
        labels: (T,) 1 where anomalous.
        scores: (T,) of the whole series.
        train: Rows that do not count: the declared training part.

    Raises:
        ValueError: There is not exactly one anomaly after the training part, or a score is NaN, or lengths differ.
    """
    labels, scores = np.asarray(labels)[train:], np.asarray(scores)[train:]
    truth = intervals(labels)
    if len(truth) != 1:
        raise ValueError(f"ucr: anomalies after the training part: expected 1, got {len(truth)}")
    if labels.shape != scores.shape or np.isnan(scores).any():
        raise ValueError(f"ucr: scores: expected {labels.shape} without NaN, got {scores.shape}")
    first, last = truth[0][0], truth[0][1] - 1
    slack = max(last - first + 1, _SLACK_MIN)
    return first - slack < int(np.argmax(scores)) < last + slack


def recent_mean(scores: ArrayLike, span: int = SPAN) -> NDArray[np.float64]:
    """Mean of the latest scores at each row (T,), of fewer where there are fewer."""
    scores = np.asarray(scores, np.float64)
    total = np.convolve(scores, np.ones(span))[: len(scores)]
    mean: NDArray[np.float64] = total / np.minimum(np.arange(1, len(scores) + 1), span)
    return mean


def hit_rate(hits: Collection[bool]) -> Interval:
    """Share of series that were hit, with Wilson's 95 % interval."""
    return share_interval(sum(hits), len(hits))
