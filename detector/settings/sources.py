"""`sources`: where samples come from."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from detector.settings.base import Section
from detector.settings.checks import Regex, parse_ordinal, parse_partitions
from detector.settings.kafka import KafkaClientSettings
from detector.settings.record import RecordSettings


class KafkaSourceSettings(KafkaClientSettings):
    """Samples from Kafka topics."""

    type: Literal["kafka"]
    topics: list[str] = []
    """Topics to read."""
    pattern: Regex | None = None
    """Regular expression for topics to read, instead of `topics`."""
    group: str = "tidewarden"
    """Consumer group; with `partitions` it only receives our (advisory) committed offsets."""
    partitions: str | None = None
    """Static assignment such as "0-3" or "0,2,5-7"; "ordinal/3" takes every third, beginning with the number at the end
    of the host's name (a StatefulSet of 3); null joins the consumer group."""
    start: Literal["earliest", "latest", "fail"] = "earliest"
    """Where a shard without a checkpoint begins; pinned by a manifest at once."""
    on_data_loss: Literal["fail", "continue"] = "fail"
    """What to do when records after the checkpoint are gone from the log: refuse, or go on from the first that is left
    with every stream of the shard marked with the gap."""
    on_partitions_changed: Literal["fail", "continue"] = "fail"
    """What to do when the topic has another number of partitions than at the checkpoint: refuse, or go on; a stream
    whose key moved to another partition then starts there without memory."""
    poll_records: Annotated[int, Field(ge=1, le=10_000)] = 4000
    """Most records taken in one poll; larger polls are faster, smaller ones sooner (T10)."""
    session_timeout_s: Annotated[float, Field(ge=6)] = 45.0
    """How long the group waits for a lost replica."""
    record: RecordSettings = RecordSettings()
    """How a record is read."""

    @model_validator(mode="after")
    def _topics_or_pattern(self) -> KafkaSourceSettings:
        if bool(self.topics) == (self.pattern is not None):
            raise ValueError("expected either topics or pattern, got " + ("both" if self.topics else "neither"))
        if self.partitions is not None:
            if self.pattern is not None:
                raise ValueError("expected partitions beside topics, got them beside pattern")
            if parse_ordinal(self.partitions) is None:
                parse_partitions(self.partitions)
        return self


class FileSourceSettings(Section):
    """Samples from files: CSV, JSON Lines, Parquet (extra `files`)."""

    type: Literal["file"]
    paths: Annotated[list[str], Field(min_length=1)]
    """Files or globs; each file is a shard."""
    mode: Literal["replay", "tail"] = "replay"
    """replay ends with the file; tail waits for more and follows rotation."""
    speed: Annotated[float, Field(gt=0)] | None = None
    """Replay at so many times real speed, by event time; null as fast as possible."""
    channels: list[str] | None = None
    """CSV and Parquet: the columns that are channels; null takes every numeric column left."""
    start: Literal["earliest", "latest", "fail"] = "earliest"
    """Where a shard without a checkpoint begins; pinned by a manifest at once."""
    record: RecordSettings = RecordSettings()
    """How a line is read; for CSV and Parquet `stream` and `time`, and of narrow records `channel` and `value`, name
    columns."""

    @model_validator(mode="after")
    def _lines_are_text(self) -> FileSourceSettings:
        if self.record.format != "json":
            raise ValueError("expected record.format json: a file's records are lines; MessagePack comes from Kafka")
        if self.record.channel is not None and self.channels is not None:
            raise ValueError(
                "expected channels, or record.channel (narrow records), the column that names them; got both"
            )
        return self


class PlantSourceSettings(Section):
    """The synthetic plant of `tidewarden demo`: pumps with known faults."""

    type: Literal["plant"]
    streams: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Pumps."""
    seed: int = 7
    """The same seed gives the same plant."""
    speed: Annotated[float, Field(gt=0)] | None = 600.0
    """Times real speed; null as fast as possible."""
    hours: Annotated[float, Field(gt=0)] = 12.0
    """How much of the plant's time is replayed."""
    start: Literal["earliest", "latest", "fail"] = "earliest"
    """Where a shard without a checkpoint begins."""
    record: RecordSettings = RecordSettings()
    """How a record is read."""

    @model_validator(mode="after")
    def _records_are_the_plants(self) -> PlantSourceSettings:
        if self.record.format != "json" or self.record.channel is not None:
            raise ValueError("expected record.format json and no record.channel: the plant sends wide JSON")
        return self


SourceSettings: TypeAlias = Annotated[
    KafkaSourceSettings | FileSourceSettings | PlantSourceSettings, Field(discriminator="type")
]
