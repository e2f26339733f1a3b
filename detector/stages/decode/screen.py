"""Screen: refuse samples that no stream could use, before one of them makes a new stream."""

from __future__ import annotations

import numpy as np

from detector.records import NO_TIME, Reason, Reject, Samples
from detector.stages.decode.times import LAST_NS


def screen(samples: Samples, future_s: float) -> tuple[Samples, list[Reject]]:
    """Refuse what is from the future, not finite, or observes nothing.

    A narrow record may well observe nothing: that its channel is missing is what it says.
    """
    limit_ns = round(min(future_s * 1e9, 2.0**62))
    append_ns = samples.append_ns
    is_future = (append_ns != NO_TIME) & (samples.event_ns > np.minimum(append_ns, LAST_NS - limit_ns) + limit_ns)
    if not is_future.any() and all(cells.shape[1] and np.isfinite(cells).all() for cells in samples.cells):
        return samples, []
    is_infinite, is_empty = np.zeros((2, len(samples)), np.bool_)
    for shape, cells in enumerate(samples.cells):
        of_shape = samples.shape_of == shape
        is_infinite[of_shape] = np.isinf(cells).any(axis=1)
        is_empty[of_shape] = samples.channel_of is None and np.isnan(cells).all(axis=1)
    rejects = []
    for at in np.flatnonzero(is_future | is_infinite | is_empty).tolist():
        if is_future[at]:
            ahead_s = (int(samples.event_ns[at]) - int(append_ns[at])) / 1e9
            fault = (Reason.FUTURE, f"{ahead_s:g} s after the record's timestamp")
        else:
            fault = (Reason.NOT_FINITE, "") if is_infinite[at] else (Reason.NOTHING_OBSERVED, "")
        rejects.append(Reject(int(samples.index[at]), int(samples.positions[at]), *fault))
    good = np.flatnonzero(~(is_future | is_infinite | is_empty))
    return (samples.take(good) if rejects else samples), rejects
