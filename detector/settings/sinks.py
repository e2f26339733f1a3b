"""`sinks`: where results go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from detector.settings.base import Name, Section
from detector.settings.kafka import KafkaClientSettings


class KafkaSinkSettings(KafkaClientSettings):
    """A Kafka topic: key = stream, partition = input partition modulo the topic's partitions."""

    type: Literal["kafka"]
    topic: str
    """Topic to write to; its cleanup.policy must be delete."""
    linger_ms: Annotated[int, Field(ge=0)] = 2
    """How long a record may wait for others to share a request."""


class FileSinkSettings(Section):
    """A JSON Lines file."""

    type: Literal["file"]
    path: Path
    """File that lines are appended to; synced to disk before a checkpoint."""


class StdoutSinkSettings(Section):
    """Standard output, a line each."""

    type: Literal["stdout"]


SinkSettings: TypeAlias = Annotated[
    KafkaSinkSettings | FileSinkSettings | StdoutSinkSettings, Field(discriminator="type")
]


class SinksSettings(Section):
    """Where results go; each a map from a name to a sink."""

    alerts: dict[Name, SinkSettings] = {}
    """Anomalies as they open, change and close."""
    scores: dict[Name, SinkSettings] = {}
    """Every sample's score."""
    scores_mode: Literal["complete", "sampled"] = "sampled"
    """complete: acknowledged before the checkpoint, one for every accepted sample; sampled: promises nothing."""
    scores_sample_ratio: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Which share of streams' scores is sent when sampled; chosen by a hash of the stream."""
    scores_detail: bool = False
    """Whether scores carry expected, lower, upper and blame per channel."""
    dead_letters: dict[Name, SinkSettings] = {}
    """Broken records with their reason and their original bytes."""
