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
from collections.abc import Sequence
from contextlib import aclosing

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
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
from detector.records import Records, Shard
from detector.settings import KafkaSourceSettings
from detector.sources.base import Bounds, Revoked
from detector.sources.kafka.fetch import Fetch, Found
from detector.sources.kafka.group import REVOKE_S, Listener, membership
from detector.sources.kafka.health import Health, watch_heartbeats
from detector.sources.kafka.partitions import fixed_partitions
from detector.sources.kafka.records import Batch, as_records, fingerprint

_COMMIT_S = 5.0
_STOP_S = 10.0
_ASK_S = 10.0  # for an answer, where the client has been silent for minutes
_ANCHORS = 64  # fingerprints kept per shard: as many polls as may lie between reading and a checkpoint

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
        self._fetch = Fetch(self._get, f"fetch {name}")
        self._owned: dict[Shard, TopicPartition] = {}
        self._gained: list[Shard] | None = None
        self._revoked: Revoked | None = None
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
                self._settings.topics, self._settings.pattern, listener=Listener(self.on_gained, self.on_revoked)
            )

    def _make_consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(**consumer_arguments(self._settings), **membership(self._settings))

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
        self._fetch.drop()
        shards = [shard for shard in map(self._shard, partitions) if shard in self._owned]
        # Some may have come and gone before anybody asked.
        self._gained = [shard for shard in self._gained or () if shard not in shards] or None
        if shards and self._revoked is not None:
            await self._revoked(shards, REVOKE_S)
        for shard in shards:
            self._owned.pop(shard, None)
            self._anchors.pop(shard, None)
            self._health.rests(shard)

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
                    return fingerprint(record)
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
        self._fetch.moved(partition)

    async def pause(self, shard: Shard) -> None:
        """The client throws away what it has buffered, and fetches it again after `resume`."""
        if (partition := self._owned.get(shard)) is not None:
            self._client().pause(partition)
            self._health.rests(shard)

    # Records

    async def poll(self, timeout_s: float) -> list[Records]:
        """Records that are there, or [] after `timeout_s`.

        Raises:
            DataLostError: A position is no longer on the broker, and the settings say that this is not to be accepted.
            SourceError: The broker refuses to let us read, or the client has fallen silent.
        """
        await self._check_health()
        if not await self._fetch.wait(timeout_s):
            return []
        if self._health.may_be_replaced:
            await asyncio.sleep(timeout_s)
            return []  # the records wait in their fetch, until the group says whether they are still ours
        try:
            found = self._fetch.take()
        except OffsetOutOfRangeError as cause:
            await self._out_of_range(cause)
            return []
        except KafkaError as cause:
            raise SourceError(self._where, "cannot read", got=repr(cause)) from cause
        return [self._records(partition, batch) for partition, batch in found.items()]

    async def _get(self, timeout_s: float) -> Found:
        # Bounded: unpacking is one synchronous step, and without a limit as long as all buffers together (T10).
        # A broker is not asked again while one of its partitions has unread records (T11): hence large polls.
        found: Found = await self._client().getmany(
            timeout_ms=round(timeout_s * 1000), max_records=self._settings.poll_records
        )
        return found

    def _records(self, partition: TopicPartition, batch: Batch) -> Records:
        shard = Shard(self._cluster_id, partition.topic, partition.partition)
        last = batch[-1]
        anchors = self._anchors.setdefault(shard, {})
        anchors[last.offset + 1] = fingerprint(last)
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
        await self._fetch.settle(_STOP_S)
        if went_wrong := await close(consumer, _STOP_S):
            _log.warning("the client did not stop cleanly", source=self.name, error=went_wrong)
        await self._fetch.end()

    def _client(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise SourceError(self._where, "is not connected", expected="start() before")
        return self._consumer


def _partition_of(shard: Shard) -> TopicPartition:
    return TopicPartition(shard.topic, shard.partition)
