"""A topic as a log: append to a partition and know it kept, read any span of it exactly. The client is seen only here.

Both sides make their client when they first need it, and throw it away after any failure: a producer's sequence numbers
are in disorder then (T1), a consumer may wait for ever. A broker that does not answer fails the act within about half a
minute; whether to try again is the caller's to say.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError, OffsetOutOfRangeError
from aiokafka.structs import RecordMetadata

from detector.checkpoint.stores.kafka_ledger import Record
from detector.errors import CheckpointError, CorruptCheckpointError
from detector.kafka.client import close, consumer_arguments, opened, producer_arguments
from detector.settings import KafkaCheckpointSettings

_STALL_S = 15.0  # without progress, of a broker that answers in milliseconds
_STEP_MS = 500
_STOP_S = 5.0
_MAX_SEQUENCE = 1_500_000_000  # records of one producer; its sequence numbers go wrong at 2^31 (T2)

LogRecord: TypeAlias = ConsumerRecord[bytes, bytes]
_Result = TypeVar("_Result")


class LogReader:
    """Reads spans of a topic's partitions, one at a time, each within a `turn`."""

    def __init__(self, settings: KafkaCheckpointSettings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._failures = 0
        self._consumer: Any = None
        self._at: tuple[int, int] | None = None
        """Partition and offset that the consumer goes on from by itself."""

    @contextlib.asynccontextmanager
    async def turn(self, where: str) -> AsyncGenerator[None, None]:
        """Have the reader for oneself. Who waited behind a failure shares it, lest many wait one after the other.

        Raises:
            CheckpointError: The broker did not answer somebody before us.
        """
        failures = self._failures
        async with self._lock:
            if self._failures > failures:
                raise CheckpointError(where, "cannot read", got="no answer to whoever asked before")
            yield

    async def bounds(self, partition: int, where: str) -> tuple[int, int]:
        """First offset, and one past the last that is acknowledged."""
        at = TopicPartition(self._settings.topic, partition)

        async def asked(consumer: Any) -> tuple[int, int]:
            low, high = await consumer.beginning_offsets([at]), await consumer.end_offsets([at])
            return low[at], high[at]

        return await self._ask(asked, where, "cannot read the bounds of the log")

    async def fetch(
        self, partition: int, start: int, end: int, where: str, *, ahead: bool = False
    ) -> tuple[list[LogRecord], int]:
        """Some records from `start` on and below `end`, and the offset behind them; none where compaction removed them.

        One answer of the broker. With `ahead` the next is asked for at once, unless this one reaches `end`: reading all
        of [start, end) costs its bytes and little more.

        Raises:
            CorruptCheckpointError: They are damaged, or no longer in the log.
        """

        async def asked(consumer: Any) -> tuple[list[LogRecord], int]:
            return await self._fetch(consumer, partition, start, end, where, ahead)

        return await self._ask(asked, where, f"cannot read from offset {start}")

    async def _fetch(
        self, consumer: Any, partition: int, start: int, end: int, where: str, ahead: bool
    ) -> tuple[list[LogRecord], int]:
        at = TopicPartition(self._settings.topic, partition)
        if at not in consumer.assignment():
            consumer.assign([at])
        if self._at != (partition, start):
            consumer.seek(at, start)
        consumer.resume(at)
        for _ in range(round(_STALL_S * 1000 / _STEP_MS)):
            found = (await consumer.getmany(at, timeout_ms=_STEP_MS)).get(at, [])
            if found and (not ahead or found[-1].offset + 1 >= end):
                consumer.pause(at)  # before the client gets a chance to ask for more
            position = await consumer.position(at)
            if position > start:  # also where all records of an answer were compacted away
                self._at = partition, position
                return [record for record in found if record.offset < end], position
        self._at = None
        raise CheckpointError(where, f"no answer for {_STALL_S:g} s while reading", got=f"offset {start}")

    async def stop(self) -> None:
        """Disconnect."""
        consumer, self._consumer, self._at = self._consumer, None, None
        if consumer is not None:
            await close(consumer, _STOP_S)

    async def _ask(self, act: Callable[[Any], Awaitable[_Result]], where: str, what: str) -> _Result:
        try:
            return await act(await self._ready(where))
        except asyncio.CancelledError:
            self._at = None  # where the client stands now is anybody's guess
            raise
        except (CorruptRecordException, OffsetOutOfRangeError) as error:
            await self.stop()
            raise CorruptCheckpointError(where, what, got=repr(error)) from error
        except (KafkaError, OSError, CheckpointError) as error:
            self._failures += 1
            await self.stop()
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(where, what, got=repr(error)) from error

    async def _ready(self, where: str) -> Any:
        if self._consumer is None:
            arguments = consumer_arguments(self._settings) | {
                "isolation_level": "read_uncommitted",  # we write without transactions; nobody else's may hide us
                "request_timeout_ms": round(_STALL_S * 1000),
            }
            self._consumer = await opened(
                lambda: AIOKafkaConsumer(**arguments), where, CheckpointError, self._settings, patience_s=0
            )
        return self._consumer


class LogWriter:
    """Appends to a topic's partitions, with one idempotent producer that waits for all replicas."""

    def __init__(self, settings: KafkaCheckpointSettings, max_bytes: int) -> None:
        self._settings, self._max_bytes = settings, max_bytes
        self._producer: Any = None
        self._opening = asyncio.Lock()
        self._sent = 0

    async def append(self, partition: int, records: AsyncGenerator[Record, None], where: str, what: str) -> list[int]:
        """Append in order; returns the offsets once all replicas have them. At most two batches wait in memory.

        Raises:
            CheckpointError: Some were not acknowledged; they may be in the log nevertheless.
        """
        producer = await self._ready(where)
        pending: list[asyncio.Future[RecordMetadata]] = []
        offsets: list[int] = []
        try:
            async with contextlib.aclosing(records):
                async for record in records:
                    pending.append(await self._send(producer, partition, record))
                    while pending and pending[0].done():
                        offsets.append(pending.pop(0).result().offset)
            for future in pending:
                await asyncio.wait([future], timeout=_STALL_S + _STOP_S)  # the client itself gives up before
                if not future.done():
                    raise TimeoutError("no acknowledgement")
                offsets.append(future.result().offset)
        except (KafkaError, OSError, TimeoutError) as error:
            await self._drop(producer)
            raise CheckpointError(
                where, what, expected="the acknowledgement of all replicas", got=repr(error)
            ) from error
        return offsets

    async def _send(self, producer: Any, partition: int, record: Record) -> asyncio.Future[RecordMetadata]:
        self._sent += 1
        sent: asyncio.Future[RecordMetadata] = await producer.send(
            self._settings.topic, record.value, record.key, partition, headers=record.headers
        )
        return sent

    async def stop(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            await self._drop(self._producer)

    async def _ready(self, where: str) -> Any:
        async with self._opening:
            if self._sent >= _MAX_SEQUENCE:
                await self.stop()
            if self._producer is None:
                arguments = producer_arguments(self._settings) | {
                    "linger_ms": 0,
                    "max_batch_size": self._max_bytes,
                    "max_request_size": self._max_bytes,
                    "request_timeout_ms": round(_STALL_S * 1000),
                }
                self._sent = 0
                self._producer = await opened(
                    lambda: AIOKafkaProducer(**arguments), where, CheckpointError, self._settings, patience_s=0
                )
            return self._producer

    async def _drop(self, producer: Any) -> None:
        """Throw a producer away; another act may have done it before."""
        if self._producer is producer:
            self._producer = None
        await close(producer, _STOP_S)
