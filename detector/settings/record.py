"""`sources.NAME.record`: how a record is read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detector.settings.base import Seconds, Section


class RecordSettings(Section):
    """Which field of a record is what. The defaults read `{"stream": ..., "time": ..., "values": {...}}`."""

    format: Literal["json", "msgpack"] = "json"
    """How a record's value is encoded; msgpack for Kafka only. A MessagePack timestamp is a time in any `time_unit`."""
    stream: str | None = "stream"
    """Field with the stream's key; null takes the record's own key (Kafka) or the file's name."""
    time: str | None = "time"
    """Field with the event time; null takes the record's own timestamp."""
    time_unit: Literal["s", "ms", "us", "ns", "iso8601"] = "s"
    """Unit of a number in the time field since 1970; iso8601 reads text such as 2026-11-21T12:00:00.25Z."""
    values: str | None = "values"
    """Field with the map from channel to number; null reads `channels` from the top level of the record."""
    channels: list[str] | None = None
    """Top-level fields that are channels, where `values` is null."""
    channel: str | None = None
    """Narrow records, one channel's value each: the field with the channel's name. Values of one time are joined into a
    sample; the stream's channels must be declared, by the detector or its bundle."""
    value: str = "value"
    """Narrow records: the field with the number."""
    labels: str | None = "labels"
    """Field with the stream's labels, a map from text to text; may be absent in a record."""
    unknown_channels: Literal["ignore", "reject"] = "ignore"
    """What becomes of a channel that its stream does not have: counted and left out, or the record rejected."""
    future_s: Seconds = 300.0
    """How far an event time may lie after the record's own timestamp."""
    max_record_bytes: Annotated[int, Field(gt=0)] = 1_048_576
    """Longest value that is read; longer ones are dead letters."""

    @model_validator(mode="after")
    def _channels_go_with_flat_records(self) -> RecordSettings:
        if self.channel is not None:
            if self.channels or "values" in self.model_fields_set:
                raise ValueError("expected channel and value (narrow records), or values, or channels; got several")
            return self
        if self.values is None and not self.channels:
            raise ValueError("expected channels, the top-level fields that are channels, as values is null")
        if self.values is not None and self.channels:
            raise ValueError("expected channels only beside values: null; a detector's own channels pick from the map")
        return self
