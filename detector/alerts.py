"""From what `decide` found to what the world is told: `Message` in, `Alert` out.

A `Message` speaks of slots, nanoseconds and arrays; an `Alert` of streams, RFC 3339 and named channels. The engine
knows the names, so it calls `to_alert`. Ids are hashes of where the firing sample stands in the input, hence a replay
gives the same ids, and bytes. docs/alerts.md shows an alert; `detector/schemas/alert.v1.json` is its published schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np

from detector.records import Alert, ChannelReading, Float32, Float64, Shard, SourcePosition

Event: TypeAlias = Literal["open", "update", "close", "silent"]
Cause: TypeAlias = Literal["threshold", "peak", "blame", "interval", "recovered", "adapted", "silent", "gap"]

_NS_PER_S = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ID_DIGITS = 32  # hex digits of SHA-256 that are kept: 128 bits


@dataclass(frozen=True, slots=True)
class Reading:
    """The channels of one sample, each (C,)."""

    values: Float64
    """Raw units, NaN where missing."""
    expected: Float64
    lower: Float64
    upper: Float64
    blame: Float32


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to say about an anomaly."""

    slot: int
    """Whose anomaly: the stream's row in the arena."""
    event: Event
    reason: Cause
    sequence: int
    """0 for open, then 1, 2, ...; a notice of silence repeats the number of the message before it."""
    position: int
    """Of the sample that this message speaks of."""
    time_ns: int
    """Its event time."""
    score: float
    peak: float
    threshold: float
    started_ns: int
    fired_ns: int
    fired_position: int
    ended_ns: int | None
    reading: Reading | None
    """None in a notice of silence: nothing was measured."""


def to_alert(
    message: Message,
    *,
    shard: Shard,
    stream: str,
    labels: dict[str, str],
    detector: str,
    bundle_label: str,
    channels: Sequence[str],
) -> Alert:
    """Put names to a message.

    Args:
        message: What `decide` or `silence` returned.
        shard: The shard that the stream came from.
        stream: The stream's key.
        labels: The stream's labels.
        detector: Name of the detector in the configuration; part of the id.
        bundle_label: `name@version` of the bundle.
        channels: Names of the C channels.

    Returns:
        The alert, ready to be encoded; equal arguments give equal bytes.
    """
    anomaly_id = id_of(shard.cluster, shard.topic, shard.partition, message.fired_position, stream, detector)
    return Alert(
        id=_alert_id(anomaly_id, message),
        anomaly_id=anomaly_id,
        sequence=message.sequence,
        event=message.event,
        status="firing" if message.event in ("open", "update") else "resolved",
        reason=message.reason,
        stream=stream,
        labels=labels,
        detector=detector,
        bundle=bundle_label,
        time=rfc3339(message.time_ns),
        started_at=rfc3339(message.started_ns),
        detected_at=rfc3339(message.fired_ns),
        ended_at=None if message.ended_ns is None else rfc3339(message.ended_ns),
        score=_shortest(message.score),
        peak_score=_shortest(message.peak),
        threshold=_shortest(message.threshold),
        channels=[] if message.reading is None else _readings(channels, message.reading),
        source=SourcePosition(
            cluster=shard.cluster, topic=shard.topic, partition=shard.partition, offset=message.position
        ),
    )


def id_of(*parts: str | int) -> str:
    """Hash parts as the JSON array of them: the first 32 hex digits of its SHA-256."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:_ID_DIGITS]


def _alert_id(anomaly_id: str, message: Message) -> str:
    """Number the messages of an anomaly; a notice of silence stands outside that count.

    When a notice is sent depends on the shard's other streams, so it must not move the ids of open, update and close.
    """
    if message.event == "silent":
        return id_of(anomaly_id, message.sequence, "silent", message.position)
    return id_of(anomaly_id, message.sequence)


def _readings(channels: Sequence[str], reading: Reading) -> list[ChannelReading]:
    columns = zip(
        channels,
        reading.values.tolist(),
        reading.expected.tolist(),
        reading.lower.tolist(),
        reading.upper.tolist(),
        reading.blame,
        strict=True,
    )
    return [
        ChannelReading(
            channel=channel,
            observed=value if value == value else None,  # NaN alone differs from itself
            expected=expected,
            lower=lower,
            upper=upper,
            blame=_shortest(blame),
        )
        for channel, value, expected, lower, upper, blame in columns
    ]


def _shortest(value: float | np.float32) -> float:
    """Take a float32 as the shortest decimal that reads back to it: 0.3, not 0.30000001192092896."""
    return float(str(np.float32(value)))


def rfc3339(time_ns: int) -> str:
    """Write Unix nanoseconds as RFC 3339 in UTC, with as many fractional digits as are needed."""
    seconds, fraction = divmod(time_ns, _NS_PER_S)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def alert_schema() -> dict[str, Any]:
    """Describe an alert as JSON Schema (2020-12); `tidewarden schema alert` prints it."""
    schema = msgspec.json.schema(Alert)
    # msgspec takes a field with a default for one that may be absent; ours is always written, and readers branch on it.
    schema["$defs"]["Alert"]["required"].insert(0, "version")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidewarden alert, version 1",
        **schema,
    }
