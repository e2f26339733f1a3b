"""The state topic as it must be: compacted, one or several partitions, created where we may, else the command is said.

Compaction is what frees the space: every key is written once and deleted once, so that each tombstone lets the broker
drop a chunk, whoever else writes to the partition. (State that is kept per stream under one key has a hole there: a
newer value that was never committed can push out the older one that was. Here a key has one value in all its life.)
Retention by time or size would take a base away that is still needed: such a topic is refused.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from detector.errors import CheckpointError, ConfigurationError
from detector.kafka.client import create_topic, describe_cluster, topic_settings
from detector.settings import KafkaCheckpointSettings

PARTITIONS = 50  # as the broker's own state topics have; shards beyond share them, at the cost of a look over the other
_SMALLEST_BYTES = 16_384  # of max.message.bytes; below it a checkpoint is more keys than rows
_ENOUGH_REPLICAS = 3  # from here on two must have a record before it is acknowledged
_APPEAR_S = 15.0
_BROKERS_DEFAULT = -1


@dataclass(frozen=True, slots=True)
class StateTopic:
    """A state topic that can be used."""

    partitions: int
    max_bytes: int
    """Of a batch of records."""


async def ready_topic(settings: KafkaCheckpointSettings, where: str) -> StateTopic:
    """Find the topic, or create it.

    Raises:
        ConfigurationError: It may not be created, or would not keep what it is given; the hint is the command to run.
        CheckpointError: No broker answers.
    """
    cluster = await describe_cluster(settings, where, CheckpointError)
    if settings.topic not in cluster.topics:
        await _create(settings, where)
    partitions = await _appeared(settings, where)
    of_topic = await topic_settings(settings, settings.topic, where, CheckpointError)
    if of_topic.get("cleanup.policy") != "compact":
        raise ConfigurationError(
            where,
            f"cleanup.policy of topic {settings.topic!r}",
            expected="compact",
            got=of_topic.get("cleanup.policy"),
            hint=_command("configs", settings, "--alter", "--entity-type topics", f"--entity-name {settings.topic}")
            + " --add-config cleanup.policy=compact",
        )
    max_bytes = int(of_topic["max.message.bytes"])
    if max_bytes < _SMALLEST_BYTES:
        raise ConfigurationError(
            where,
            f"max.message.bytes of topic {settings.topic!r}",
            expected=f"{_SMALLEST_BYTES} or more",
            got=max_bytes,
            hint=_command("configs", settings, "--alter", "--entity-type topics", f"--entity-name {settings.topic}")
            + " --add-config max.message.bytes=1048588",
        )
    return StateTopic(partitions, max_bytes)


async def _create(settings: KafkaCheckpointSettings, where: str) -> None:
    factor = settings.replication_factor
    refused = await create_topic(
        settings,
        settings.topic,
        PARTITIONS,
        _BROKERS_DEFAULT if factor is None else factor,
        _of_topic(factor),
        where,
        CheckpointError,
    )
    if refused is not None:
        configs = " ".join(f"--config {name}={value}" for name, value in _of_topic(factor).items())
        replication = "" if factor is None else f" --replication-factor {factor}"
        raise ConfigurationError(
            where,
            f"topic {settings.topic!r} is not there, or we may not see it, and cannot be created",
            got=refused,
            hint=_command("topics", settings, "--create", f"--topic {settings.topic}", f"--partitions {PARTITIONS}")
            + f"{replication} {configs}",
        )


def _of_topic(replication_factor: int | None) -> dict[str, str]:
    """The topic's configuration; what is not said here is the broker's default."""
    of_topic = {
        "cleanup.policy": "compact",
        # Only segments that are closed are compacted: with the default of 1 GiB, each partition would keep that much.
        "segment.bytes": str(128 << 20),
        "compression.type": "producer",  # chunks are packed already
    }
    if replication_factor is not None and replication_factor >= _ENOUGH_REPLICAS:
        of_topic["min.insync.replicas"] = "2"
    return of_topic


async def _appeared(settings: KafkaCheckpointSettings, where: str) -> int:
    """How many partitions the topic has; a new one takes a moment to be known everywhere."""
    deadline = asyncio.get_running_loop().time() + _APPEAR_S
    while True:
        topics = (await describe_cluster(settings, where, CheckpointError)).topics
        if topics.get(settings.topic):
            return topics[settings.topic]
        if asyncio.get_running_loop().time() > deadline:
            raise CheckpointError(where, f"topic {settings.topic!r} was created, but does not appear")
        await asyncio.sleep(0.2)


def _command(tool: str, settings: KafkaCheckpointSettings, *arguments: str) -> str:
    return " ".join([f"kafka-{tool}.sh --bootstrap-server {settings.bootstrap_servers}", *arguments])
