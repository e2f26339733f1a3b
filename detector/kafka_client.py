"""What Kafka sources and sinks have in common: how a broker is reached, asked about itself, and read once.

Given the `KafkaClientSettings` of an edge. aiokafka is imported here and in the two edges only. The traps T1 to T13 of
that client, found by measurement, are named at the line that avoids each; the event loop is the default one, since
uvloop's closed transports raise what the client does not catch (T9).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from detector.errors import ConfigurationError, SinkError, SourceError
from detector.settings import KafkaClientSettings

FETCH_MAX_BYTES = 32 << 20  # one answer of a broker; bounds what the client buffers
PARTITION_FETCH_BYTES = 1 << 20  # of it per partition; a single larger record still comes
READ_COMMITTED = "read_committed"  # aborted transactions of others are not samples, and not alerts

_PATIENCE_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0)  # between attempts to reach a broker that is not there yet: 24 s
_ATTEMPT_S = 15.0  # for one attempt; a broker that answers needs 20 ms
_STALL_S = 15.0  # without progress while reading a span
_STEP_MS = 500
_STEP_RECORDS = 4000

Client = TypeVar("Client")


def connection(settings: KafkaClientSettings) -> dict[str, Any]:
    """The keyword arguments that every aiokafka client takes.

    Raises:
        ConfigurationError: A password or certificate file cannot be used.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "security_protocol": settings.security_protocol,
    }
    if "SSL" in settings.security_protocol:
        arguments["ssl_context"] = _ssl_context(settings)
    if "SASL" in settings.security_protocol:
        if settings.username is None:
            raise ConfigurationError("username", "is not set", expected=f"a user for {settings.security_protocol}")
        arguments["sasl_mechanism"] = settings.sasl_mechanism
        arguments["sasl_plain_username"] = settings.username
        arguments["sasl_plain_password"] = _password(settings)
    return arguments


def _password(settings: KafkaClientSettings) -> str:
    if settings.password is not None:
        return settings.password.get_secret_value()
    if settings.password_file is None:
        raise ConfigurationError("password", "is not set", expected="password or password_file")
    try:
        return settings.password_file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(settings.password_file, "cannot be read", got=error) from error


def _ssl_context(settings: KafkaClientSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except OSError as error:  # also ssl.SSLError; which of the files it was, OpenSSL does not say
        files = settings.certificate_file or settings.ca_file
        raise ConfigurationError(files, "is not usable", expected="PEM, and a key that fits", got=error) from error
    return context


def require_c_extension() -> None:
    """Refuse to run on aiokafka's pure Python record parser, which is 13 times slower.

    Raises:
        ConfigurationError: The extension is missing or switched off.
    """
    from aiokafka.record import default_records

    if "._crecords" not in default_records.DefaultRecordBatch.__module__:
        raise ConfigurationError(
            "aiokafka",
            "its C extension is not in use",
            expected="aiokafka.record._crecords",
            hint="install a binary wheel, and unset AIOKAFKA_NO_EXTENSIONS",
        )


async def opened(
    make: Callable[[], Client], where: str, error: type[SourceError] | type[SinkError], servers: str
) -> Client:
    """Make and start a client, trying again with growing, jittered pauses while no broker answers.

    A client that failed to start cannot be started again, so that each attempt makes a new one.

    Raises:
        SourceError, SinkError: As `error` says; no broker answered within about half a minute, or it refused us.
    """
    for pause_s in (*_PATIENCE_S, None):
        client: Any = make()
        try:
            await asyncio.wait_for(client.start(), _ATTEMPT_S)
        except (KafkaError, OSError, TimeoutError) as cause:
            await _closed(client)
            retriable = getattr(cause, "retriable", True)  # OSError and TimeoutError: the broker may come
            if pause_s is None or not retriable:
                raise error(
                    where,
                    "cannot connect",
                    expected=f"a broker at {servers}",
                    got=repr(cause),
                    hint="the client logged the reason before this",
                ) from cause
        else:
            return client  # type: ignore[no-any-return]  # aiokafka has no annotations
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # apart from others who lost the same broker
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _closed(client: Any) -> None:
    """Close a client in whatever state it is."""
    close: Callable[[], Awaitable[None]] = getattr(client, "stop", None) or client.close
    await close()


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a broker says of its cluster."""

    id: str
    topics: dict[str, int]
    """Topics that we may see, with how many partitions they have."""


async def describe_cluster(
    settings: KafkaClientSettings, where: str, error: type[SourceError] | type[SinkError]
) -> Cluster:
    """Ask for the cluster's id and its topics, without creating any."""
    admin = await _admin(settings, where, error)
    try:
        # All topics at once: to ask for one by name would create it where auto.create.topics.enable is on.
        topics = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
        return Cluster(str((await admin.describe_cluster())["cluster_id"]), topics)
    except (KafkaError, OSError) as cause:
        raise error(where, "cannot read the cluster's metadata", got=repr(cause)) from cause
    finally:
        await admin.close()


async def topic_settings(settings: KafkaClientSettings, topic: str, where: str) -> dict[str, str]:
    """The broker's configuration of a topic.

    Raises:
        ConfigurationError: We may not read it.
        SinkError: The broker did not answer.
    """
    admin = await _admin(settings, where, SinkError)
    try:
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    except (KafkaError, OSError) as cause:
        raise SinkError(where, f"cannot read the configuration of topic {topic!r}", got=repr(cause)) from cause
    finally:
        await admin.close()
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


async def _admin(
    settings: KafkaClientSettings, where: str, error: type[SourceError] | type[SinkError]
) -> AIOKafkaAdminClient:
    arguments = connection(settings)
    return await opened(lambda: AIOKafkaAdminClient(**arguments), where, error, settings.bootstrap_servers)


def consumer_arguments(settings: KafkaClientSettings) -> dict[str, Any]:
    """What every consumer of ours is made with; the client's own defaults are unsafe for us (T13)."""
    return {
        **connection(settings),
        "enable_auto_commit": False,
        "auto_offset_reset": "none",  # T8: any other value skips or repeats records where an offset is gone
        "isolation_level": READ_COMMITTED,
        "fetch_max_bytes": FETCH_MAX_BYTES,
        "max_partition_fetch_bytes": PARTITION_FETCH_BYTES,
        # No deserializers: an exception in one pins its partition for ever (T5).
    }


async def log_bounds(
    settings: KafkaClientSettings,
    partitions: Sequence[TopicPartition],
    where: str,
    error: type[SourceError] | type[SinkError],
) -> dict[TopicPartition, tuple[int, int]]:
    """First offset, and one past the last committed one, of each partition."""
    arguments = consumer_arguments(settings)
    consumer = await opened(lambda: AIOKafkaConsumer(**arguments), where, error, settings.bootstrap_servers)
    try:
        low, high = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        return {partition: (low[partition], high[partition]) for partition in partitions}
    except KafkaError as cause:
        raise error(where, "cannot read the bounds of the log", got=repr(cause)) from cause
    finally:
        await consumer.stop()


async def offsets_at(
    settings: KafkaClientSettings,
    partition: TopicPartition,
    times_ms: Sequence[int],
    where: str,
    error: type[SourceError] | type[SinkError],
) -> list[int | None]:
    """The first offset at or after each time, by the records' own timestamps; None where every record is earlier."""
    arguments = consumer_arguments(settings)
    consumer = await opened(lambda: AIOKafkaConsumer(**arguments), where, error, settings.bootstrap_servers)
    try:
        found = [(await consumer.offsets_for_times({partition: time_ms}))[partition] for time_ms in times_ms]
    except KafkaError as cause:
        raise error(where, f"cannot look up times in {partition}", got=repr(cause)) from cause
    finally:
        await consumer.stop()
    return [None if each is None else each.offset for each in found]


async def read_span(
    settings: KafkaClientSettings,
    partition: TopicPartition,
    start: int,
    end: int,
    where: str,
    error: type[SourceError] | type[SinkError],
) -> AsyncGenerator[list[ConsumerRecord[bytes, bytes]], None]:
    """Yield the committed records of [start, end) that are still there, with a client of its own.

    `end` must not lie beyond the end of what is committed. Iterate it to its end, or close it.
    """
    arguments = consumer_arguments(settings)
    consumer = await opened(lambda: AIOKafkaConsumer(**arguments), where, error, settings.bootstrap_servers)
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
        await consumer.stop()
