"""The broker goes away and comes back while records come in: nothing lost, nothing changed, nothing doubled.

A broker of this test's own is frozen (connections stay, nobody answers) and stopped (connections are refused), under a
daemon with fixed partitions and checkpoints in a folder, and under one in a group with checkpoints in a topic. In the
end alerts, scores and memory must be those of the engine over the same records in one piece. `make broker-away` runs
the long form: a minute each.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.kafka.broker import Broker
from tests.kafka.topics import is_up, new_name
from tests.system.conftest import say
from tests.system.examine import examine, lineage
from tests.system.feed import Feed
from tests.system.feeder import Feeder
from tests.system.processes import Daemon
from tests.system.site import KafkaSite, kafka_site
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


async def until_scored(site: KafkaSite, more: int, daemon: Daemon) -> float:
    """Wait until so many more scores are there; returns for how long that took."""
    began_s, before = time.monotonic(), len(await site.scores())
    async with asyncio.timeout(200):
        while len(await site.scores()) < before + more:
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


# Records that are gone, topics that are others


async def begun(site: KafkaSite) -> int:
    """Let a daemon score the beginning of the feed, and end it in order; returns the end of partition 0."""
    daemon = site.start()
    try:
        async with Feeder(site, 0.0) as feeder:
            await feeder.finish()
        await finish(site, [daemon])
    finally:
        daemon.end()
    return len(site.feeds["wide"].taken[0])


async def append(site: KafkaSite, count: int) -> None:
    """So many records more."""
    async with Feeder(site, count * 20.0) as feeder:
        await asyncio.sleep(0.1)
        await feeder.finish()
