"""Small async helpers for tests and benchmarks: make a topic, fill it quickly, read it back. Pure aiokafka."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.errors import KafkaError, for_code

_WAIT_S = 30.0
_BATCH_BYTES = 65_536


def new_name(prefix: str = "test") -> str:
    """A topic or group name that nobody else uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


async def is_up(address: str) -> bool:
    """Whether the broker answers a request for its metadata."""
    host, _, port = address.split(",")[0].rpartition(":")
    try:  # spares the client's error messages while nothing listens yet
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
    except OSError:
        return False
    admin = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=2000)
    try:
        await admin.start()
        return bool((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError):
        return False
    finally:
        await admin.close()


async def create_topic(
    address: str, partitions: int = 1, configs: Mapping[str, str] | None = None, *, name: str | None = None
) -> str:
    """Create a topic, wait until every partition has a leader, and return its name."""
    topic = name or new_name()
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        response = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=dict(configs or {}))])
        for _, code, *rest in response.topic_errors:
            if code:
                raise for_code(code)(*rest)
        async with asyncio.timeout(_WAIT_S):
            while not _has_leaders(await admin.describe_topics(), topic, partitions):
                await asyncio.sleep(0.02)
    finally:
        await admin.close()
    return topic


def _has_leaders(topics: Sequence[Mapping], topic: str, partitions: int) -> bool:
    mine = [p for t in topics if t["topic"] == topic for p in t["partitions"]]
    return len(mine) == partitions and all(p["leader"] >= 0 for p in mine)


async def partition_count(address: str, topic: str) -> int:
    """How many partitions a topic has."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        return sum(len(t["partitions"]) for t in await admin.describe_topics() if t["topic"] == topic)
    finally:
        await admin.close()


async def add_partitions(address: str, topic: str, total: int) -> None:
    """Give a topic more partitions, so many in all."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(total)})
        async with asyncio.timeout(_WAIT_S):
            while not _has_leaders(await admin.describe_topics(), topic, total):
                await asyncio.sleep(0.02)
    finally:
        await admin.close()


async def delete_topic(address: str, topic: str) -> None:
    """Delete a topic and wait until the broker no longer lists it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.delete_topics([topic])
        async with asyncio.timeout(_WAIT_S):
            while topic in await admin.list_topics():
                await asyncio.sleep(0.02)
    finally:
        await admin.close()


async def delete_records(address: str, topic: str, partition: int, before: int) -> None:
    """Delete a partition's records below `before`, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


async def produce(
    address: str,
    topic: str,
    values: Sequence[bytes | None],
    *,
    partition: int = 0,
    keys: Sequence[bytes | None] | None = None,
    timestamps_ms: Sequence[int] | None = None,
    headers: Sequence[tuple[str, bytes]] = (),
) -> None:
    """Append records to one partition, in order, about 300,000 a second."""
    producer = AIOKafkaProducer(
        bootstrap_servers=address, acks="all", max_batch_size=_BATCH_BYTES, max_request_size=8 << 20
    )
    await producer.start()
    try:
        sent, batch = [], producer.create_batch()
        for i, value in enumerate(values):
            record = {
                "key": keys[i] if keys else None,
                "value": value,
                "timestamp": timestamps_ms[i] if timestamps_ms else None,
                "headers": list(headers),
            }
            if batch.append(**record) is None:
                batch.close()
                sent.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
                batch.append(**record)
        batch.close()
        sent.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.wait_for(asyncio.gather(*sent), _WAIT_S)
    finally:
        await producer.stop()


async def read_all(
    address: str, topic: str, *, isolation_level: str = "read_committed", wait_s: float = _WAIT_S
) -> dict[int, list[ConsumerRecord]]:
    """Every record that stands in the topic now, by partition, in offset order."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=address,
        isolation_level=isolation_level,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        async with asyncio.timeout(wait_s):
            parts = [TopicPartition(topic, p) for p in range(await partition_count(address, topic))]
            consumer.assign(parts)
            ends = await consumer.end_offsets(parts)
            await consumer.seek_to_beginning(*parts)
            found: dict[int, list[ConsumerRecord]] = {tp.partition: [] for tp in parts}
            while any([await consumer.position(tp) < ends[tp] for tp in parts]):
                for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                    found[tp.partition] += [r for r in records if r.offset < ends[tp]]
            return found
    finally:
        await consumer.stop()
