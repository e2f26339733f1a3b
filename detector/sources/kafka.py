"""Samples from Kafka topics: bytes and offsets, one shard per partition.

Given `KafkaSourceSettings`, it hands over `Records`. Partitions come from the consumer group, or from `partitions` in
the settings (static assignment, which no other replica can disturb). Every partition starts paused; the pipeline
restores its shard and says where to go on. What the manifest says is the truth, the group's committed offset is for
lag displays. The client's traps T1 to T13 are named where they are avoided; what both edges share is in
`detector.kafka`.

The model runs in a thread, so that heartbeats, which run on our event loop, are never held up for a session (T12).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias

import numpy as np
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata

from detector.clock import Clock, SystemClock
from detector.errors import DataLostError, SourceError
from detector.kafka.client import (
    close,
    consumer_arguments,
    describe_cluster,
    opened,
    read_span,
    require_c_extension,
)
from detector.records import NO_TIME, Header, Int64, Records, Shard
from detector.settings import KafkaSourceSettings
from detector.sources.base import Bounds, Revoked
from detector.sources.kafka_health import Health, watch_heartbeats
from detector.sources.kafka_partitions import fixed_partitions

_HEARTBEAT_MS = 3000
_REBALANCE_TIMEOUT_MS = 120_000  # how long a rebalance waits for a member that is still writing a checkpoint
_REVOKE_S = min(10.0, _REBALANCE_TIMEOUT_MS / 3000)  # one deadline for all that is done before partitions go
_MAX_POLL_INTERVAL_MS = 600_000  # how long backpressure may last before the group gives our partitions away
_COMMIT_S = 5.0
_STOP_S = 10.0
_ASK_S = 10.0  # for an answer, where the client has been silent for minutes
_GRACE_S = 0.05  # a fetch that ends with its timeout is not to be left for the next poll
_ANCHORS = 64  # fingerprints kept per shard: as many polls as may lie between reading and a checkpoint

_Batch: TypeAlias = Sequence[ConsumerRecord[bytes, bytes]]

_log = structlog.get_logger(__name__)


class KafkaSource:
    """The `Source` over a Kafka cluster."""

    def __init__(self, name: str, settings: KafkaSourceSettings, clock: Clock | None = None) -> None:
        self.name = name
        self._settings = settings
        self._where = f"kafka source {name!r}"
        self._consumer: AIOKafkaConsumer | None = None
        self._cluster_id = ""
        self._counts: dict[str, int] = {}
        """Partitions of each topic when we connected."""
        self._fetch: asyncio.Task[dict[TopicPartition, _Batch]] | None = None
        self._owned: dict[Shard, TopicPartition] = {}
        self._gained: list[Shard] | None = None
        self._revoked: Revoked | None = None
        self._stale: set[TopicPartition] = set()
        """Partitions of which the fetch that is done holds records from before they were resumed."""
        self._anchors: dict[Shard, dict[int, str]] = {}
        in_group = settings.partitions is None
        self._health = Health(settings.session_timeout_s, in_group=in_group, clock=clock or SystemClock())

    async def start(self) -> None:
        """Connect, check that the topics are there, and take or ask for partitions.

        Raises:
            ConfigurationError: The client's C extension is missing, or a secret's file.
            SourceError: No broker within half a minute, or a topic or partition is not there.
        """
        require_c_extension()
        cluster = await describe_cluster(self._settings, self._where, SourceError)
        self._cluster_id, self._counts = cluster.id, cluster.topics
        numbers = fixed_partitions(self._settings, cluster.topics, self._where)
        consumer = await opened(self._make_consumer, self._where, SourceError, self._settings)
        self._consumer = consumer
        self._health.beat()
        if numbers is not None:
            static = [TopicPartition(topic, number) for topic in numbers for number in numbers[topic]]
            consumer.assign(static)
            self.on_gained(static)
        else:
            watch_heartbeats(consumer, self._health.beat)
            # After the start, which would otherwise wait for the whole group to rebalance.
            consumer.subscribe(
                self._settings.topics, self._settings.pattern, listener=_Listener(self.on_gained, self.on_revoked)
            )

    def _make_consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **consumer_arguments(self._settings),
            group_id=self._settings.group,
            # One only: each more costs another round of joins (T7). A class of its own, because the client keeps what
            # was assigned on the class, and another source in this process must not see it.
            partition_assignment_strategy=[type("Sticky", (StickyPartitionAssignor,), {})],
            session_timeout_ms=round(self._settings.session_timeout_s * 1000),
            heartbeat_interval_ms=min(_HEARTBEAT_MS, round(self._settings.session_timeout_s * 1000 / 3)),
            rebalance_timeout_ms=_REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
        )

    # Who owns what

    @property
    def reclaim_s(self) -> float | None:
        """In a group, until its coordinator must have noticed which of two owners is lost."""
        return self._settings.session_timeout_s if self._settings.partitions is None else None

    def listen(self, revoked: Revoked) -> None:
        """The group's callback will await it; the group waits meanwhile, and heartbeats go on."""
        self._revoked = revoked

    def on_gained(self, partitions: Sequence[TopicPartition]) -> None:
        """Note and pause, nothing else: no heartbeat is sent while the group's callback runs (T3)."""
        consumer = self._client()
        for partition in partitions:
            consumer.pause(partition)
            consumer.seek(partition, 0)  # any position: without one the client looks for a committed offset and raises
            self._owned[self._shard(partition)] = partition
        self._health.beat()
        self._gained = [*(self._gained or []), *map(self._shard, partitions)]

    async def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Have partitions put in order that the group takes away; an eager rebalance takes all of them."""
        self._drop_fetched()
        shards = [shard for shard in map(self._shard, partitions) if shard in self._owned]
        # Some may have come and gone before anybody asked.
        self._gained = [shard for shard in self._gained or () if shard not in shards] or None
        if shards and self._revoked is not None:
            await self._revoked(shards, _REVOKE_S)
        for shard in shards:
            self._owned.pop(shard, None)
            self._anchors.pop(shard, None)
            self._health.rests(shard)

    def _drop_fetched(self) -> None:
        """Its records will be read again after the rebalance, by whoever has their partitions then."""
        if self._fetch is not None and self._fetch.done():
            _forget(self._fetch)
            self._fetch = None
            self._stale.clear()

    async def assigned(self) -> list[Shard] | None:
        """What the group's last words gave us; [] for a member without partitions."""
        gained, self._gained = self._gained, None
        return gained

    async def shards(self) -> list[Shard]:
        """In a group every partition of the topics, as the client's metadata say; else our own."""
        if self._settings.partitions is not None:
            return list(self._owned)
        consumer = self._client()
        return [
            Shard(self._cluster_id, topic, number)
            for topic in sorted(consumer.subscription())
            for number in sorted(consumer.partitions_for_topic(topic) or ())
        ]

    def _shard(self, partition: TopicPartition) -> Shard:
        return Shard(self._cluster_id, partition.topic, partition.partition)

    # Where to read

    async def bounds(self, shard: Shard, near: int | None = None) -> Bounds:
        """Where the partition's committed log begins and ends now."""
        consumer, partition = self._client(), _partition_of(shard)
        try:
            low = await consumer.beginning_offsets([partition])
            high = await consumer.end_offsets([partition])
        except KafkaError as cause:
            raise SourceError(shard, "cannot read the bounds of the log", got=repr(cause)) from cause
        return Bounds(low[partition], high[partition])

    async def anchor(self, shard: Shard, position: int) -> str | None:
        """CRC-32 and timestamp of the record right before `position`, remembered or read again."""
        known = self._anchors.get(shard, {}).get(position)
        if known is not None:
            return known
        bounds = await self.bounds(shard)
        if not bounds.low < position <= bounds.high:
            return None
        span = read_span(self._settings, _partition_of(shard), position - 1, position, self._where, SourceError)
        async with aclosing(span):
            async for batch in span:
                for record in batch:
                    return _fingerprint(record)
        return None  # compacted away, or a transaction's marker

    async def partitions(self, shard: Shard) -> int | None:
        """As we saw it when we connected, or more, once the client's metadata know of more; they never get fewer.

        With partitions that are assigned by hand those metadata know nothing until much later.
        """
        known = self._client().partitions_for_topic(shard.topic)
        return max(self._counts.get(shard.topic, 0), len(known or ())) or None

    async def resume(self, shard: Shard, position: int) -> None:
        """Read on from `position`; a shard that was lost meanwhile is left alone."""
        partition = self._owned.get(shard)
        if partition is None:
            return
        consumer = self._client()
        consumer.seek(partition, position)
        consumer.resume(partition)
        self._health.moved(shard)
        if self._fetch is not None and self._fetch.done():
            self._stale.add(partition)

    async def pause(self, shard: Shard) -> None:
        """The client throws away what it has buffered, and fetches it again after `resume`."""
        if (partition := self._owned.get(shard)) is not None:
            self._client().pause(partition)
            self._health.rests(shard)

    # Records

    async def poll(self, timeout_s: float) -> list[Records]:
        """Records that are there, or [] after `timeout_s`.

        The fetch is a task of its own, and outlives a poll that it has no answer for: to cancel it would leak the
        client's count of fetches (T4), and during a rebalance it waits longer than it was told to.

        Raises:
            DataLostError: A position is no longer on the broker, and the settings say that this is not to be accepted.
            SourceError: The broker refuses to let us read, or the client has fallen silent.
        """
        await self._check_health()
        if self._fetch is None:
            self._fetch = asyncio.create_task(self._get(timeout_s), name=f"fetch {self.name}")
        fetch = self._fetch
        await asyncio.wait({fetch}, timeout=timeout_s + _GRACE_S)
        if not fetch.done() or self._fetch is not fetch:
            return []
        if self._health.may_be_replaced:
            await asyncio.sleep(timeout_s)
            return []  # the records wait in their fetch, until the group says whether they are still ours
        self._fetch = None
        try:
            found = fetch.result()
        except OffsetOutOfRangeError as cause:
            await self._out_of_range(cause)
            return []
        except KafkaError as cause:
            raise SourceError(self._where, "cannot read", got=repr(cause)) from cause
        stale, self._stale = self._stale, set()
        return [self._records(partition, batch) for partition, batch in found.items() if partition not in stale]

    async def _get(self, timeout_s: float) -> dict[TopicPartition, _Batch]:
        # Bounded: unpacking is one synchronous step, and without a limit as long as all buffers together (T10).
        # A broker is not asked again while one of its partitions has unread records (T11): hence large polls.
        found: dict[TopicPartition, _Batch] = await self._client().getmany(
            timeout_ms=round(timeout_s * 1000), max_records=self._settings.poll_records
        )
        return found

    def _records(self, partition: TopicPartition, batch: _Batch) -> Records:
        shard = Shard(self._cluster_id, partition.topic, partition.partition)
        last = batch[-1]
        anchors = self._anchors.setdefault(shard, {})
        anchors[last.offset + 1] = _fingerprint(last)
        if len(anchors) > _ANCHORS:
            del anchors[next(iter(anchors))]
        self._health.moved(shard)
        return as_records(shard, batch)

    async def _out_of_range(self, cause: OffsetOutOfRangeError) -> None:
        """A position is gone (T8): refuse to go on, or have its shard restored anew, where policies decide."""
        ((partition, offset),) = cause.args[0].items()
        shard = self._shard(partition)
        bounds = await self.bounds(shard)
        what, hint = "the log ends before our position", "was the topic created anew, or cut? the next start says more"
        if offset < bounds.low:
            what = "records are gone that were not read yet"
            hint = (
                "keep them for longer than an outage; to go on from the first that is left set on_data_loss to continue"
            )
        expected = f"an offset from {bounds.low} to {bounds.high}"
        lost = DataLostError(shard, what, expected=expected, got=offset, hint=hint)
        if self._settings.on_data_loss == "fail":
            raise lost from cause
        _log.warning("shard is restored anew", shard=str(shard), error=str(lost))
        await self.on_revoked([partition])
        self.on_gained([partition])

    async def _check_health(self) -> None:
        """Notice what the client does not tell; building it anew is all that helps then.

        Raises:
            SourceError: It has fallen silent.
        """
        self._health.polled()
        if (silent_s := self._health.silent_s(is_owner=bool(self._owned))) is not None:
            got = f"none for {silent_s:.0f} s"
            raise SourceError(self._where, "the group is silent", expected="answers to heartbeats", got=got)
        for shard in self._health.still():
            try:
                bounds = await asyncio.wait_for(self.bounds(shard), _ASK_S)
                position = await asyncio.wait_for(self._client().position(_partition_of(shard)), _ASK_S)
            except TimeoutError as late:
                raise SourceError(shard, "gave nothing for long, and the broker does not say why") from late
            if position < bounds.high:
                expected = f"records from offset {position} to {bounds.high}"
                raise SourceError(shard, "reading is stuck", expected=expected, got="none for two session timeouts")
            self._health.moved(shard)  # there is nothing to read

    @property
    def exhausted(self) -> bool:
        """Never: a topic has no end."""
        return False

    # Progress and end

    async def commit(self, positions: dict[Shard, int]) -> None:
        """Commit offsets of shards that we still own, for lag displays; never raises and takes at most 5 s."""
        offsets = {
            self._owned[shard]: OffsetAndMetadata(position, "")
            for shard, position in positions.items()
            if shard in self._owned
        }
        if not offsets:
            return
        try:
            # The client would try again for ever (T6); to cancel this wait is safe, the commit itself is shielded.
            await asyncio.wait_for(self._client().commit(offsets), _COMMIT_S)
        except (KafkaError, TimeoutError) as cause:
            _log.warning("offsets not committed", source=self.name, error=repr(cause))

    async def stop(self) -> None:
        """Leave the group and disconnect, after the fetch in flight."""
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        fetch, self._fetch = self._fetch, None
        if fetch is not None:
            await asyncio.wait({fetch}, timeout=_STOP_S)  # T4: it ends by itself within its poll's timeout
        if went_wrong := await close(consumer, _STOP_S):
            _log.warning("the client did not stop cleanly", source=self.name, error=went_wrong)
        if fetch is not None:
            fetch.cancel()  # only where a rebalance never ended; the client that it would confuse is gone
            await asyncio.wait({fetch})
            _forget(fetch)

    def _client(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise SourceError(self._where, "is not connected", expected="start() before")
        return self._consumer


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no annotations
    """Passes the group's callbacks on. Exceptions in here would be swallowed: it does next to nothing."""

    def __init__(
        self,
        gained: Callable[[Sequence[TopicPartition]], None],
        revoked: Callable[[Sequence[TopicPartition]], Awaitable[None]],
    ) -> None:
        self._gained, self._revoked = gained, revoked

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Before a rebalance; also for a membership that was lost already."""
        await self._revoked(sorted(revoked))

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """After every rebalance, with all that we own now."""
        self._gained(sorted(assigned))


def _forget(fetch: asyncio.Task[dict[TopicPartition, _Batch]]) -> None:
    """Look at a finished task's exception, so that asyncio does not complain that nobody did."""
    if not fetch.cancelled():
        fetch.exception()


def _partition_of(shard: Shard) -> TopicPartition:
    return TopicPartition(shard.topic, shard.partition)


def _fingerprint(record: ConsumerRecord[bytes, bytes]) -> str:
    crc = zlib.crc32(record.value or b"", zlib.crc32(record.key or b""))
    return f"crc32:{crc:08x}@{record.timestamp}"


def as_records(shard: Shard, batch: _Batch) -> Records:
    """What the client read of one partition, at least one record, as a poll."""
    return Records(
        shard=shard,
        values=[record.value for record in batch],
        keys=[record.key for record in batch],
        positions=_offsets(batch),
        append_ns=_append_ns(batch),
        next_position=batch[-1].offset + 1,
        headers_of=lambda i: _headers(batch[i]),
    )


def _offsets(batch: _Batch) -> Int64:
    """Offsets of a batch; nearly always there is none missing, and then none needs to be looked at."""
    first, last = batch[0].offset, batch[-1].offset
    if last - first == len(batch) - 1:
        return np.arange(first, last + 1, dtype=np.int64)
    return np.array([record.offset for record in batch], np.int64)


def _append_ns(batch: _Batch) -> Int64:
    timestamps_ms = np.array([record.timestamp for record in batch], np.int64)
    return np.where(timestamps_ms < 0, NO_TIME, timestamps_ms * 1_000_000)


def _headers(record: ConsumerRecord[bytes, bytes]) -> Sequence[Header]:
    return tuple(record.headers)
