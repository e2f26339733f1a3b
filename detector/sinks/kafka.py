"""Results as records of a Kafka topic.

Given `KafkaSinkSettings`. Key = stream, partition = input partition modulo the topic's partitions, so that one tail of
one partition holds all alerts of a shard; do not change the number of partitions while alerts must not be repeated.
The producer is idempotent and waits for all replicas. After any failure the sink stays failed: a failed batch leaves
the producer's sequence numbers in disorder, and whose records were in it nobody else would learn. All that was not
acknowledged is sent again by the replay, once everything is built anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from itertools import groupby, repeat
from typing import NoReturn, TypeAlias

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from detector.errors import ConfigurationError, SinkError
from detector.kafka.client import (
    BATCH_BYTES,
    close,
    describe_cluster,
    log_bounds,
    opened,
    producer_arguments,
    read_span,
    require_c_extension,
    topic_settings,
)
from detector.records import Alert, Header, Scores, Shard
from detector.settings import KafkaSinkSettings
from detector.sinks.base import DeadLetter, Tail
from detector.sinks.encode import alert_id, encode_alert, encode_scores

MAX_IN_FLIGHT = 10_000  # records that may wait for their acknowledgement; more make a delivery wait
MAX_SEQUENCE = 1_500_000_000  # records of one producer; its sequence numbers go wrong at 2^31 (T2)

_log = structlog.get_logger(__name__)

_STOP_S = 10.0
_ABANDON_S = 1.0  # for a producer from which nothing more is expected
_SILENCE_S = 120.0  # without any acknowledgement, while some are due
_RECORD_BYTES = 512  # what a record and its batch need at most besides key, value and headers
_HEADER_BYTES = 10  # and a header besides name and value

_Record: TypeAlias = tuple[bytes | None, bytes | None, list[Header]]
"""Key, value, headers."""

_Sent: TypeAlias = "asyncio.Future[RecordMetadata]"

_NO_HEADERS: list[Header] = []


class KafkaSink:
    """The `Sink` over a Kafka topic."""

    guarantee = (
        "at least once: acknowledged by all replicas before the checkpoint; "
        "alerts found on the topic after a restart are not repeated"
    )

    def __init__(self, name: str, settings: KafkaSinkSettings) -> None:
        self.name = name
        self._settings = settings
        self._topic = settings.topic
        self._where = f"kafka sink {name!r}"
        self._partitions = 0
        self._max_bytes = 0
        self._producer: AIOKafkaProducer | None = None
        self._renewing = asyncio.Lock()
        self._sent = 0
        """Records of this producer."""
        self._in_flight: dict[_Sent, int] = {}
        """What is not acknowledged yet, with how many records each stands for."""
        self._waiting = 0
        """Their sum."""
        self._failure: BaseException | None = None
        """The first; for good."""
        self._ends: dict[int, int] = {}
        """Per partition the end of the log when we started."""
        self._acknowledged: dict[Shard, int] = {}
        """Per shard one past its last acknowledged record."""

    async def start(self) -> None:
        """Connect, and check that the topic keeps what it is given.

        Raises:
            ConfigurationError: The topic's cleanup.policy is not delete, or we may not read it; a secret's file.
            SinkError: No broker within half a minute, or no such topic.
        """
        require_c_extension()
        cluster = await describe_cluster(self._settings, self._where, SinkError)
        if self._topic not in cluster.topics:
            hint = "create it with cleanup.policy=delete, or allow us to describe it"
            raise SinkError(self._where, f"topic {self._topic!r} is not there", hint=hint)
        self._partitions = cluster.topics[self._topic]
        await self._check_topic()
        partitions = [TopicPartition(self._topic, number) for number in range(self._partitions)]
        bounds = await log_bounds(self._settings, partitions, self._where, SinkError)
        self._ends = {partition.partition: high for partition, (_, high) in bounds.items()}
        await self._connect()

    async def _check_topic(self) -> None:
        of_topic = await topic_settings(self._settings, self._topic, self._where)
        policy = of_topic.get("cleanup.policy")
        if policy != "delete":
            raise ConfigurationError(
                self._where,
                f"cleanup.policy of topic {self._topic!r}",
                expected="delete",
                got=policy,
                hint="compaction would keep only the last record of each stream",
            )
        self._max_bytes = int(of_topic["max.message.bytes"])

    # The producer

    async def _connect(self) -> AIOKafkaProducer:
        self._producer = await opened(self._make_producer, self._where, SinkError, self._settings)
        self._sent = 0
        return self._producer

    def _make_producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **producer_arguments(self._settings),
            linger_ms=self._settings.linger_ms,
            max_request_size=max(self._max_bytes, BATCH_BYTES),
        )

    async def _ready(self) -> AIOKafkaProducer:
        """A producer that may be used; waits while too much is in flight."""
        while self._waiting >= MAX_IN_FLIGHT and self._failure is None:
            await self._still_due(set(self._in_flight), asyncio.FIRST_COMPLETED)
        if self._failure is not None:
            await self._give_up(self._failure)
        if self._producer is None or self._sent >= MAX_SEQUENCE:
            return await self._renew()
        return self._producer

    async def _renew(self) -> AIOKafkaProducer:
        async with self._renewing:
            if self._producer is not None and self._sent < MAX_SEQUENCE:
                return self._producer  # another delivery was faster
            if self._producer is not None:
                await self.flush()
                await self._disconnect(_STOP_S)  # T2
            return await self._connect()

    async def _give_up(self, failure: BaseException) -> NoReturn:
        """Throw the producer away and say why, to everybody who asks from now on (T1)."""
        self._failure = self._failure or failure
        await self._disconnect(_ABANDON_S)
        raise SinkError(
            self._where, f"records for topic {self._topic!r} were not acknowledged", got=repr(failure)
        ) from failure

    async def _disconnect(self, within_s: float) -> None:
        producer, self._producer = self._producer, None
        self._in_flight.clear()
        self._waiting = 0
        if producer is None:
            return
        if went_wrong := await close(producer, within_s):
            _log.warning("the producer did not stop cleanly", sink=self.name, error=went_wrong)

    def _watch(self, future: _Sent, shard: Shard, count: int) -> None:
        self._sent += count
        self._waiting += count
        self._in_flight[future] = count
        future.add_done_callback(partial(self._settled, shard))

    def _settled(self, shard: Shard, future: _Sent) -> None:
        """Every single future is looked at: the client reports success of a flush whatever became of them (T1)."""
        failure = asyncio.CancelledError() if future.cancelled() else future.exception()
        count = self._in_flight.pop(future, None)
        if count is None:
            return  # of a producer that was given up
        self._waiting -= count
        if failure is not None:
            self._failure = self._failure or failure
        else:
            self._acknowledged[shard] = max(self._acknowledged.get(shard, 0), future.result().offset + count)

    # Deliveries

    async def deliver_alerts(self, shard: Shard, alerts: Sequence[Alert]) -> None:
        """Hand alerts to the producer, in order; they linger to share a request."""
        for alert in alerts:
            producer = await self._ready()
            try:
                future = await producer.send(
                    self._topic, encode_alert(alert), alert.stream.encode(), self._partition(shard)
                )
            except KafkaError as failure:
                await self._give_up(failure)
            self._watch(future, shard, 1)

    async def deliver_scores(self, shard: Shard, scores: Sequence[Scores]) -> None:
        """Hand over scores, in whole batches: one by one they would cost four times as much."""
        for each in scores:
            keys = [stream.encode() for stream in each.streams]
            await self._send_batches(
                shard, list(zip(keys, encode_scores(shard, each), repeat(_NO_HEADERS), strict=False))
            )

    async def deliver_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Hand over dead letters: original key, value and headers, and ours beside them."""
        for shard, of_shard in groupby(letters, lambda letter: letter.shard):
            await self._send_batches(shard, [_letter_record(letter, self._max_bytes) for letter in of_shard])

    async def _send_batches(self, shard: Shard, records: list[_Record]) -> None:
        while records:
            producer = await self._ready()
            batch, count = _fill(producer.create_batch(), records)
            try:
                future = await producer.send_batch(batch, self._topic, partition=self._partition(shard))
            except KafkaError as failure:
                await self._give_up(failure)
            self._watch(future, shard, count)
            records = records[count:]

    def _partition(self, shard: Shard) -> int:
        return shard.partition % self._partitions

    async def flush(self) -> None:
        """Return when all that was handed over before is acknowledged."""
        due = set(self._in_flight)
        while due and self._failure is None:
            due = await self._still_due(due, asyncio.ALL_COMPLETED)
        if self._failure is not None:
            await self._give_up(self._failure)

    async def _still_due(self, due: set[_Sent], until: str) -> set[_Sent]:
        """Wait for acknowledgements, the first or all; returns those that are still due after a while.

        The client gives a batch up after its request timeout, 40 s; one that does neither has gone bad.
        """
        done, due = await asyncio.wait(due, timeout=_SILENCE_S, return_when=until)
        if not done:
            self._failure = self._failure or TimeoutError(f"no answer for {_SILENCE_S:g} s")
        return due

    # What stands on the topic

    async def alert_mark(self, shard: Shard) -> int:
        """One past the shard's last acknowledged alert; before there is one, the end of the log when we started."""
        return self._acknowledged.get(shard, self._ends.get(self._partition(shard), 0))

    async def alert_tail(self, shard: Shard, mark: int) -> Tail:
        """Read the ids of the shard's alerts from `mark` to the end as it is now.

        Retention may have removed what stood at `mark`, or the topic was created anew: then all that is left is read.
        """
        partition = TopicPartition(self._topic, self._partition(shard))
        low, high = (await log_bounds(self._settings, [partition], self._where, SinkError))[partition]
        start = mark if low <= mark <= high else low
        ids: set[str] = set()
        async with aclosing(read_span(self._settings, partition, start, high, self._where, SinkError)) as batches:
            async for batch in batches:
                ids.update(found for record in batch if (found := alert_id(record.value, shard)) is not None)
        return Tail(frozenset(ids), high)

    async def stop(self) -> None:
        """Flush and disconnect, within 10 s."""
        try:
            if self._producer is not None:
                await asyncio.wait_for(self.flush(), _STOP_S)
        except TimeoutError as error:
            waiting = f"{self._waiting} records"
            raise SinkError(self._where, "did not acknowledge before the stop", got=waiting) from error
        finally:
            await self._disconnect(_ABANDON_S)


def _fill(batch: BatchBuilder, records: Sequence[_Record]) -> tuple[BatchBuilder, int]:
    """Append what fits, at least one; says how many."""
    count = 0
    for key, value, headers in records:
        if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
            break
        count += 1
    batch.close()
    return batch, count


def _letter_record(letter: DeadLetter, max_bytes: int) -> _Record:
    """A dead letter as a record; a value that the topic would refuse as too large is cut, and a header says so."""
    headers: list[Header] = [
        *letter.headers,
        ("tidewarden-reason", letter.reason.label.encode()),
        ("tidewarden-detail", letter.detail.encode(errors="replace")),
        ("tidewarden-topic", letter.shard.topic.encode()),
        ("tidewarden-partition", str(letter.shard.partition).encode()),
        ("tidewarden-offset", str(letter.position).encode()),
    ]
    taken = len(letter.key or b"") + sum(len(name.encode()) + len(value) + _HEADER_BYTES for name, value in headers)
    room = max(0, max_bytes - _RECORD_BYTES - taken)
    if letter.value is None or len(letter.value) <= room:
        return letter.key, letter.value, headers
    return letter.key, letter.value[:room], [*headers, ("tidewarden-cut-from-bytes", str(len(letter.value)).encode())]
