"""History that is asked for over the network: a Prometheus range query, and what a Kafka topic holds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, Field, field_serializer, model_validator

from detector.settings import KafkaClientSettings, KafkaSourceSettings, RecordSettings, parse_partitions
from detector.settings.checks import ReadableFile
from training.settings.base import Positive, Section

_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds(duration: str) -> int:
    """How many seconds "30d", "12h", "5m" or "15s" are.

    Raises:
        ValueError: The text is something else.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*(s|m|min|h|d|w)\s*", duration, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"expected a duration such as 30d, 12h, 5m or 15s, got {duration!r}")
    return int(match[1]) * _UNIT_S[match[2]]


def _duration(text: str) -> str:
    seconds(text)
    return text


def _utc(when: datetime) -> datetime:
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


Duration: TypeAlias = Annotated[str, AfterValidator(_duration)]
"""A number and its unit: s, m, h, d, w."""
When: TypeAlias = Annotated[datetime, AfterValidator(_utc)]
"""A day or a time, in UTC where it names no zone."""


def span_of(start: datetime | None, end: datetime | None, last: str | None, now: datetime) -> tuple[datetime, datetime]:
    """From when to when history is asked for; from the epoch on where neither start nor last says it."""
    until = end or now
    if last is not None:
        return until - timedelta(seconds=seconds(last)), until
    return start or datetime(1970, 1, 1, tzinfo=UTC), until


def _check_span(start: datetime | None, end: datetime | None, last: str | None) -> None:
    if start is not None and last is not None:
        raise ValueError("expected start or last, got both; leave one out")
    if start is not None and end is not None and start >= end:
        raise ValueError(f"expected start before end, got {start:%Y-%m-%dT%H:%MZ} and {end:%Y-%m-%dT%H:%MZ}")


class PrometheusData(Section):
    """What Prometheus, or what speaks its language, answers to range queries."""

    url: Annotated[str, Field(pattern=r"^https?://[^/]")]
    """Where its API is, without /api/v1."""
    queries: Annotated[dict[str, str], Field(min_length=1)]
    """PromQL by the name of the channel that it gives. A stream is what has the same labels in all of them: let
    aggregation leave those that tell machines apart, as in `avg by (instance) (...)`."""
    channel: str | None = None
    """Label whose values are channels, such as `mode`, instead of telling streams apart; with several queries a channel
    is then QUERY.VALUE."""
    step: Duration = "1m"
    """From one sample to the next: as often as the daemon will be sent them."""
    last: Duration | None = None
    """How far back, such as 30d."""
    start: When | None = None
    """Instead of `last`: the first time, such as 2026-10-01 or 2026-10-01T06:00Z."""
    end: When | None = None
    """The last time; null is now. A run that may be resumed wants start and end."""
    authorization: str | None = None
    """Environment variable that holds the Authorization header, such as `Bearer abc` or `Basic dXNlcjpwdw==`."""
    ca_file: ReadableFile | None = None
    """Certificate authority to trust, PEM."""
    timeout_s: Positive = 60.0
    """For each answer."""

    @model_validator(mode="after")
    def _some_span(self) -> PrometheusData:
        _check_span(self.start, self.end, self.last)
        if self.start is None and self.last is None:
            raise ValueError("expected last, such as 30d, or start: how far back to ask")
        return self


class KafkaData(KafkaClientSettings):
    """What a topic holds; read without a group, and nothing is committed."""

    topics: Annotated[list[str], Field(min_length=1)]
    """Topics to read, to where they end when reading begins."""
    partitions: str | None = None
    """Only these, such as "0-3" or "0,2,5-7"; null reads all."""
    last: Duration | None = None
    """How far back, such as 7d, by the records' own timestamps; null reads all that is kept."""
    start: When | None = None
    """Instead of `last`: the first time."""
    end: When | None = None
    """The last time; null is now."""
    record: RecordSettings = RecordSettings()
    """How a record is read: the same section as in the daemon's configuration."""

    @model_validator(mode="after")
    def _fits_together(self) -> KafkaData:
        _check_span(self.start, self.end, self.last)
        if self.partitions is not None:
            parse_partitions(self.partitions)
        return self

    @field_serializer("record")
    def _as_written(self, record: RecordSettings) -> dict[str, Any]:
        """Without defaults: some keys exclude others even where they say what is usual."""
        return record.model_dump(mode="json", exclude_unset=True)

    def source(self) -> KafkaSourceSettings:
        """The same broker, topics and records as a daemon's input."""
        client = {name: getattr(self, name) for name in KafkaClientSettings.model_fields}
        return KafkaSourceSettings(
            type="kafka", topics=self.topics, partitions=self.partitions, record=self.record, **client
        )
