"""What the state topic promises besides: neighbours, compaction, indices, and what is refused, on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from detector.checkpoint.base import fence_name, manifest_name, segment_name
from detector.checkpoint.stores import kafka as store_kafka
from detector.checkpoint.stores.kafka import KafkaStore
from detector.checkpoint.stores.kafka_log import LogReader
from detector.checkpoint.stores.kafka_topic import PARTITIONS
from detector.errors import CheckpointError, ConfigurationError, CorruptCheckpointError
from detector.records import Shard
from detector.settings import KafkaCheckpointSettings
from tests.contracts import store_laws as laws
from tests.kafka import topics
from tests.stores import closing, in_topic

pytestmark = pytest.mark.system

MINE, NEIGHBOUR = Shard("cluster", "sensors", 0), Shard("cluster", "valves", 0)
_CLEANED_S = 120.0  # the broker's cleaner looks every 15 s


@pytest.fixture
async def opened() -> AsyncIterator[list[KafkaStore]]:
    """Stores to stop in the end."""
    stores: list[KafkaStore] = []
    yield stores
    for store in stores:
        await store.stop()


async def open_store(opened: list[KafkaStore], address: str, topic: str, **more: object) -> KafkaStore:
    """One more instance."""
    store = KafkaStore(KafkaCheckpointSettings(type="kafka", bootstrap_servers=address, topic=topic, **more))
    opened.append(store)
    await store.start()
    return store


async def state_topic(address: str, partitions: int = 1, **of_topic: str) -> str:
    """A compacted topic."""
    configs = {"cleanup.policy": "compact"} | {name.replace("_", "."): value for name, value in of_topic.items()}
    return await topics.create_topic(address, partitions, configs, name=topics.new_name("state"))


@dataclass
class Received:
    """What came over the network."""

    bytes: int = 0


@contextlib.contextmanager
def received() -> Iterator[Received]:
    """Count every byte that this process reads from a connection."""
    count, plain = Received(), asyncio.StreamReader.readexactly

    async def counting(self: asyncio.StreamReader, size: int) -> bytes:
        data = await plain(self, size)
        count.bytes += len(data)
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.StreamReader, "readexactly", counting)
        yield count


async def checkpoints(store: KafkaStore, shard: Shard, fence: int, count: int, size: int) -> dict[str, bytes]:
    """Epochs as the protocol writes them: rows, manifest, then what the last two manifests do not name is deleted."""
    rng, kept = random.Random(fence), {}
    assert await store.create(shard, fence_name(fence))
    for epoch in range(1, count + 1):
        for name, length in ((segment_name(fence, epoch), size), (manifest_name(fence, epoch), 500)):
            kept[name] = rng.randbytes(length)
            await store.write(shard, name, [kept[name]])
        old = [segment_name(fence, epoch - 2), manifest_name(fence, epoch - 2)]
        await store.delete(shard, [name for name in old if kept.pop(name, None) is not None])
    return kept


async def read_to_live(kafka: str, opened: list[KafkaStore]) -> float:
    """What a restore reads, in terms of what is live, in a partition full of garbage and of a busy neighbour's load."""
    topic = await state_topic(kafka)
    mine, neighbour = await open_store(opened, kafka, topic), await open_store(opened, kafka, topic)
    await checkpoints(neighbour, NEIGHBOUR, 1, 3, 6_000_000)
    live, _ = await asyncio.gather(
        checkpoints(mine, MINE, 1, 12, 5_000_000), checkpoints(neighbour, NEIGHBOUR, 2, 4, 6_000_000)
    )
    await neighbour.write(NEIGHBOUR, segment_name(2, 9), [random.Random(9).randbytes(30_000_000)])
    fresh = await open_store(opened, kafka, topic)
    with received() as looked:
        assert sorted(await fresh.names(MINE)) == sorted([fence_name(1), *live])
    with received() as restored:
        for name, content in live.items():
            assert await fresh.read(MINE, name) == content
    with received() as again:
        await fresh.names(MINE)
    assert again.bytes < 10_000
    whole, alive = await log_bytes(kafka, topic), sum(map(len, live.values()))
    sys.stdout.write(f"log {whole:,} live {alive:,} looked {looked.bytes:,} read {restored.bytes:,}\n")
    assert whole > 10 * alive, "there was no garbage to avoid"
    return (looked.bytes + restored.bytes) / alive


async def test_a_restore_reads_little_more_than_what_is_live(kafka: str, opened: list[KafkaStore]) -> None:
    """However much lies in the same partition, before, between and after."""
    assert await read_to_live(kafka, opened) <= 2.5


async def test_control_without_indices_and_leaps_a_restore_reads_the_whole_log(
    kafka: str, opened: list[KafkaStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above has teeth."""

    async def none(self: KafkaStore, shard: Shard, name: str) -> list[object]:
        return []

    monkeypatch.setattr(KafkaStore, "_index", none)
    monkeypatch.setattr(store_kafka, "_LEAP", 1 << 30)
    assert await read_to_live(kafka, opened) > 10


async def test_control_a_claim_that_is_not_looked_for_in_the_log_is_no_claim(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acknowledged append alone says nothing about who was first."""

    class Hasty(KafkaStore):
        async def create(self, shard: Shard, name: str) -> bool:
            known = name in await self.names(shard)
            await super().create(shard, name)
            return not known

    monkeypatch.setattr("tests.stores.make_store", Hasty)
    async with closing(await in_topic(kafka)) as place:
        with pytest.raises(AssertionError):
            await laws.of_many_claimants_exactly_one_wins(place)


async def test_control_a_store_that_does_not_read_to_the_end_of_the_log_lags(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is asked for at every call."""
    plain = LogReader.bounds
    ends: dict[LogReader, tuple[int, int]] = {}

    async def remembered(self: LogReader, partition: int, where: str) -> tuple[int, int]:
        now = await plain(self, partition, where)
        if "shard" not in where:
            return now
        ends[self], before = now, ends.get(self, now)
        return before

    monkeypatch.setattr(LogReader, "bounds", remembered)
    async with closing(await in_topic(kafka, partitions=1)) as place:
        with pytest.raises(AssertionError):
            await laws.what_another_instance_did_is_seen_at_once(place)


async def log_bytes(address: str, topic: str) -> int:
    """Everything that a reader of the whole topic would read."""
    found = await topics.read_all(address, topic)
    return sum(len(record.key or b"") + len(record.value or b"") for records in found.values() for record in records)


async def test_what_is_live_survives_compaction_and_the_rest_goes(kafka: str, opened: list[KafkaStore]) -> None:
    """Chunks, tombstones and stale indices are cleaned away; what remains reads as before, for old hands and new."""
    topic = await state_topic(
        kafka,
        segment_ms="300",
        max_message_bytes="20000",
        min_cleanable_dirty_ratio="0.001",
        max_compaction_lag_ms="300",
        delete_retention_ms="100",
    )
    store = await open_store(opened, kafka, topic)
    live = await checkpoints(store, MINE, 1, 8, 200_000)
    other = await checkpoints(store, NEIGHBOUR, 1, 3, 100_000)
    written = 8 * 200_000 + 3 * 100_000
    dead = json.dumps([MINE.cluster, MINE.topic, MINE.partition, segment_name(1, 1), 0], separators=(",", ":")).encode()
    deadline = time.monotonic() + _CLEANED_S
    while any(record.key == dead for record in (await topics.read_all(kafka, topic))[0]):
        assert time.monotonic() < deadline, "the broker never cleaned"
        await asyncio.sleep(1)
        await store.write(NEIGHBOUR, "segment-tick", [b"a new segment of the log"])
    assert await log_bytes(kafka, topic) < written / 2
    for each in (store, await open_store(opened, kafka, topic)):
        assert sorted(await each.names(MINE)) == sorted([fence_name(1), *live])
        assert await each.shards() == [MINE, NEIGHBOUR]
        for name, content in live.items():
            assert await each.read(MINE, name) == content
        for name, content in other.items():
            assert await each.read(NEIGHBOUR, name) == content
    assert not await store.create(MINE, fence_name(1))
    assert await store.create(MINE, fence_name(2))


async def test_a_write_that_was_cut_off_shows_as_unfinished_and_can_be_deleted(
    kafka: str, opened: list[KafkaStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also to those who find it through an index that was written meanwhile, and when its rest comes late."""
    plain, goes_on = store_kafka.packed, threading.Event()

    def packed(shard: Shard, name: str, number: int, write: str, of: int, chunk: Any) -> Any:
        if number == of // 2:
            assert goes_on.wait(60)
        return plain(shard, name, number, write, of, chunk)

    monkeypatch.setattr(store_kafka, "packed", packed)
    topic = await state_topic(kafka)
    writer, other = await open_store(opened, kafka, topic), await open_store(opened, kafka, topic)
    content = random.Random(1).randbytes(20_000_000)
    writing = asyncio.create_task(writer.write(MINE, segment_name(1, 1), [content]))
    while f"{segment_name(1, 1)}.tmp" not in await other.names(MINE):
        assert not writing.done()
        await asyncio.sleep(0.01)
    assert await other.create(MINE, fence_name(2))
    by_index = await open_store(opened, kafka, topic)
    assert fence_name(2) in await by_index.names(MINE)
    goes_on.set()
    await writing
    for each in (writer, other, by_index, await open_store(opened, kafka, topic)):
        assert sorted(await each.names(MINE)) == [fence_name(2), segment_name(1, 1)]
        assert await each.read(MINE, segment_name(1, 1)) == content
    goes_on.clear()
    writing = asyncio.create_task(writer.write(MINE, segment_name(1, 2), [content]))
    while f"{segment_name(1, 2)}.tmp" not in await other.names(MINE):
        await asyncio.sleep(0.01)
    writing.cancel()
    await asyncio.wait([writing])
    goes_on.set()
    await writer.stop()
    unfinished = f"{segment_name(1, 2)}.tmp"
    assert unfinished in await other.names(MINE)
    with pytest.raises(CorruptCheckpointError, match="a part of it"):
        await other.read(MINE, segment_name(1, 2))
    await other.delete(MINE, [unfinished])
    for each in (other, await open_store(opened, kafka, topic)):
        assert sorted(await each.names(MINE)) == [fence_name(2), segment_name(1, 1)]


async def test_after_a_refused_record_the_store_goes_on(kafka: str, opened: list[KafkaStore]) -> None:
    """With a producer made anew; a failed one's sequence numbers are in disorder."""
    topic = await state_topic(kafka, max_message_bytes="50000")
    store = await open_store(opened, kafka, topic)
    fits, store._chunk_bytes = store._chunk_bytes, 900_000
    store._writer._max_bytes = 1_000_000
    await store._writer.stop()
    with pytest.raises(CheckpointError, match="write segment-1: expected the acknowledgement") as caught:
        await store.write(MINE, "segment-1", [random.Random(1).randbytes(800_000)])
    assert caught.value.retriable
    store._chunk_bytes = fits
    for number in range(2, 5):
        await store.write(MINE, f"segment-{number}", [b"rows" * 100_000])
        assert await store.read(MINE, f"segment-{number}") == b"rows" * 100_000


async def test_the_topic_is_created_as_it_must_be(kafka: str, opened: list[KafkaStore]) -> None:
    """Compacted, by several at once, and spread as at its birth for ever: added partitions move nothing."""
    topic = topics.new_name("state")
    first, *_ = await asyncio.gather(*(open_store(opened, kafka, topic) for _ in range(3)))
    assert await topics.partition_count(kafka, topic) == PARTITIONS
    configuration = await of_topic(kafka, topic)
    assert configuration["cleanup.policy"] == "compact"
    assert configuration["segment.bytes"] == str(128 << 20)
    far = Shard("cluster", "sensors", PARTITIONS + 3)
    assert await first.create(far, fence_name(1))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(PARTITIONS + 10)})
    finally:
        await admin.close()
    while await topics.partition_count(kafka, topic) == PARTITIONS:
        await asyncio.sleep(0.05)
    later = await open_store(opened, kafka, topic)
    assert await later.names(far) == [fence_name(1)]
    assert later.where(far) == f"topic {topic} partition 3"


async def of_topic(address: str, topic: str) -> dict[str, str]:
    """Its configuration."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    finally:
        await admin.close()
    return {name: value for name, value, *_ in response.resources[0][4]}


async def test_a_topic_that_cannot_be_created_is_said_with_the_command(kafka: str, opened: list[KafkaStore]) -> None:
    """Here because one broker cannot hold three replicas."""
    topic = topics.new_name("state")
    command = (
        f"kafka-topics.sh --bootstrap-server {kafka} --create --topic {topic} --partitions {PARTITIONS} "
        "--replication-factor 3 --config cleanup.policy=compact --config segment.bytes=134217728 "
        "--config compression.type=producer --config min.insync.replicas=2"
    )
    with pytest.raises(ConfigurationError, match=re.escape(command)):
        await open_store(opened, kafka, topic, replication_factor=3)


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
async def test_a_topic_that_forgets_is_refused_with_the_command(
    kafka: str, opened: list[KafkaStore], policy: str
) -> None:
    """Retention would take a base away."""
    topic = await topics.create_topic(kafka, configs={"cleanup.policy": policy})
    command = (
        f"kafka-configs.sh --bootstrap-server {kafka} --alter --entity-type topics --entity-name {topic} "
        "--add-config cleanup.policy=compact"
    )
    with pytest.raises(ConfigurationError, match=f"expected compact, got {policy}.*{re.escape(command)}"):
        await open_store(opened, kafka, topic)


async def test_a_topic_of_others_is_refused(kafka: str, opened: list[KafkaStore]) -> None:
    """What lies there is not ours."""
    topic = await state_topic(kafka)
    await topics.produce(kafka, topic, [b"{}"], keys=[b"somebody's"])
    with pytest.raises(ConfigurationError, match="got something else at offset 0"):
        await open_store(opened, kafka, topic)


async def test_records_of_others_in_between_are_ignored(kafka: str, opened: list[KafkaStore]) -> None:
    """Whatever they look like."""
    topic = await state_topic(kafka)
    store = await open_store(opened, kafka, topic)
    live = await checkpoints(store, MINE, 1, 2, 100_000)
    strange = [b"", b"[]", b'["cluster","sensors",0,"manifest-0000000009-000000000009.json",0]', b"\xff"]
    await topics.produce(kafka, topic, [b"{}"] * len(strange), keys=strange)
    for each in (store, await open_store(opened, kafka, topic)):
        assert sorted(await each.names(MINE)) == sorted([fence_name(1), *live])


async def test_a_topic_that_was_created_anew_is_noticed(kafka: str, opened: list[KafkaStore]) -> None:
    """What the store remembers of the old one is not taken for the truth."""
    topic = await state_topic(kafka)
    store = await open_store(opened, kafka, topic)
    await checkpoints(store, MINE, 1, 3, 1000)
    await topics.delete_topic(kafka, topic)
    await topics.create_topic(kafka, 1, {"cleanup.policy": "compact"}, name=topic)
    deadline = time.monotonic() + 90
    while True:
        with contextlib.suppress(CheckpointError):
            if await store.names(MINE) == []:
                return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)
