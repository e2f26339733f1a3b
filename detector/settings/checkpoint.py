"""`checkpoint`: where memory is kept, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from detector.settings.base import Seconds, Section
from detector.settings.checks import History
from detector.settings.kafka import KafkaClientSettings


class _CheckpointSettings(Section):
    every_s: Annotated[float, Field(gt=0)] = 20.0
    """Seconds between checkpoints; what is replayed after a crash."""
    replay_bound_s: Annotated[float, Field(gt=0)] = 200.0
    """Age of the last checkpoint from which a shard is paused: a store that stalls may not make the replay endless."""
    keep_history: History | None = None
    """Checkpoints kept for `tidewarden verify`, such as "1/h for 7d"; null keeps none."""
    linger_s: Seconds = 60.0
    """How long the rows of a shard that the group took away stay in memory, in case it comes straight back."""
    standby: bool = False
    """Follow the checkpoints of shards that other replicas own, to take one over in a moment; takes their memory."""


class DirCheckpointSettings(_CheckpointSettings):
    """A local or shared folder."""

    type: Literal["dir"] = "dir"
    path: Path = Path("state")
    """The folder."""


class KafkaCheckpointSettings(_CheckpointSettings, KafkaClientSettings):
    """A Kafka topic; needs no disk, so that a replica can start anywhere."""

    type: Literal["kafka"]
    topic: str = "tidewarden-state"
    """The topic; created with the right settings where we may, else the command is said. A shard's checkpoints lie in
    the partition with its number modulo the partitions that the topic had in the beginning."""
    replication_factor: Annotated[int, Field(ge=1)] | None = None
    """Of the topic when we create it; null takes the broker's default."""


class ObjectCheckpointSettings(_CheckpointSettings):
    """Object storage: S3, Google Cloud Storage, Azure (extra `objects`)."""

    type: Literal["object"]
    url: str
    """Bucket and prefix, such as s3://bucket/tidewarden, gs://bucket/prefix, az://container/prefix."""
    options: dict[str, str] = {}
    """Options of the storage's client as obstore names them, such as endpoint, region, allow_http; credentials come
    from the environment."""


def _dir_unless_said(given: object) -> object:
    return {"type": "dir"} | given if isinstance(given, dict) else given


CheckpointSettings: TypeAlias = Annotated[
    DirCheckpointSettings | KafkaCheckpointSettings | ObjectCheckpointSettings,
    Field(discriminator="type"),
    BeforeValidator(_dir_unless_said),
]
