"""What a Kafka source hands over around a rebalance, step by step; the rest is in tests/contracts and tests/system."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from detector.records import Shard
from detector.settings import KafkaSourceSettings
from detector.sources.kafka import KafkaSource

ONE, TWO = TopicPartition("t", 0), TopicPartition("t", 1)
SHARD, OTHER = Shard("", "t", 0), Shard("", "t", 1)


class Client:
    """What a source asks of the client; a fetch ends when the test says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.committed: dict[TopicPartition, int] = {}
        self.fetch: asyncio.Future[Mapping[TopicPartition, Sequence[Any]]] = asyncio.Future()

    def pause(self, partition: TopicPartition) -> None:
        """Noted."""
        self.asked.append(f"pause {partition.partition}")

    def resume(self, partition: TopicPartition) -> None:
        """Noted."""
        self.asked.append(f"resume {partition.partition}")

    def seek(self, partition: TopicPartition, position: int) -> None:
        """Noted."""
        self.asked.append(f"seek {partition.partition} {position}")

    async def getmany(self, *, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, Sequence[Any]]:
        """What the test says."""
        fetch = self.fetch
        found = await fetch
        self.fetch = asyncio.Future()
        return found

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Retention has taken the first ones."""
        return dict.fromkeys(partitions, 100)

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """There are more."""
        return dict.fromkeys(partitions, 200)

    async def commit(self, offsets: Mapping[TopicPartition, Any]) -> None:
        """Noted."""
        self.committed |= {partition: each.offset for partition, each in offsets.items()}


@pytest.fixture
async def client() -> Client:
    """A client that is connected."""
    return Client()


@pytest.fixture
def source(client: Client) -> KafkaSource:
    """A member of a group with two partitions, both resumed at 0."""
    made = KafkaSource("s", KafkaSourceSettings(type="kafka", topics=["t"]))
    made._consumer = client  # type: ignore[assignment]  # as far as it is asked
    made.on_gained([ONE, TWO])
    return made


def batch(*offsets: int) -> list[Any]:
    """Records at these offsets."""
    return [SimpleNamespace(offset=at, key=None, value=b"", timestamp=0, headers=()) for at in offsets]


async def fetched(source: KafkaSource, client: Client, found: Mapping[TopicPartition, Sequence[Any]]) -> None:
    """A fetch is done, and nobody has looked at it yet."""
    assert await source.poll(0.001) == []
    client.fetch.set_result(found)
    while not source._fetch.is_done:
        await asyncio.sleep(0)


async def test_a_gained_partition_rests_until_it_is_resumed(source: KafkaSource, client: Client) -> None:
    """Where a restore may take minutes nothing is fetched, and no committed offset is looked for."""
    assert client.asked == ["pause 0", "seek 0 0", "pause 1", "seek 1 0"]
    assert await source.assigned() == [SHARD, OTHER]
    assert await source.assigned() is None
    client.asked.clear()
    await source.resume(SHARD, 7)
    assert client.asked == ["seek 0 7", "resume 0"]


async def test_what_was_fetched_before_a_resume_is_not_handed_over(source: KafkaSource, client: Client) -> None:
    """Else its records would come twice: now, and again from where reading resumed."""
    await fetched(source, client, {ONE: batch(5, 6), TWO: batch(3)})
    await source.resume(SHARD, 5)
    found = await source.poll(0.1)
    assert [(records.shard, records.next_position) for records in found] == [(OTHER, 4)]
    client.fetch.set_result({ONE: batch(5, 6)})
    assert [records.shard for records in await source.poll(0.1)] == [SHARD]


async def test_a_loss_in_one_partition_costs_another_nothing(client: Client) -> None:
    """One was resumed after the fetch that told of the loss: that one is dropped, the next one is whole."""
    source = KafkaSource("s", KafkaSourceSettings(type="kafka", topics=["t"], on_data_loss="continue"))
    source._consumer = client  # type: ignore[assignment]  # as far as it is asked
    source.on_gained([ONE, TWO])
    assert await source.poll(0.001) == []
    client.fetch.set_exception(OffsetOutOfRangeError({TWO: 7}))
    while not source._fetch.is_done:
        await asyncio.sleep(0)
    await source.resume(SHARD, 150)
    assert await source.poll(0.1) == []
    client.fetch = asyncio.Future()
    client.fetch.set_result({ONE: batch(150, 151)})
    assert [(records.shard, len(records)) for records in await source.poll(5)] == [(SHARD, 2)]


async def test_what_was_fetched_before_a_revocation_is_dropped(source: KafkaSource, client: Client) -> None:
    """Whoever has the partitions next reads it again."""
    await fetched(source, client, {ONE: batch(5, 6), TWO: batch(3)})
    await source.on_revoked([ONE, TWO])
    assert await source.poll(0.001) == []


async def test_a_poll_that_waits_during_a_revocation_comes_home_empty(source: KafkaSource, client: Client) -> None:
    """Its fetch ended, the revocation came first: the poll hands over nothing."""
    polling = asyncio.create_task(source.poll(5))
    await asyncio.sleep(0)
    client.fetch.set_result({ONE: batch(5)})
    while not source._fetch.is_done:
        await asyncio.sleep(0)
    await source.on_revoked([ONE, TWO])
    assert await polling == []


async def test_partitions_are_ours_until_they_are_in_order(source: KafkaSource, client: Client) -> None:
    """What the pipeline does with them may commit; afterwards nothing may."""
    told: list[Any] = []

    async def revoked(shards: Sequence[Shard], within_s: float) -> None:
        told.append((list(shards), within_s))
        await source.commit({SHARD: 9})

    await source.assigned()
    source.listen(revoked)
    await source.on_revoked([ONE, TWO])
    assert told == [([SHARD, OTHER], 10.0)]
    assert client.committed == {ONE: 9}
    await source.commit({SHARD: 11})
    assert client.committed == {ONE: 9}
    client.asked.clear()
    await source.resume(SHARD, 3)  # a restore that was under way
    await source.pause(SHARD)
    assert client.asked == []


async def test_a_partition_that_came_and_went_unseen_is_not_told_of(source: KafkaSource) -> None:
    """Between two looks of the pipeline."""
    await source.on_revoked([ONE, TWO])
    assert await source.assigned() is None
    source.on_gained([TWO])
    assert await source.assigned() == [OTHER]


async def test_a_spare_member_hears_that_it_has_nothing(source: KafkaSource) -> None:
    """An empty assignment is a word; silence is not."""
    await source.assigned()
    await source.on_revoked([ONE, TWO])
    assert await source.assigned() is None
    source.on_gained([])
    assert await source.assigned() == []


async def test_only_members_of_a_group_ask_again_for_a_claimed_shard() -> None:
    """With partitions given by hand another claim is a mistake."""
    group = KafkaSource("s", KafkaSourceSettings(type="kafka", topics=["t"], session_timeout_s=30))
    static = KafkaSource("s", KafkaSourceSettings(type="kafka", topics=["t"], partitions="0"))
    assert (group.reclaim_s, static.reclaim_s) == (30, None)
