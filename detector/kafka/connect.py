"""How a Kafka broker is reached: with which arguments, how long it is waited for, and why it refuses us.

Given the `KafkaClientSettings` of an edge. The traps T1 to T13 of the client, found by measurement, are named at the
line that avoids each; the event loop is the default one, since uvloop's closed transports raise what the client does
not catch (T9).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
import ssl
from collections.abc import Callable, Coroutine
from itertools import chain, repeat
from typing import Any, TypeAlias, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from detector.errors import CheckpointError, ConfigurationError, SinkError, SourceError
from detector.kafka.properties import check_properties
from detector.kafka.security import security, sign_on_refusal, tls_refusal
from detector.kafka.token import TokenCommand
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


AbstractTokenProvider.register(TokenCommand)  # the client takes nothing else


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
        if settings.token_command is not None:
            await _reason(where, settings)  # the client takes a refused token for an accepted one
        client: Any = make()
        try:
            await asyncio.wait_for(client.start(), _ATTEMPT_S)
        except (KafkaError, OSError, TimeoutError) as cause:
            await close(client)
            retriable = getattr(cause, "retriable", True)  # OSError and TimeoutError: the broker may come
            reason = await _reason(where, settings) or repr(cause)
            if loop.time() + pause_s > give_up_s or not retriable:
                hint = f"security_protocol is {settings.security_protocol}"
                raise error(
                    where, "cannot connect", expected=f"a broker at {servers}", got=reason, hint=hint
                ) from cause
        else:
            _reached.add(servers)
            return client  # type: ignore[no-any-return]  # aiokafka has no annotations
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # apart from others who lost the same broker
    raise AssertionError("unreachable: the last attempt returns or raises")


async def close(client: Any, within_s: float = _CLOSE_S) -> str | None:
    """Close a client in whatever state it is; returns what went wrong, if anything did.

    T14: where its broker is away a consumer's own `stop` may end as if we had been cancelled, and leave connections
    open. Hence it gets a task of its own, whatever it raises is looked at, and what it left is closed.
    """
    stop: Callable[[], Coroutine[Any, Any, None]] = getattr(client, "stop", None) or client.close
    stopping = asyncio.create_task(stop(), name="close a Kafka client")
    done, _ = await asyncio.wait({stopping}, timeout=within_s)
    if done and not stopping.cancelled() and stopping.exception() is None:
        return None
    went_wrong = f"not done within {within_s:g} s"
    if done:
        went_wrong = "it gave up" if stopping.cancelled() else repr(stopping.exception())
    stopping.cancel()
    connections = getattr(client, "client", None) or client._client  # only the producer shows it
    await asyncio.wait({stopping, asyncio.create_task(connections.close())}, timeout=within_s)
    return went_wrong


async def _reason(where: str, settings: KafkaClientSettings) -> str | None:
    """Why there is no connection: the client only logs it, so one is made by hand. None where it works now.

    Raises:
        ConfigurationError: Because somebody is not trusted.
    """
    reason = None
    for host, port, _ in collect_hosts(settings.bootstrap_servers, randomize=False):
        try:
            if not await _brokers_known(host, port, settings):
                raise sign_on_refusal(where, settings, SaslAuthenticationFailed("the token is not accepted"))
        except (KafkaError, OSError, TimeoutError) as failure:
            cause = _root(failure)
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
                raise tls_refusal(where, settings, cause) from cause
            if isinstance(cause, _REFUSALS):
                raise sign_on_refusal(where, settings, cause) from cause
            reason = str(cause) or type(cause).__name__
    return reason


async def _brokers_known(host: str, port: int, settings: KafkaClientSettings) -> int:
    """How many brokers this one tells us of; none where it refuses our token, which the client does not notice."""
    async with asyncio.timeout(_PROBE_S):
        connection = await create_conn(host, port, client_id=settings.client_id, **security(settings))
        try:
            return len((await connection.send(MetadataRequest([]))).brokers)
        finally:
            await asyncio.wait({connection.close()}, timeout=1.0)


def _root(failure: BaseException) -> BaseException:
    while failure.__cause__ is not None:
        failure = failure.__cause__
    return failure
