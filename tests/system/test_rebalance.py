"""Replicas of one group come, go, die and freeze at random against a real Kafka: nothing must show in the results.

A frozen replica (SIGSTOP for longer than the session) wakes up as a zombie: it believes that it still owns its shards.
Its manifests must be refused, and the alerts that it may still send must carry ids that exist already: copies are
allowed there, and nowhere else.

`make rebalance-storm` runs ten minutes of it; MINUTES=n changes that, STORE=dir, kafka or object says where
checkpoints are kept.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.system.conftest import say
from tests.system.examine import copied, examine, lineage
from tests.system.feed import Feed
from tests.system.feeder import Feeder
from tests.system.processes import Daemon
from tests.system.site import KafkaSite, kafka_site
from tests.system.test_kill import finish

pytestmark = pytest.mark.system

IS_LONG = "LONG" in os.environ
STORM_S = 60.0 * float(os.environ.get("MINUTES", 10 if IS_LONG else 1))
REPLICAS = 3
SESSION_S = 6.0
PER_S = 100.0  # records of each topic
LEAVES = ("leave", "kill", "freeze")


@dataclass
class Storm:
    """Replicas and what is done to them."""

    site: KafkaSite
    rng: random.Random
    replicas: list[Daemon] = field(default_factory=list)
    """Those that should be working."""
    frozen: dict[Daemon, float] = field(default_factory=dict)
    """Those that are stopped, and until when."""
    leaving: list[asyncio.Task[None]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    async def rage(self, seconds: float) -> None:
        """Do something to some replica every few seconds, and each thing once a minute."""
        end_s, leaves = time.monotonic() + seconds, self._leaves()
        while time.monotonic() < end_s or min(self.counts[what] for what in ("join", *LEAVES)) < seconds / 60:
            present = len(self.replicas) + len(self.frozen)
            if not self.replicas or (present < REPLICAS and self.rng.random() < 0.6):
                self._join() if present < REPLICAS else None
            else:
                self._do(next(leaves))
            await self._wait(self.rng.uniform(3.0, 10.0))

    async def settle(self) -> None:
        """Wake the frozen, let the leaving leave, and have all replicas there."""
        await self._wait(max([0.0, *(until_s - time.monotonic() for until_s in self.frozen.values())]) + 0.1)
        await asyncio.gather(*self.leaving)
        while len(self.replicas) < REPLICAS:
            self._join()

    def end(self) -> None:
        """Whatever happened."""
        for daemon in (*self.replicas, *self.frozen):
            daemon.end()

    def _leaves(self) -> Iterator[str]:
        """All kinds before any comes again."""
        while True:
            yield from self.rng.sample(LEAVES, len(LEAVES))

    def _join(self) -> None:
        self.replicas.append(self.site.start())
        self.counts["join"] += 1

    def _do(self, what: str) -> None:
        daemon = self.replicas.pop(self.rng.randrange(len(self.replicas)))
        self.counts[what] += 1
        if what == "leave":
            self.leaving.append(asyncio.create_task(_leave(daemon)))
        elif what == "kill":
            daemon.kill()
        else:
            daemon.freeze()
            self.frozen[daemon] = time.monotonic() + SESSION_S * self.rng.uniform(1.5, 2.5)

    async def _wait(self, seconds: float) -> None:
        """Sleep, and wake the frozen when it is time."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for daemon in [daemon for daemon, until_s in self.frozen.items() if until_s <= time.monotonic()]:
                del self.frozen[daemon]
                daemon.wake()
                self.replicas.append(daemon)
            for daemon in self.replicas:
                assert daemon.is_alive, f"a replica ended by itself, exit code {daemon.exit_code}:\n{daemon.log()}"
            await asyncio.sleep(0.1)


async def _leave(daemon: Daemon) -> None:
    try:
        await daemon.drain()
    finally:
        daemon.end()


@pytest.mark.timeout(240 + 1.5 * STORM_S)
@pytest.mark.parametrize("store", [os.environ.get("STORE", "dir")], indirect=True)
async def test_a_storm_of_rebalances_changes_nothing(
    kafka: str, tmp_path: Path, seed: int, store: dict[str, object]
) -> None:
    """Every offset applied once per lineage; alerts, scores and memory to the bit; copies only by a zombie."""
    feeds = {"wide": Feed(seed), "narrow": Feed(seed, narrow=True)}
    site = await kafka_site(kafka, tmp_path, feeds, store=store, group_session_s=SESSION_S)
    storm = Storm(site, random.Random(seed))
    try:
        async with Feeder(site, PER_S) as feeder:
            await storm.rage(STORM_S)
            await storm.settle()
            await feeder.finish()
        await finish(site, storm.replicas)
    finally:
        storm.end()
    faults, proof = await examine(site), lineage(site)
    del faults["doubled alerts"]  # judged on its own
    copies = copied(await site.alerts())
    say(f"{dict(storm.counts)}, {sum(map(len, feeds.values()))} records, ledger {dict(proof.counts)}")
    say(f"{copies.total()} copies, of {len(copies)} shards; a zombie was refused on {len(proof.fenced)}")
    assert faults == Counter()
    assert proof.faults == []
    assert proof.counts["claim"] >= len(site.ends()) * (1 + storm.counts.total() / 8), "the shards did not move"
    assert copies.keys() <= proof.fenced, "copies where no zombie was refused"
    if IS_LONG:
        assert proof.fenced, "no zombie was refused"
