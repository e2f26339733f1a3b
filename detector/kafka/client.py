"""What Kafka sources, sinks and the store in a topic have in common: asking a cluster about itself, reading a span.

How a broker is reached is told in `connect`. aiokafka is imported in these two, the edges and the store only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from detector.errors import ConfigurationError, SinkError
from detector.kafka.connect import BATCH_BYTES as BATCH_BYTES  # these are part of what this module offers
from detector.kafka.connect import EdgeError as EdgeError
from detector.kafka.connect import close as close
from detector.kafka.connect import connection as connection
from detector.kafka.connect import consumer_arguments as consumer_arguments
from detector.kafka.connect import opened as opened
from detector.kafka.connect import producer_arguments as producer_arguments
from detector.kafka.connect import require_c_extension as require_c_extension
from detector.settings import KafkaClientSettings

_STALL_S = 15.0  # without progress while reading a span
_STEP_MS = 500
_STEP_RECORDS = 4000


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a broker says of its cluster."""

    id: str
    topics: dict[str, int]
    """Topics that we may see, with how many partitions they have."""


async def describe_cluster(settings: KafkaClientSettings, where: str, error: type[EdgeError]) -> Cluster:
    """Ask for the cluster's id and its topics, without creating any."""
    admin = await _admin(settings, where, error)
    try:
        # All topics at once: to ask for one by name would create it where auto.create.topics.enable is on.
        topics = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
        return Cluster(str((await admin.describe_cluster())["cluster_id"]), topics)
    except (KafkaError, OSError) as cause:
        raise error(where, "cannot read the cluster's metadata", got=repr(cause)) from cause
    finally:
        await close(admin)


async def create_topic(
    settings: KafkaClientSettings,
    topic: str,
    partitions: int,
    replication_factor: int,
    of_topic: Mapping[str, str],
    where: str,
    error: type[EdgeError],
) -> str | None:
    """Create a topic with `of_topic` as its configuration; returns None where it is there now, or why it was refused.

    A replication factor of -1 takes the broker's default.
    """
    admin = await _admin(settings, where, error)
    try:
        wanted = NewTopic(topic, partitions, 1, topic_configs=dict(of_topic))
        wanted.replication_factor = replication_factor  # the client's constructor does not know the broker's default
        ((_, code, *message),) = (await admin.create_topics([wanted])).topic_errors
    except (KafkaError, OSError) as cause:
        raise error(where, f"cannot create topic {topic!r}", got=repr(cause)) from cause
    finally:
        await close(admin)
    reason = for_code(code)
    if reason in (NoError, TopicAlreadyExistsError):  # somebody else was faster
        return None
    if reason.retriable:
        raise error(where, f"cannot create topic {topic!r}", got=reason.__name__)
    return f"{reason.__name__}: {message[0]}" if message and message[0] else reason.__name__


async def topic_settings(
    settings: KafkaClientSettings, topic: str, where: str, error: type[EdgeError] = SinkError
) -> dict[str, str]:
    """The broker's configuration of a topic.

    Raises:
        ConfigurationError: We may not read it.
        SourceError, SinkError, CheckpointError: As `error` says; the broker did not answer.
    """
    admin = await _admin(settings, where, error)
    try:
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    except (KafkaError, OSError) as cause:
        raise error(where, f"cannot read the configuration of topic {topic!r}", got=repr(cause)) from cause
    finally:
        await close(admin)
    (code, message, _, _, entries) = response.resources[0]
    if code:
        raise ConfigurationError(
            where,
            f"may not read the configuration of topic {topic!r}",
            expected="cleanup.policy, to be sure that the broker keeps every record",
            got=message or for_code(code).__name__,
            hint="allow DescribeConfigs on the topic",
        )
    return {name: value for name, value, *_ in entries}


async def _admin(settings: KafkaClientSettings, where: str, error: type[EdgeError]) -> AIOKafkaAdminClient:
    arguments = connection(settings)
    return await opened(lambda: AIOKafkaAdminClient(**arguments), where, error, settings)


async def log_bounds(
    settings: KafkaClientSettings,
    partitions: Sequence[TopicPartition],
    where: str,
    error: type[EdgeError],
) -> dict[TopicPartition, tuple[int, int]]:
    """First offset, and one past the last committed one, of each partition."""
    arguments = consumer_arguments(settings)
    consumer = await opened(lambda: AIOKafkaConsumer(**arguments), where, error, settings)
    try:
        low, high = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        return {partition: (low[partition], high[partition]) for partition in partitions}
    except KafkaError as cause:
        raise error(where, "cannot read the bounds of the log", got=repr(cause)) from cause
    finally:
        await close(consumer)


def topic_partition(topic: str, number: int) -> TopicPartition:
    """How the client names a partition."""
    return TopicPartition(topic, number)


async def offsets_at(
    settings: KafkaClientSettings,
    partition: TopicPartition,
    times_ms: Sequence[int],
    where: str,
    error: type[EdgeError],
) -> list[int | None]:
    """The first offset at or after each time, by the records' own timestamps; None where every record is earlier."""
    arguments = consumer_arguments(settings)
    consumer = await opened(lambda: AIOKafkaConsumer(**arguments), where, error, settings)
    try:
        found = [(await consumer.offsets_for_times({partition: time_ms}))[partition] for time_ms in times_ms]
    except KafkaError as cause:
        raise error(where, f"cannot look up times in {partition}", got=repr(cause)) from cause
    finally:
        await close(consumer)
    return [None if each is None else each.offset for each in found]


async def read_span(
    settings: KafkaClientSettings,
    partition: TopicPartition,
    start: int,
    end: int,
    where: str,
    error: type[EdgeError],
) -> AsyncGenerator[list[ConsumerRecord[bytes, bytes]], None]:
    """Yield the committed records of [start, end) that are still there, with a client of its own.

    `end` must not lie beyond the end of what is committed. Iterate it to its end, or close it.
    """
    arguments = consumer_arguments(settings)
    consumer = await opened(lambda: AIOKafkaConsumer(**arguments), where, error, settings)
    try:
        consumer.assign([partition])
        consumer.seek(partition, start)
        idle_ms = 0
        while (position := await consumer.position(partition)) < end:
            found = await consumer.getmany(timeout_ms=_STEP_MS, max_records=_STEP_RECORDS)
            yield [record for record in found.get(partition, ()) if record.offset < end]
            # Transaction markers move the position without giving a record.
            idle_ms = 0 if await consumer.position(partition) > position else idle_ms + _STEP_MS
            if idle_ms > _STALL_S * 1000:
                raise error(where, f"no answer for {_STALL_S:g} s while reading {partition}", got=f"offset {position}")
    except KafkaError as cause:
        raise error(where, f"cannot read {partition} from offset {start}", got=repr(cause)) from cause
    finally:
        await close(consumer)
