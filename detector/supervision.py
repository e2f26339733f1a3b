"""When the daemon's connections are built anew after a failure, and when it gives up.

Crash-only: a failure that may pass tears down sinks, store, sources and pipeline, and all of them are built again from
the last manifests. That is what happens after a crash, and the kill tests prove it; nothing is ever mended in place.
HTTP and bundles stay: liveness is true meanwhile, readiness is not.

    what failed                                   what is done
    before the pipeline first ran                 end: an address may be misspelt, and somebody is looking
    in a way that does not pass by itself         end
    while draining                                end: the next start replays
    for the third time in a row                   end with its error, non-zero, so that the orchestrator acts
    in any other way                              a pause, and all is built anew

In a row means that neither a checkpoint became durable in between nor the pipeline ran for five minutes. A broker that
is away makes one failure at most for each two minutes (`detector.kafka` waits that long for one that has answered
before), so that one may stay away for some four minutes before the daemon ends.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import structlog

from detector.clock import Clock
from detector.errors import CheckpointError, SinkError, SourceError
from detector.telemetry import Telemetry

_PAUSES_S = (2.0, 20.0)  # after the first and the second failure in a row; there is none after the third
_STEADY_S = 300.0  # a pipeline that ran so long had got over what failed before

_WHAT = {SourceError: "source", SinkError: "sink", CheckpointError: "store"}

_log = structlog.get_logger(__name__)


class Supervisor:
    """Counts failures in a row; `app` asks it after each."""

    def __init__(self, telemetry: Telemetry, clock: Clock) -> None:
        self._telemetry, self._clock = telemetry, clock
        self._has_run = False
        self._began_s: float | None = None
        """When the pipeline began; None while there is none."""
        self._failures = 0
        self._checkpoints = 0
        """How many were durable at the last failure."""

    def began(self) -> None:
        """Everything is connected, the pipeline runs."""
        self._has_run, self._began_s = True, self._clock.monotonic_s()
        self._telemetry.connected()

    def pause_after(self, failure: Exception, *, is_draining: bool) -> float:
        """Seconds to wait before all is built anew.

        Raises:
            Exception: The culprit of the failure, where it is to end the daemon.
        """
        cause = culprit(failure)
        if not self._has_run or is_draining or not getattr(cause, "retriable", False):
            raise cause
        self._count()
        if self._failures > len(_PAUSES_S):
            _log.error("giving up", failures_in_a_row=self._failures, error=str(cause))
            raise cause
        pause_s = _PAUSES_S[self._failures - 1] * random.uniform(0.5, 1.0)  # apart from others that lost the same
        what = next(name for kind, name in _WHAT.items() if isinstance(cause, kind))
        self._telemetry.rebuilding(what, str(cause))
        _log.warning(
            "building all connections anew",
            failed=what,
            error=str(cause),
            in_s=round(pause_s, 1),
            failures_in_a_row=self._failures,
            gives_up_at=len(_PAUSES_S) + 1,
        )
        return pause_s

    def _count(self) -> None:
        """One more failure in a row, or the first of a new one where what failed before was over in between."""
        checkpoints, began_s = self._telemetry.status.checkpoints, self._began_s
        is_steady = began_s is not None and self._clock.monotonic_s() - began_s >= _STEADY_S
        self._failures = 1 if is_steady or checkpoints > self._checkpoints else self._failures + 1
        self._checkpoints, self._began_s = checkpoints, None


def culprit(failure: BaseException) -> BaseException:
    """Of a failure in groups the one to judge and to tell: the first that does not pass by itself, else the first."""
    leaves = list(_leaves(failure))
    return next((leaf for leaf in leaves if not getattr(leaf, "retriable", False)), leaves[0])


def _leaves(failure: BaseException) -> Iterator[BaseException]:
    if isinstance(failure, BaseExceptionGroup):
        for each in failure.exceptions:
            yield from _leaves(each)
    else:
        yield failure
