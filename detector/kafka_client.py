"""What Kafka sources and sinks have in common: how a broker is reached, asked about itself, and read once.

Given the `KafkaClientSettings` of an edge. aiokafka is imported here and in the two edges only. The traps T1 to T13 of
that client, found by measurement, are named at the line that avoids each; the event loop is the default one, since
uvloop's closed transports raise what the client does not catch (T9).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import random
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, TypeAlias, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    IllegalSaslStateError,
    KafkaError,
    NoError,
    SaslAuthenticationFailed,
    TopicAlreadyExistsError,
    UnsupportedSaslMechanismError,
    for_code,
)

from detector.errors import CheckpointError, ConfigurationError, SinkError, SourceError
from detector.kafka_properties import check_properties
from detector.kafka_security import security, sign_on_refusal, tls_refusal
from detector.settings import KafkaClientSettings, KafkaSourceSettings

FETCH_MAX_BYTES = 32 << 20  # one answer of a broker; bounds what the client buffers
PARTITION_FETCH_BYTES = 1 << 20  # of it per partition; a single larger record still comes
BATCH_BYTES = 131_072  # of a producer, for one partition
READ_COMMITTED = "read_committed"  # aborted transactions of others are not samples, and not alerts

_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # between attempts to reach a broker; the last again and again
_FIRST_S = 30.0  # how long attempts begin, for a broker that never answered
_AGAIN_S = 120.0  # and for one that did: a restart, an upgrade, a change of leaders
_ATTEMPT_S = 15.0  # for one attempt; a broker that answers needs 20 ms
_PROBE_S = 5.0
_CLOSE_S = 5.0
_STALL_S = 15.0  # without progress while reading a span
_STEP_MS = 500
_STEP_RECORDS = 4000

Client = TypeVar("Client")
EdgeError: TypeAlias = SourceError | SinkError | CheckpointError
"""Whose connection it is that failed."""

_READERS = (AIOKafkaAdminClient, AIOKafkaConsumer)
_REFUSALS = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
_reached: set[str] = set()
"""The `bootstrap_servers` that have answered this process."""


def connection(settings: KafkaClientSettings) -> dict[str, Any]:
    """The keyword arguments that every aiokafka client takes.

    Raises:
        ConfigurationError: A password or certificate file, or a property in `client`, cannot be used.
    """
    return {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        **security(settings),
        **_properties(settings, AIOKafkaAdminClient),
    }


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
        **_properties(settings, AIOKafkaConsumer),
    }


def producer_arguments(settings: KafkaClientSettings) -> dict[str, Any]:
    """What every producer of ours is made with (T13: the client's default is one replica, and no idempotence)."""
    return {
        **connection(settings),
        "acks": "all",
        "enable_idempotence": True,
        "max_batch_size": BATCH_BYTES,
        **_properties(settings, AIOKafkaProducer),
    }


def _properties(settings: KafkaClientSettings, client: type) -> dict[str, Any]:
    """Those of the properties in the settings that this client takes; none may be unknown to all that we use."""
    used = _READERS if isinstance(settings, KafkaSourceSettings) else (*_READERS, AIOKafkaProducer)
    defaults = {name: default for each in used for name, default in _defaults(each).items()}
    check_properties(settings.client, defaults)
    return {name: value for name, value in settings.client.items() if name in _defaults(client)}


@functools.cache
def _defaults(client: type) -> dict[str, object]:
    """The keyword arguments of a client, with their defaults."""
    parameters = inspect.signature(client).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is not each.VAR_POSITIONAL}


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
    make: Callable[[], Client],
    where: str,
    error: type[EdgeError],
    settings: KafkaClientSettings,
    patience_s: float | None = None,
) -> Client:
    """Make and start a client, trying again with growing, jittered pauses while no broker answers.

    A client that failed to start cannot be started again, so that each attempt makes a new one. A broker that this
    process has never reached may be misspelt, one that it has may be restarting: the latter is waited for longer,
    unless `patience_s` says how long; 0 is one attempt.

    Raises:
        ConfigurationError: The broker answered and refused us, or we it; at once, for that does not pass.
        SourceError, SinkError: As `error` says; no broker answered in time.
    """
    loop, servers = asyncio.get_running_loop(), settings.bootstrap_servers
    if patience_s is None:
        patience_s = _AGAIN_S if servers in _reached else _FIRST_S
    give_up_s = loop.time() + patience_s
    for pause_s in chain(_PAUSES_S, repeat(_PAUSES_S[-1])):
        client: Any = make()
        try:
            await asyncio.wait_for(client.start(), _ATTEMPT_S)
        except (KafkaError, OSError, TimeoutError) as cause:
            await _closed(client)
            retriable = getattr(cause, "retriable", True)  # OSError and TimeoutError: the broker may come
            reason = await _reason(where, settings) or repr(cause)
            if loop.time() + pause_s > give_up_s or not retriable:
                raise error(where, "cannot connect", expected=f"a broker at {servers}", got=reason) from cause
        else:
            _reached.add(servers)
            return client  # type: ignore[no-any-return]  # aiokafka has no annotations
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # apart from others who lost the same broker
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _closed(client: Any) -> None:
    """Close a client in whatever state it is; a connection whose other end is silent is left to the collector."""
    close: Callable[[], Awaitable[None]] = getattr(client, "stop", None) or client.close
    with contextlib.suppress(KafkaError, TimeoutError):
        await asyncio.wait_for(close(), _CLOSE_S)


async def _reason(where: str, settings: KafkaClientSettings) -> str | None:
    """Why there is no connection: the client only logs it, so one is made by hand. None where it works now.

    Raises:
        ConfigurationError: Because somebody is not trusted.
    """
    reason = None
    for host, port, _ in collect_hosts(settings.bootstrap_servers, randomize=False):
        try:
            connection = create_conn(host, port, client_id=settings.client_id, **security(settings))
            (await asyncio.wait_for(connection, _PROBE_S)).close()
        except (KafkaError, OSError, TimeoutError) as failure:
            cause = _root(failure)
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
                raise tls_refusal(where, settings, cause) from cause
            if isinstance(cause, _REFUSALS):
                raise sign_on_refusal(where, settings, cause) from cause
            reason = str(cause) or type(cause).__name__
    return reason


def _root(failure: BaseException) -> BaseException:
    while failure.__cause__ is not None:
        failure = failure.__cause__
    return failure


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
        await admin.close()


async def create_topic(
    settings: KafkaClientSettings,
    topic: str,
    partitions: int,
    replication_factor: int,
    of_topic: Mapping[str, str],
    where: str,
    error: type[EdgeError],
) -> str | None:
    """Create a topic; returns None where it is there now, or why it was refused.

    Args:
        replication_factor: -1 takes the broker's default.
        of_topic: The topic's own configuration.
    """
    admin = await _admin(settings, where, error)
    try:
        wanted = NewTopic(topic, partitions, replication_factor, topic_configs=dict(of_topic))
        ((_, code, *message),) = (await admin.create_topics([wanted])).topic_errors
    except (KafkaError, OSError) as cause:
        raise error(where, f"cannot create topic {topic!r}", got=repr(cause)) from cause
    finally:
        await admin.close()
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
        await consumer.stop()


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
        await consumer.stop()
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
        await consumer.stop()
