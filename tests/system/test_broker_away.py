"""The broker goes away and comes back while records come in: nothing lost, nothing changed, nothing doubled.

A broker of this test's own is frozen (connections stay, nobody answers) and stopped (connections are refused), under a
daemon with fixed partitions and checkpoints in a folder, and under one in a group with checkpoints in a topic. In the
end alerts, scores and memory must be those of the engine over the same records in one piece. `make broker-away` runs
the long form: a minute each.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka.errors import KafkaError

from detector import supervision
from detector.kafka import connect
from detector.records import Records, Shard
from tests.kafka.broker import Broker
from tests.kafka.topics import create_topic, delete_records, delete_topic, is_up, new_name
from tests.system.conftest import say
from tests.system.examine import examine, lineage
from tests.system.feed import Feed
from tests.system.feeder import Feeder
from tests.system.ledger import serving
from tests.system.processes import Daemon, until
from tests.system.site import Golden, KafkaSite, kafka_site
from tests.system.test_kill import finish

pytestmark = pytest.mark.system

IS_LONG = "LONG" in os.environ
PER_S = 150.0
AWAY = ("frozen 5", "restarted 0", "frozen 60", "restarted 60") if IS_LONG else ("frozen 5", "restarted 0")
"""How the broker goes away, and for how many seconds."""


async def away(broker: Broker, how: str, seconds: float) -> None:
    """Take the broker away for so long; it must really have been."""
    if how == "frozen":
        broker.freeze()
    else:
        await asyncio.to_thread(broker.stop)
    assert not await is_up(broker.address), "the broker was not away: the test shows nothing"
    await asyncio.sleep(seconds)
    if how == "frozen":
        broker.thaw()
    else:
        await asyncio.to_thread(broker.start)


async def scored(site: KafkaSite) -> int:
    """How many scores are there, by a broker that may have come back a moment ago and not know itself yet."""
    while True:
        try:
            return len(await site.scores())
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(0.3)


async def until_scored(site: KafkaSite, more: int, daemon: Daemon) -> float:
    """Wait until so many more scores are there; returns for how long that took."""
    began_s = time.monotonic()
    async with asyncio.timeout(200):
        before = await scored(site)
        while await scored(site) < before + more:
            assert daemon.is_alive, f"exit code {daemon.exit_code}:\n{daemon.log()}"
            await asyncio.sleep(0.3)
    return time.monotonic() - began_s


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["static", "group"])
async def test_a_broker_that_goes_away_costs_nothing(own_kafka: Broker, tmp_path: Path, seed: int, mode: str) -> None:
    """One daemon for all of it: it neither ends nor loses, changes or doubles anything."""
    more: dict[str, Any] = {}
    if mode == "group":
        state = {"type": "kafka", "bootstrap_servers": own_kafka.address, "topic": new_name("state")}
        more = {"group_session_s": 6.0, "store": state}
    feeds = {"wide": Feed(seed), "narrow": Feed(seed, narrow=True)}
    site = await kafka_site(own_kafka.address, tmp_path, feeds, **more)
    daemon = site.start()
    try:
        async with Feeder(site, PER_S) as feeder:
            for way in AWAY:
                await until_scored(site, 500, daemon)
                how, seconds = way.split()
                began_s = time.monotonic()
                await away(own_kafka, how, float(seconds))
                was_away_s = time.monotonic() - began_s
                back_s = await until_scored(site, 100, daemon)
                say(f"{mode}: {how} for {was_away_s:.0f} s, scoring again {back_s:.1f} s after it")
            await feeder.finish()
        await finish(site, [daemon])
    finally:
        daemon.end()
    faults, proof = await examine(site), lineage(site)
    rebuilds = daemon.log().count("building all connections anew")
    say(f"{mode}: {sum(map(len, feeds.values()))} records, {rebuilds} rebuilds, ledger {dict(proof.counts)}")
    assert faults == Counter()
    assert proof.faults == []


def be_impatient() -> None:
    """A tamper: what takes minutes takes seconds."""
    supervision._PAUSES_S = (0.2, 0.5)
    connect._AGAIN_S = 1.0


@pytest.mark.timeout(400)
async def test_a_broker_that_stays_away_ends_the_daemon(own_kafka: Broker, tmp_path: Path, seed: int) -> None:
    """At the third failure in a row, with its error and an exit code that is not zero; a later start loses nothing."""
    site = await kafka_site(own_kafka.address, tmp_path, {"wide": Feed(seed)})
    settings = yaml.safe_load(site.config.read_text())
    for sink in (settings["sinks"]["alerts"]["out"], settings["sinks"]["scores"]["all"]):
        sink["client"] = {"request_timeout_ms": 2000}  # a batch is given up after so long, and not after 40 s
    site.write(settings)
    daemon = site.start(be_impatient)
    try:
        async with Feeder(site, 3 * PER_S) as feeder:
            await until_scored(site, 500, daemon)
            await asyncio.to_thread(own_kafka.stop)
            await daemon.until_ended(code=1)
            await asyncio.to_thread(own_kafka.start)
            await feeder.finish()
    finally:
        daemon.end()
    assert daemon.log().count("building all connections anew") == 2
    assert daemon.log().count("giving up") == 1
    assert f"cannot connect: expected a broker at {own_kafka.address}" in daemon.log()
    await scored_to_the_end(site, site.start())
    assert await examine(site) == Counter()


# Records that are gone, topics that are others


@pytest.fixture
async def begun(kafka: str, tmp_path: Path, seed: int) -> KafkaSite:
    """A site whose daemon has scored the beginning of the feed and was ended in order."""
    site = await kafka_site(kafka, tmp_path, {"wide": Feed(seed)})
    await append(site)
    await scored_to_the_end(site, site.start())
    return site


async def append(site: KafkaSite) -> None:
    """Some thousands of records more."""
    async with Feeder(site, 0.0) as feeder:
        await feeder.finish()


async def scored_to_the_end(site: KafkaSite, daemon: Daemon) -> None:
    """Let a daemon score everything, and end it in order."""
    try:
        await finish(site, [daemon])
    finally:
        daemon.end()


def say_continue(site: KafkaSite) -> None:
    """The operator accepts that records are gone."""
    settings = yaml.safe_load(site.config.read_text())
    settings["sources"]["wide"]["on_data_loss"] = "continue"
    site.write(settings)


async def lose(site: KafkaSite, count: int) -> range:
    """Append records and have the first of partition 0 among them deleted, as retention does; returns which."""
    end = len(site.feeds["wide"].taken[0])
    await append(site)
    await delete_records(site.address, site.topics["wide"], 0, end + count)
    return range(end, end + count)


def golden_without(site: KafkaSite, lost: range) -> dict[Shard, Golden]:
    """What the engine says where these records of partition 0 never came."""
    golden = site.golden()
    for source, records in site.records():
        if records.shard.partition == 0:
            engine, parts = site.engine(records.shard, source), (range(lost.start), range(lost.stop, len(records)))
            outcomes = [engine.advance(_cut(records, part)) for part in parts]
            golden[records.shard] = Golden(outcomes, engine.snapshot(full=True))
    return golden


def _cut(records: Records, part: range) -> Records:
    at = slice(part.start, part.stop)
    values, positions, append_ns = records.values[at], records.positions[at], records.append_ns[at]
    return Records(records.shard, values, records.keys[at], positions, append_ns, part.stop)


@pytest.mark.timeout(300)
async def test_records_deleted_while_it_was_down_are_refused_and_then_accepted(begun: KafkaSite) -> None:
    """A start is refused, in words; on_data_loss: continue goes on behind them with the memory as it was."""
    lost = await lose(begun, 300)
    refused = begun.start()
    await refused.until_ended(code=1)
    assert "records after the checkpoint are gone" in refused.log()
    assert f"expected position {lost.start}, got the first that is left, {lost.stop}" in refused.log()
    say_continue(begun)
    accepting = begun.start()
    await scored_to_the_end(begun, accepting)
    assert "records were gone before they could be read; the shard goes on behind them" in accepting.log()
    assert await examine(begun, golden_without(begun, lost)) == Counter()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_accepted", [False, True])
async def test_records_deleted_under_a_running_daemon(begun: KafkaSite, is_accepted: bool) -> None:
    """The same rules as at a start: it ends and says why, or restores that shard and goes on behind them."""
    if is_accepted:
        say_continue(begun)
    daemon = begun.start()
    try:
        await until(lambda: serving(begun.ledger, daemon.pid) == begun.ends().keys(), "the daemon is ready")
        daemon.freeze()
        lost = await lose(begun, 300)
        daemon.wake()
        if not is_accepted:
            await daemon.until_ended(code=1)
            assert "records are gone that were not read yet" in daemon.log()
            assert f"expected an offset from {lost.stop} to" in daemon.log()
            return
        await scored_to_the_end(begun, daemon)
    finally:
        daemon.end()
    assert "shard is restored anew" in daemon.log()
    assert "building all connections anew" not in daemon.log()
    told = re.search(r'"first": ?(\d+), "last": ?(\d+)', daemon.log())
    assert told, daemon.log()
    gone = range(int(told[1]), int(told[2]) + 1)  # a fetch that was under way may have brought some of them
    assert lost.start <= gone.start < gone.stop == lost.stop
    assert await examine(begun, golden_without(begun, gone)) == Counter()


async def created_anew(site: KafkaSite) -> None:
    """Another topic of the same name, empty."""
    await delete_topic(site.address, site.topics["wide"])
    await create_topic(site.address, 4, name=site.topics["wide"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_longer", [False, True])
async def test_a_topic_created_anew_is_refused_at_the_start(begun: KafkaSite, seed: int, is_longer: bool) -> None:
    """Whether it ends before the checkpoint, or has other records at its place."""
    await created_anew(begun)
    other = KafkaSite(begun.folder, {"wide": Feed(seed + 1)}, begun.address, begun.topics)
    if is_longer:
        for _ in range(2):
            await append(other)
    daemon = begun.start()
    await daemon.until_ended(code=1)
    says = r"what stands before position \d+ has changed" if is_longer else "the source ends before the checkpoint"
    assert re.search(says, daemon.log())
    assert "tidewarden run --cold" in daemon.log()


@pytest.mark.timeout(300)
async def test_a_topic_created_anew_under_a_running_daemon_ends_it(begun: KafkaSite) -> None:
    """Its position is beyond the end of the new log."""
    daemon = begun.start()
    try:
        await until(lambda: serving(begun.ledger, daemon.pid) == begun.ends().keys(), "the daemon is ready")
        daemon.freeze()
        await created_anew(begun)
        daemon.wake()
        await daemon.until_ended(code=1)
    finally:
        daemon.end()
    assert "the log ends before our position" in daemon.log()
    assert "was the topic created anew" in daemon.log()
