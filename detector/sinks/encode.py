"""What goes over the wire: alerts, scores and dead letters as JSON, one line or one record each.

Floats are shortest round-trip decimals; times are RFC 3339 in UTC, and beside them integers of nanoseconds, which are
exact in every language.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from itertools import repeat

import msgspec
import numpy as np

from detector.records import NO_TIME, Alert, Float32, Float64, Int64, Scores, Shard, SourcePosition
from detector.sinks.base import DeadLetter

_encode = msgspec.json.Encoder().encode


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One channel of a scored sample; null where it was not forecast."""

    channel: str
    expected: float | None
    lower: float | None
    upper: float | None
    blame: float | None


class Score(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One sample's score. Keyed by its stream; its source position says which sample it is."""

    stream: str
    time: str
    time_ns: int
    detector: str
    score: float
    threshold: float
    anomaly: int
    source: SourcePosition
    channels: list[Reading] | None = None
    """Only with scores_detail."""


class _Identity(msgspec.Struct):
    id: str
    source: SourcePosition


_decode_identity = msgspec.json.Decoder(_Identity).decode


def encode_alert(alert: Alert) -> bytes:
    """An alert as JSON."""
    return _encode(alert)


def alert_id(value: bytes | None, shard: Shard) -> str | None:
    """The id of an encoded alert if it came from `shard`; None if not, or if it is something else."""
    try:
        found = _decode_identity(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):  # others may write to the same output
        return None
    source = found.source
    return found.id if (source.cluster, source.topic, source.partition) == _key(shard) else None


def _key(shard: Shard) -> tuple[str, str, int]:
    return shard.cluster, shard.topic, shard.partition


def encode_scores(shard: Shard, scores: Scores) -> list[bytes]:
    """Scores as JSON, in order."""
    cluster, topic, partition = _key(shard)
    positions = (
        SourcePosition(cluster=cluster, topic=topic, partition=partition, offset=offset)
        for offset in scores.positions.tolist()
    )
    columns = zip(
        scores.streams,
        rfc3339(scores.event_ns),
        scores.event_ns.tolist(),
        shortest(scores.score).tolist(),
        shortest(scores.threshold).tolist(),
        scores.anomaly.tolist(),
        positions,
        _readings(scores),
        strict=False,  # the readings may repeat without end
    )
    return [
        _encode(
            Score(
                stream=stream,
                time=time,
                time_ns=time_ns,
                detector=scores.detector,
                score=score,
                threshold=threshold,
                anomaly=anomaly,
                source=source,
                channels=channels,
            )
        )
        for stream, time, time_ns, score, threshold, anomaly, source, channels in columns
    ]


def _readings(scores: Scores) -> Iterable[list[Reading] | None]:
    blame = None if scores.blame is None else shortest(scores.blame)
    details = (scores.expected, scores.lower, scores.upper, blame)
    if all(detail is None for detail in details):
        return repeat(None)
    columns = [repeat(repeat(None)) if detail is None else detail.tolist() for detail in details]
    return (list(map(Reading, scores.channels, *row)) for row in zip(*columns, strict=False))


def shortest(values: Float32) -> Float64:
    """The doubles that print as the shortest decimals of float32 numbers: 0.3, not 0.30000001192092896."""
    exact = values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        magnitude = np.floor(np.log10(np.abs(exact)))
        found = exact.copy()
        for digits in (9, 8, 7, 6):  # 9 always suffice; what needs fewer than 6 prints so anyway
            scale = 10.0 ** (digits - 1 - magnitude)
            rounded = np.rint(exact * scale) / scale
            is_same = rounded.astype(np.float32) == values
            found[is_same] = rounded[is_same]
    return found


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """A dead letter as JSON, for sinks without keys and headers; bytes that are not UTF-8 are kept as base64."""
    return _encode(
        {
            "reason": letter.reason.label,
            "detail": letter.detail,
            **dict(zip(("cluster", "topic", "partition"), _key(letter.shard), strict=True)),
            "offset": letter.position,
            "append_ns": None if letter.append_ns == NO_TIME else letter.append_ns,
            **_text("key", letter.key),
            **_text("value", letter.value),
            "headers": [{"name": name, **_text("value", value)} for name, value in letter.headers],
        }
    )


def _text(name: str, data: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data or b"").decode()}


def rfc3339(times_ns: Int64) -> Sequence[str]:
    """Times in UTC, to the nanosecond, without zeros that say nothing."""
    texts = np.datetime_as_string(times_ns.astype("datetime64[ns]")).tolist()
    return [f"{text.rstrip('0').rstrip('.')}Z" for text in texts]
