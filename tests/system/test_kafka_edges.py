"""The Kafka edges against a real broker: the client's traps (T1 to T13), rebalances, and brokers that are not there.

T6 and the settings that avoid T13 need no broker and are in tests/unit/test_kafka_client.py. T9, T11 and T12 have no
test of their own: the daemon runs on the default event loop, drains in large polls and keeps the model in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from detector.errors import ConfigurationError, DataLostError, SinkError, SourceError
from detector.kafka import client, connect
from detector.records import Shard
from detector.settings import KafkaClientSettings, KafkaSinkSettings, KafkaSourceSettings
from detector.sinks import kafka as sink_module
from detector.sinks.kafka import KafkaSink
from detector.sources.kafka import KafkaSource
from tests.contracts.test_sinks import SHARD, alert, scores
from tests.kafka import topics
from tests.kafka.broker import Broker

pytestmark = pytest.mark.system

LIMIT_S = 60.0  # for what takes a second; a crowded machine

MakeSource = Callable[..., Awaitable[KafkaSource]]
MakeSink = Callable[..., Awaitable[KafkaSink]]


@pytest.fixture
async def make_source(kafka: str) -> AsyncIterator[MakeSource]:
    """Makes started sources; stops them afterwards."""
    made: list[KafkaSource] = []

    async def make(topic: str, **more: object) -> KafkaSource:
        wanted = {"topics": [topic], "group": topic, "bootstrap_servers": kafka, **more}
        settings = KafkaSourceSettings(type="kafka", **{k: v for k, v in wanted.items() if k != "session_timeout_s"})
        if "session_timeout_s" in more:  # shorter than we allow, so that tests are
            settings = settings.model_copy(update={"session_timeout_s": more["session_timeout_s"]})
        made.append(KafkaSource("plant", settings))
        await made[-1].start()
        return made[-1]

    yield make
    for source in made:
        await source.stop()


@pytest.fixture
async def make_sink(kafka: str) -> AsyncIterator[MakeSink]:
    """Makes started sinks; stops them afterwards, whatever they still have to say."""
    made: list[KafkaSink] = []

    async def make(partitions: int = 1, configs: dict[str, str] | None = None, **more: object) -> KafkaSink:
        topic = await topics.create_topic(kafka, partitions, configs)
        made.append(KafkaSink("out", KafkaSinkSettings(type="kafka", bootstrap_servers=kafka, topic=topic, **more)))
        await made[-1].start()
        return made[-1]

    yield make
    for sink in made:
        await sink.stop()


async def gained(source: KafkaSource, count: int) -> list[Shard]:
    """The first `count` shards that the source is given."""
    found: list[Shard] = []
    async with asyncio.timeout(LIMIT_S):
        while len(found) < count:
            await source.poll(0.05)
            found += await source.assigned() or []
    return found


async def values(source: KafkaSource, count: int) -> list[bytes | None]:
    """The next `count` values."""
    found: list[bytes | None] = []
    async with asyncio.timeout(LIMIT_S):
        while len(found) < count:
            for records in await source.poll(0.1):
                found += records.values
    return found


def numbers(start: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, end)]


class Stalls:
    """How long the event loop stood still at most: time that a crowded machine took from us."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + 0.01
            await asyncio.sleep(0.01)
            self.longest_s = max(self.longest_s, loop.time() - due_s)


# T1, T2: the producer


async def test_t1_a_failed_record_fails_every_flush_from_then_on(kafka: str, make_sink: MakeSink) -> None:
    """T1: a record that the broker refuses is an error for all: whose records went down with it nobody else learns."""
    sink = await make_sink(configs={"max.message.bytes": "2000"})
    await sink.deliver_alerts(SHARD, [alert(0)])
    await sink.flush()
    await sink.deliver_alerts(SHARD, [alert(1, stream="x" * 5000)])
    for outcome in await asyncio.gather(sink.flush(), sink.flush(), return_exceptions=True):
        assert isinstance(outcome, SinkError)
        assert "not acknowledged, got MessageSizeTooLarge" in str(outcome)
    for again in (sink.flush(), sink.deliver_alerts(SHARD, [alert(2)])):
        with pytest.raises(SinkError, match="not acknowledged"):
            await again
    assert (await sink.alert_tail(SHARD, 0)).ids == {"id0"}


async def test_a_producer_that_answers_nothing_is_given_up(
    make_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither acknowledged nor refused for long: a client that has gone bad in silence."""
    monkeypatch.setattr(sink_module, "_SILENCE_S", 0.3)
    sink = await make_sink()
    sink._watch(asyncio.get_running_loop().create_future(), SHARD, 1)
    with pytest.raises(SinkError, match=r"not acknowledged.*no answer for 0\.3 s"):
        await asyncio.wait_for(sink.flush(), LIMIT_S)


async def test_t1_a_failure_also_stops_later_deliveries(make_sink: MakeSink) -> None:
    """T1: nobody goes on delivering for long behind a record that was lost."""
    sink = await make_sink(configs={"max.message.bytes": "2000"})

    async def deliver_on_and_on() -> None:
        while True:
            await sink.deliver_alerts(SHARD, [alert(1, stream="x" * 5000)])
            await asyncio.sleep(0.01)

    with pytest.raises(SinkError):
        await asyncio.wait_for(deliver_on_and_on(), LIMIT_S)


async def test_t2_a_producer_is_replaced_before_its_sequence_numbers_wrap(
    kafka: str, make_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T2: with a limit of 10 records per producer nothing is lost, doubled or out of order."""
    monkeypatch.setattr(sink_module, "MAX_SEQUENCE", 10)
    sink = await make_sink()
    producers = set()
    for number in range(45):
        await sink.deliver_alerts(SHARD, [alert(number)])
        producers.add(id(sink._producer))
    await sink.flush()
    found = (await topics.read_all(kafka, sink._settings.topic))[0]
    assert [f'"id":"id{number}"'.encode() in record.value for number, record in enumerate(found)] == [True] * 45
    assert len(producers) > 1


async def test_what_is_in_flight_is_bounded(make_sink: MakeSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery waits while too much is not acknowledged: that is the backpressure."""
    monkeypatch.setattr(sink_module, "MAX_IN_FLIGHT", 50)
    sink = await make_sink(linger_ms=20)
    for number in range(300):
        await sink.deliver_alerts(SHARD, [alert(number)])
        assert sink._waiting <= 50
    await sink.flush()
    assert sink._waiting == 0
    assert len((await sink.alert_tail(SHARD, 0)).ids) == 300


async def test_many_scores_go_out_in_batches(kafka: str, make_sink: MakeSink) -> None:
    """More than one batch holds, each score once and in order."""
    sink = await make_sink()
    await sink.deliver_scores(SHARD, [scores(5000), scores(3)])
    await sink.flush()
    found = (await topics.read_all(kafka, sink._settings.topic))[0]
    offsets = [f'"offset":{2 * i}}}'.encode() for i in [*range(5000), 0, 1, 2]]
    assert [expected in record.value for expected, record in zip(offsets, found, strict=True)] == [True] * 5003


# T3, T4, T7, T11: groups


async def test_t3_a_long_restore_costs_no_membership(kafka: str, make_source: MakeSource) -> None:
    """T3: shards that stay paused, and a pipeline that does not poll, outlast the session several times."""
    topic = await topics.create_topic(kafka, 2)
    await topics.produce(kafka, topic, numbers(0, 10))
    source = await make_source(topic, session_timeout_s=3.0)
    shards = await gained(source, 2)
    await asyncio.sleep(7)
    assert await source.assigned() is None
    assert await source.poll(0.2) == []
    for shard in shards:
        await source.resume(shard, 0)
    assert await values(source, 10) == numbers(0, 10)


async def test_t4_a_rebalance_never_holds_up_a_poll(kafka: str, make_source: MakeSource) -> None:
    """T4: while others come and go each poll ends in time, and no fetch is cancelled: records come as before."""
    topic = await topics.create_topic(kafka, 4)
    first = await make_source(topic)
    await gained(first, 4)
    longest, loop, stalls = 0.0, asyncio.get_running_loop(), Stalls()
    joining = asyncio.create_task(make_source(topic))
    async with asyncio.timeout(LIMIT_S):
        while len(first._owned) != 2:
            began = loop.time()
            await first.poll(0.05)
            longest = max(longest, loop.time() - began)
    assert len(await first.assigned() or []) == 2
    assert longest < 0.5 + stalls.longest_s
    stalls.task.cancel()
    second = await joining
    shards = await gained(second, 2)
    assert all(partition == 2 for partition in [len(first._owned), len(second._owned)])
    assert not set(first._owned) & set(shards)
    await second.stop()
    async with asyncio.timeout(LIMIT_S):
        while len(first._owned) != 4:
            await first.poll(0.05)
    for shard in list(first._owned):
        await first.resume(shard, 0)
    for partition in range(4):
        await topics.produce(kafka, topic, numbers(partition, partition + 1), partition=partition)
    assert sorted(await values(first, 4)) == numbers(0, 4)
    assert first._consumer._subscription._fetch_count <= 1
    with pytest.raises(TimeoutError):  # the control: this is what we must not do
        await asyncio.wait_for(first._consumer.getmany(timeout_ms=5000), 0.05)
    assert first._consumer._subscription._fetch_count >= 1, "the trap is gone: this test and our care may go too"


async def test_a_shard_that_was_lost_and_came_back_is_restored_anew(kafka: str, make_source: MakeSource) -> None:
    """Every rebalance takes all shards: one that stays is revoked and gained, and is paused."""
    topic = await topics.create_topic(kafka, 2)
    await topics.produce(kafka, topic, numbers(0, 3))
    first = await make_source(topic)
    for shard in await gained(first, 2):
        await first.resume(shard, 0)
    assert await values(first, 3) == numbers(0, 3)
    lost: list[Shard] = []

    async def revoked(shards: Sequence[Shard], within_s: float) -> None:
        assert within_s == 10
        lost.extend(shards)
        await first.commit(dict.fromkeys(shards, 3))  # they are still ours while they are put in order

    first.listen(revoked)
    second = await make_source(topic)
    gain: list[Shard] = []
    async with asyncio.timeout(LIMIT_S):
        while not gain:
            assert await first.poll(0.05) == []
            gain += await first.assigned() or []
    assert len(lost) == 2
    assert set(gain) < set(lost)
    await topics.produce(kafka, topic, numbers(3, 4))
    await topics.produce(kafka, topic, numbers(3, 4), partition=1)
    assert await first.poll(0.3) == []
    await first.commit(dict.fromkeys(lost, 1))  # only what is still ours
    await second.stop()


async def test_t7_one_assignor_is_offered(kafka: str, make_source: MakeSource) -> None:
    """T7: each further one would cost a round of joins; two sources in a process do not share its memory."""
    topic = await topics.create_topic(kafka)
    one, other = await make_source(topic), await make_source(topic, group=topics.new_name())
    (of_one,), (of_other,) = (each._consumer._partition_assignment_strategy for each in (one, other))
    assert of_one.name == of_other.name == "sticky"
    assert of_one is not of_other


async def test_a_pattern_finds_topics(kafka: str, make_source: MakeSource) -> None:
    """All topics that match the whole pattern are read."""
    prefix = topics.new_name("plant")
    for name in ("-a", "-b"):
        await topics.create_topic(kafka, name=prefix + name)
    source = await make_source(prefix, topics=[], pattern=f"{prefix}-[ab]")
    assert {shard.topic for shard in await gained(source, 2)} == {f"{prefix}-a", f"{prefix}-b"}


async def test_static_partitions_are_taken_of_each_topic(kafka: str, make_source: MakeSource) -> None:
    """Without a group; one that is not there is an error."""
    one, other = await topics.create_topic(kafka, 3), await topics.create_topic(kafka, 2)
    source = await make_source(one, topics=[one, other], partitions="0-1")
    shards = await gained(source, 4)
    assert {(shard.topic, shard.partition) for shard in shards} == {(one, 0), (one, 1), (other, 0), (other, 1)}
    assert all(shard.cluster for shard in shards)
    with pytest.raises(SourceError, match=f"partitions of topic '{other}'.*expected 0 to 1"):
        await make_source(one, topics=[one, other], partitions="0-2")


# T5, T8, T10, T13: reading


async def test_t5_no_record_can_pin_its_partition(kafka: str, make_source: MakeSource) -> None:
    """T5: whatever the bytes are, they are handed over as they are, and the position passes them."""
    topic = await topics.create_topic(kafka, configs={"max.message.bytes": "3000000"})
    poison = [b"\xff\xfe", None, b"", b"\x00" * 2_000_000, b'{"a": NaN}', b"good"]
    await topics.produce(kafka, topic, poison, keys=[b"\xff"] * 6, headers=[("h", b"\xff")])
    source = await make_source(topic, partitions="0")
    (shard,) = await gained(source, 1)
    await source.resume(shard, 0)
    assert await values(source, 6) == poison


async def test_t8_a_position_that_is_gone_is_an_error(kafka: str, make_source: MakeSource) -> None:
    """T8: neither skipped nor silently moved; the bounds tell beforehand, and both ends count."""
    topic = await topics.create_topic(kafka)
    await topics.produce(kafka, topic, numbers(0, 100))
    await topics.delete_records(kafka, topic, 0, 40)
    source = await make_source(topic, partitions="0")
    (shard,) = await gained(source, 1)
    bounds = await source.bounds(shard)
    assert (bounds.low, bounds.high) == (40, 100)
    for position in (10, 500):
        await source.resume(shard, position)
        with pytest.raises(DataLostError, match=f"an offset from 40 to 100, got {position}"):
            await values(source, 1)
    assert await source.anchor(shard, 40) is None, "what stood before it has been deleted"
    await source.resume(shard, 40)
    assert await values(source, 60) == numbers(40, 100)


async def test_t10_a_poll_is_bounded(kafka: str, make_source: MakeSource) -> None:
    """T10: however much is buffered, one poll takes no more than `poll_records`, over all partitions."""
    topic = await topics.create_topic(kafka, 2)
    for partition in (0, 1):
        await topics.produce(kafka, topic, numbers(0, 5000), partition=partition)
    source = await make_source(topic, partitions="0-1", poll_records=700)
    for shard in await gained(source, 2):
        await source.resume(shard, 0)
    sizes, total = [], 0
    async with asyncio.timeout(LIMIT_S):
        while total < 10_000:
            sizes.append(sum(len(records) for records in await source.poll(0.1)))
            total += sizes[-1]
    assert max(sizes) == 700


async def test_t13_aborted_transactions_are_not_read(kafka: str, make_source: MakeSource) -> None:
    """Read committed: neither samples nor the end of the log count what its writer took back; markers are passed."""
    topic = await topics.create_topic(kafka)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=topic)
    await producer.start()
    try:
        for value, is_kept in ((b"kept", True), (b"taken back", False), (b"also kept", True)):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, value, partition=0)
            await (producer.commit_transaction() if is_kept else producer.abort_transaction())
    finally:
        await producer.stop()
    source = await make_source(topic, partitions="0")
    (shard,) = await gained(source, 1)
    await source.resume(shard, 0)
    assert await values(source, 2) == [b"kept", b"also kept"]
    high = (await source.bounds(shard)).high
    assert high == 6
    assert await source.anchor(shard, high) is None, "a marker stands there"
    assert await source.anchor(shard, 5) is not None


async def test_committed_offsets_are_seen_by_the_group(kafka: str, make_source: MakeSource) -> None:
    """Lag displays work in both modes; nothing is committed unless we say so."""
    topic = await topics.create_topic(kafka)
    await topics.produce(kafka, topic, numbers(0, 10))
    for more, position in (({"partitions": "0"}, 4), ({}, 7)):
        source = await make_source(topic, **more)
        (shard,) = await gained(source, 1)
        await source.resume(shard, 0)
        await values(source, 10)
        await source.commit({shard: position})
        await source.stop()
        watcher = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=topic, enable_auto_commit=False)
        await watcher.start()
        assert await watcher.committed(TopicPartition(topic, 0)) == position
        await watcher.stop()


async def test_records_keep_key_headers_and_timestamp(kafka: str, make_source: MakeSource) -> None:
    """All that a dead letter needs, and the append time; offsets may skip."""
    topic = await topics.create_topic(kafka)
    await topics.produce(
        kafka, topic, [b"a", None], keys=[None, b"k"], timestamps_ms=[1_700_000_000_001, 5], headers=[("n", b"v")]
    )
    source = await make_source(topic, partitions="0")
    (shard,) = await gained(source, 1)
    await source.resume(shard, 0)
    (records,) = await source.poll(LIMIT_S)
    assert (records.values, records.keys) == ([b"a", None], [None, b"k"])
    assert records.append_ns.tolist() == [1_700_000_000_001_000_000, 5_000_000]
    assert records.positions.tolist() == [0, 1]
    assert list(records.headers_of(1)) == [("n", b"v")]


# Clients that fall silent


async def polled_until(source: KafkaSource, message: str) -> None:
    """Poll until it fails, with this message."""

    async def poll_on() -> None:
        while True:
            assert await source.poll(0.05) == []

    with pytest.raises(SourceError, match=message) as caught:
        await asyncio.wait_for(poll_on(), LIMIT_S)
    assert caught.value.retriable


async def test_a_reader_that_is_stuck_is_noticed(
    kafka: str, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives nothing for two session timeouts though there is more; one that has read all is left in peace."""
    topic = await topics.create_topic(kafka)
    await topics.produce(kafka, topic, numbers(0, 10))
    source = await make_source(topic, partitions="0", session_timeout_s=0.5)
    (shard,) = await gained(source, 1)
    await source.resume(shard, 0)
    await values(source, 10)
    quiet_until_s = asyncio.get_running_loop().time() + 3
    while asyncio.get_running_loop().time() < quiet_until_s:
        assert await source.poll(0.05) == []

    async def nothing(**_: object) -> dict[TopicPartition, object]:
        await asyncio.sleep(0.05)
        return {}

    monkeypatch.setattr(source._consumer, "getmany", nothing)
    await topics.produce(kafka, topic, numbers(10, 12))
    await polled_until(source, "reading is stuck: expected records from offset 10 to 12")


async def test_a_group_that_falls_silent_is_noticed(own_kafka: Broker) -> None:
    """No heartbeat is answered for two session timeouts: the client is to be built anew."""
    topic = await topics.create_topic(own_kafka.address)
    settings = KafkaSourceSettings(type="kafka", topics=[topic], group=topic, bootstrap_servers=own_kafka.address)
    source = KafkaSource("plant", settings.model_copy(update={"session_timeout_s": 1.5}))
    await source.start()
    try:
        for shard in await gained(source, 1):
            await source.resume(shard, 0)
        own_kafka.freeze()
        await polled_until(source, "the group is silent: expected answers to heartbeats, got none for 3 s")
    finally:
        own_kafka.thaw()
        await source.stop()


async def test_nothing_is_handed_over_before_the_group_has_said_whose_it_is(
    kafka: str, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a stop that outlasted the session, records that are there already wait for the next heartbeat."""
    topic = await topics.create_topic(kafka)
    await topics.produce(kafka, topic, numbers(0, 10))
    source = await make_source(topic)
    (shard,) = await gained(source, 1)
    asked = asyncio.Event()

    async def no_heartbeat() -> bool:
        asked.set()
        return False

    with monkeypatch.context() as silent:
        silent.setattr(source._consumer._coordinator, "_do_heartbeat", no_heartbeat)
        await asyncio.wait_for(asked.wait(), LIMIT_S)
        source._health._beat_s -= 60
        await source.resume(shard, 0)
        for _ in range(10):
            assert await source.poll(0.05) == []
    assert await values(source, 10) == numbers(0, 10)


# Brokers that are not there


async def test_a_broker_that_is_not_there_is_waited_for_and_then_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several attempts, then an error that names the address; nothing stays open."""
    monkeypatch.setattr(connect, "_FIRST_S", 0.5)
    source = KafkaSource("plant", KafkaSourceSettings(type="kafka", topics=["a"], bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(SourceError, match=r"a broker at 127\.0\.0\.1:1"):
        await source.start()
    await source.stop()
    sink = KafkaSink("out", KafkaSinkSettings(type="kafka", topic="a", bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(SinkError, match=r"a broker at 127\.0\.0\.1:1"):
        await sink.start()
    await sink.stop()


async def test_a_topic_whose_configuration_we_may_not_read_is_an_error(kafka: str) -> None:
    """An alerts topic must not be compacted; where the broker does not tell, we do not guess."""
    with pytest.raises(ConfigurationError, match=r"may not read the configuration.*cleanup\.policy"):
        await client.topic_settings(KafkaClientSettings(bootstrap_servers=kafka), topics.new_name(), "sink")


async def test_a_misspelt_topic_is_answered_with_the_nearest(kafka: str, make_source: MakeSource) -> None:
    """And it is not created by asking for it."""
    topic = await topics.create_topic(kafka)
    with pytest.raises(SourceError, match=f"did you mean '{topic}'"):
        await make_source(topic[:-1])
    assert await topics.partition_count(kafka, topic[:-1]) == 0
