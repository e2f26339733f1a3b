"""Laws that no schedule of kills shows by itself, each with a daemon that breaks it.

The control for fsync needs a disk that forgets, which no SIGKILL makes: it is in tests/scenarios/test_power_loss.py.
Those for alerts before the manifest, for ids and for suppression are in test_kill.py.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from detector.checkpoint.base import manifests_newest_first
from detector.checkpoint.format import decode_manifest
from detector.checkpoint.segments import read_segment
from detector.checkpoint.stores.dir import DirStore
from detector.records import Shard
from tests.system import broken
from tests.system.conftest import say
from tests.system.crashes import crash_at
from tests.system.examine import examine, lineage, scores_are
from tests.system.feed import CALM, Feed
from tests.system.feeder import Feeder
from tests.system.ledger import is_at_work, serving
from tests.system.processes import Daemon, Tamper, until
from tests.system.site import FileSite, KafkaSite, file_site, kafka_site
from tests.system.test_kill import PER_S, finish

pytestmark = pytest.mark.system

TICKS = 300


async def run_zombie(site: KafkaSite, shows: Callable[[Daemon], bool], *tampers: Tamper) -> Daemon:
    """Freeze a daemon at work, let another one take its shards and work on, wake it, and wait for what it `shows`."""
    zombie = site.start(*tampers)
    heir = None
    try:
        async with Feeder(site, PER_S) as feeder:
            await until(lambda: is_at_work(site.ledger, zombie.pid), "the first one works")
            await asyncio.sleep(1.0)
            zombie.freeze()
            heir = site.start()
            await until(lambda: serving(site.ledger, heir.pid) == site.ends().keys(), "the second one took over")
            await asyncio.sleep(1.0)
            zombie.wake()
            await until(lambda: shows(zombie), "the zombie shows what it is")
            await feeder.finish()
        await finish(site, [heir])
    finally:
        for daemon in (zombie, heir):
            if daemon is not None:
                daemon.end()
    return zombie


async def zombie_site(kafka: str, folder: Path, seed: int) -> KafkaSite:
    return await kafka_site(kafka, folder, {"wide": Feed(seed), "narrow": Feed(seed, narrow=True)})


@pytest.mark.timeout(240)
async def test_a_zombie_is_refused(kafka: str, tmp_path: Path, seed: int) -> None:
    """What wakes up after its shards were claimed writes no manifest, says so and ends; its alerts are copies."""
    site = await zombie_site(kafka, tmp_path, seed)
    zombie = await run_zombie(site, lambda zombie: not zombie.is_alive)
    faults, proof = await examine(site), lineage(site)
    copies = faults.pop("doubled alerts", 0)
    say(f"{copies} copies, ledger {dict(proof.counts)}")
    assert (faults, proof.faults) == (Counter(), [])
    assert proof.counts["fenced"] > 0
    assert zombie.exit_code == 1
    assert "claimed by another owner" in zombie.log()


@pytest.mark.timeout(240)
async def test_control_a_zombie_that_ignores_the_fence_is_found(kafka: str, tmp_path: Path, seed: int) -> None:
    """The ledger shows its manifests."""
    site = await zombie_site(kafka, tmp_path, seed)

    def told() -> bool:
        return any("had seen another one's claim" in fault for fault in lineage(site).faults)

    await run_zombie(site, lambda _: told(), broken.ignored_fence)
    faults = lineage(site).faults
    say(f"{len(faults)} faults, the first: {faults[:1]}")
    assert told()


async def run_damaged(folder: Path, seed: int, *tampers: Tamper) -> tuple[FileSite, Daemon]:
    """Crash, flip one bit in the newest rows of a shard, and go on to the end."""
    feed = Feed(seed, partitions=1, streams=12)
    feed.take_ticks(TICKS)
    site = file_site(folder / "in", folder, {"wide": feed}, every_s=0.001)
    calm = {shard: len(feed) * CALM // TICKS for shard in site.ends()}
    crashed = site.start(partial(crash_at, "a manifest", random.Random(seed).randint(4, 6), calm, folder / "reached"))
    await crashed.until_ended(-9)
    await flip_a_bit(DirStore(folder / "state"), next(iter(calm)))
    daemon = site.start(*tampers)
    try:
        await daemon.until_ended()
    finally:
        daemon.end()
    return site, daemon


async def flip_a_bit(store: DirStore, shard: Shard) -> None:
    """In the time at which a stream was last heard, in the rows that the newest manifest alone names."""
    name = manifests_newest_first(await store.names(shard))[0]
    segment = decode_manifest(await store.read(shard, name), name).segments[-1]
    (rows,) = await read_segment(store, shard, segment)
    path = store.folder(shard) / segment.name
    data = bytearray(path.read_bytes())
    data[data.rindex(rows.arrays["last_ns"][0].tobytes()) + 6] ^= 0x10  # 52 days
    path.write_bytes(data)


async def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, seed: int) -> None:
    """The one before it serves, it is said, and nothing else shows."""
    site, daemon = await run_damaged(tmp_path, seed)
    assert "damaged checkpoint passed over" in daemon.log()
    assert await examine(site) == Counter()


async def test_control_without_checksums_damage_is_found(tmp_path: Path, seed: int) -> None:
    """In the scores that come after it."""
    site, daemon = await run_damaged(tmp_path, seed, broken.ignored_checksum)
    assert "damaged checkpoint passed over" not in daemon.log()
    assert not scores_are(await site.scores(), site.golden())
