"""What `decide` remembers of each stream: one structured row, all int64 and float64, kept in the checkpoint.

Event times and counts only. Beside it lies `band`, (slots, 2, C) float64: lower and upper of the first strange sample
of the run that a stream is in. A row is meaningful to `decide` alone; `tidewarden state show` tells it by these names.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detector.records import NO_TIME

Rows: TypeAlias = NDArray[np.void]
"""Structured rows of dtype DECIDE, one per stream."""

CALM: Final = 0
"""Nothing is going on: the stream is passed over by all but the threshold."""
STIRRED: Final = 1
"""In a run of elevated scores, or less than a cluster's end after a strange sample."""
RISEN: Final = 2
"""As STIRRED, and the run has had a strange sample, whose band is kept."""
OPEN: Final = 3
"""An anomaly is open."""

DECIDE_VERSION: Final = 2
KNOWN_VERSIONS: Final = frozenset({1, 2})
"""Whose rows `taken_over` understands."""

DECIDE: Final = np.dtype(
    [
        # The threshold follows these six; they rest while an anomaly is open.
        ("elapsed_mean_s", np.float64),  # 0 where it is not known yet
        ("elapsed_count", np.int64),  # samples that the mean is worth, the prior included
        ("exceedances", np.int64),  # strange samples, without the prior
        ("clusters", np.int64),  # bursts that they came in, without the prior
        ("correction", np.float64),  # nines, added to the threshold so that the budget is kept; since version 2
        ("alarms", np.int64),  # anomalies that the correction has learnt from; since version 2
        ("cluster_left", np.int64),  # samples below the threshold until the cluster in progress has ended; 0: none
        ("phase", np.int64),  # CALM, STIRRED, RISEN or OPEN
        ("run_started_ns", np.int64),  # first sample of the elevated run; while open, the estimated start
        ("strange", np.int64),  # strange samples: in a row before the firing, from 1 on since
        ("peak", np.float64),  # nines, highest score of the run and of the anomaly
        ("cool_until_ns", np.int64),  # nothing fires before
        # The anomaly that is open, else the last one.
        ("fired_ns", np.int64),
        ("fired_position", np.int64),
        ("fired_threshold", np.float64),  # nines, a float32
        ("calm", np.int64),  # low samples in a row with all values inside the doubled band
        ("sequence", np.int64),  # of the last message
        ("message_ns", np.int64),  # event time of the last message
        ("message_peak", np.float64),  # nines, the peak that the last message told
        ("message_channel", np.int64),  # most blamed channel that a message of a strange sample told
        ("last_ns", np.int64),  # the anomaly's last sample
        ("last_position", np.int64),
        ("last_score", np.float64),
        ("silent_ns", np.int64),  # `last_ns` when silence was last told of
    ]
)

_NEVER = ("run_started_ns", "cool_until_ns", "fired_ns", "message_ns", "last_ns", "silent_ns")
PRIOR_SAMPLES = 100  # what the bundle's period is worth against the stream's own elapsed


def new_rows(count: int, period_s: float | None) -> Rows:
    """Make the rows of streams that were never seen."""
    rows: NDArray[Any] = np.zeros(count, DECIDE)
    for name in _NEVER:
        rows[name] = NO_TIME
    rows["elapsed_mean_s"] = period_s or 0.0
    rows["elapsed_count"] = PRIOR_SAMPLES
    return rows


def taken_over(rows: Rows) -> Rows:
    """Rows of an earlier version in today's columns, those that it lacked as in a new stream; others as they are."""
    names = rows.dtype.names or ()
    if rows.dtype == DECIDE or not DECIDE.names or not set(names) <= set(DECIDE.names):
        return rows
    today = new_rows(len(rows), None)
    for name in names:
        today[name] = rows[name]
    return today
