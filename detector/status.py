"""What the daemon knows of itself right now, for people and for the readiness probe.

Filled by `Telemetry` with the same events that move the metrics; read by the status page, `/status.json`, `/readyz`
and the live view of `tidewarden demo`. Everything is bounded: the last alerts, a minute of rates.
"""

from __future__ import annotations

import platform
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from detector import __version__
from detector.records import NO_TIME, Alert, Shard

_ALERTS_KEPT = 50
_RATE_OVER_S = 10.0  # rates are means over so long


@dataclass(slots=True)
class BundleStatus:
    """One detector's bundle."""

    detector: str
    bundle: str
    sha256: str
    channels: list[str] | None
    """None for a bundle of any channels."""
    budget_per_day: float | None
    """The promise; None where the threshold is fixed."""
    alarms: int = 0
    watched_days: float = 0.0
    """Stream-days of event time since the start."""

    @property
    def realised_per_day(self) -> float | None:
        """Alarms per stream per day since the start; None before anything was watched."""
        return self.alarms / self.watched_days if self.watched_days else None


@dataclass(slots=True)
class ShardStatus:
    """One shard that is ours."""

    source: str
    topic: str
    partition: int
    is_restored: bool = False
    next_position: int | None = None
    lag: int | None = None
    """Records not yet read (files: bytes)."""
    streams: int = 0
    open_anomalies: int = 0
    records: int = 0
    last_event_ns: int = NO_TIME
    checkpoint_position: int | None = None
    checkpoint_ns: int = NO_TIME
    checkpoint_failures: int = 0
    paused: str | None = None
    """Why it is not read for now."""

    @property
    def labels(self) -> tuple[str, str, str]:
        """How metrics name the shard."""
        return self.source, self.topic, str(self.partition)


class Rate:
    """Events per second over the last while."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, count: int) -> None:
        """`count` more at `now_s`, a monotonic time."""
        if self._seen and now_s - self._seen[-1][0] < 0.1:  # ten buckets a second are fine enough
            self._seen[-1] = (self._seen[-1][0], self._seen[-1][1] + count)
        else:
            self._seen.append((now_s, count))
        self._forget(now_s)

    def per_second(self, now_s: float) -> float:
        """The mean up to `now_s`."""
        self._forget(now_s)
        if not self._seen:
            return 0.0
        return sum(count for _, count in self._seen) / max(1.0, now_s - self._seen[0][0])

    def _forget(self, now_s: float) -> None:
        while self._seen and now_s - self._seen[0][0] > _RATE_OVER_S:
            self._seen.popleft()


@dataclass(slots=True)
class Status:
    """The whole picture."""

    started_ns: int
    awaited: set[str] = field(default_factory=set)
    """Sources that have not said yet which shards are ours."""
    is_tested: bool = False
    """The self-test of the model runtime passed."""
    is_draining: bool = False
    failure: str | None = None
    """Why all connections are being built anew; None while they stand."""
    checkpoints: int = 0
    """How many became durable since the start."""
    bundles: dict[str, BundleStatus] = field(default_factory=dict)
    shards: dict[Shard, ShardStatus] = field(default_factory=dict)
    alerts: deque[Alert] = field(default_factory=lambda: deque(maxlen=_ALERTS_KEPT))
    """The latest, newest last; copies that were suppressed are not among them."""
    records: int = 0
    samples: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    record_rate: Rate = field(default_factory=Rate)

    def unready(self) -> list[str]:
        """Why the daemon is not ready; empty when it is."""
        reasons = []
        if not self.is_tested:
            reasons.append("the self-test of the model has not passed yet")
        if self.failure is not None:
            reasons.append(f"building all connections anew, after {self.failure}")
        reasons += [f"source {source} has not assigned shards yet" for source in sorted(self.awaited)]
        reasons += [f"shard {shard} is not restored yet" for shard, mine in self.shards.items() if not mine.is_restored]
        if self.is_draining:
            reasons.append("draining")
        return reasons

    def snapshot(self, now_ns: int, now_s: float) -> dict[str, Any]:
        """Everything as plain values for JSON; times are Unix seconds."""
        unready = self.unready()
        return {
            "version": __version__,
            "python": platform.python_version(),
            "now": now_ns / 1e9,
            "started": self.started_ns / 1e9,
            "ready": not unready,
            "unready": unready,
            "records": self.records,
            "samples": self.samples,
            "records_per_second": round(self.record_rate.per_second(now_s), 1),
            "rejects": dict(self.rejects),
            "streams": sum(shard.streams for shard in self.shards.values()),
            "open_anomalies": sum(shard.open_anomalies for shard in self.shards.values()),
            "bundles": [asdict(b) | {"realised_per_day": b.realised_per_day} for b in self.bundles.values()],
            "shards": [_shard(shard) for shard in self.shards.values()],
            "alerts": [_alert(alert) for alert in reversed(self.alerts)],
        }


def _shard(shard: ShardStatus) -> dict[str, Any]:
    plain = asdict(shard)
    for name in ("last_event", "checkpoint"):
        at_ns = plain.pop(f"{name}_ns")
        plain[name] = None if at_ns == NO_TIME else at_ns / 1e9
    return plain


def _alert(alert: Alert) -> dict[str, Any]:
    blamed = max(alert.channels, key=lambda reading: reading.blame, default=None)
    return {
        "time": alert.time,
        "event": alert.event,
        "status": alert.status,
        "reason": alert.reason,
        "stream": alert.stream,
        "detector": alert.detector,
        "score": alert.score,
        "peak_score": alert.peak_score,
        "channel": blamed.channel if blamed else None,
        "blame": blamed.blame if blamed else None,
        "observed": blamed.observed if blamed else None,
        "expected": blamed.expected if blamed else None,
    }
