"""The daemon against a real Kafka, killed with SIGKILL again and again: nothing lost, nothing changed, nothing doubled.

Records come in at a steady pace to the partitions of a wide and of a narrow topic, with level shifts, late, repeated
and broken ones, while the daemon is killed in bursts, often before it is ready, and left alone for a while between
them. In the end its outputs and its memory must be those of the engine over the same records in one piece, to the bit,
and those of `tidewarden score` over the same samples.

`make kill-loop` and `make kill-group` run the long forms; STORE=dir, kafka or object says where checkpoints are kept.
"""

from __future__ import annotations

import asyncio
import csv
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system import broken
from tests.system.conftest import say
from tests.system.examine import bits, examine, lineage, score_bits
from tests.system.feed import Feed
from tests.system.feeder import Feeder
from tests.system.ledger import is_at_work, serving
from tests.system.processes import DEADLINE_S, ROOT, Daemon, Tamper, until
from tests.system.site import BUNDLE, KafkaSite, Site, kafka_site

pytestmark = pytest.mark.system

IS_LONG = "LONG" in os.environ
KILLS = int(os.environ.get("KILLS", 500 if IS_LONG else 15))
GROUP_KILLS = int(os.environ.get("KILLS", 60 if IS_LONG else 3))
PER_S = 150.0  # records of each topic
SESSION_S = 6.0


@dataclass(frozen=True)
class Burst:
    """Kills a short while after one another, each second one of a daemon at work; the last one after a long while."""

    whiles_s: Sequence[float]
    rest_s: float


def bursts(kills: int, rng: random.Random) -> Iterator[Burst]:
    """So many kills in bursts."""
    longest, rest_s = (29, (5.0, 30.0)) if IS_LONG else (3, (1.0, 2.0))
    while kills:
        length = min(rng.randint(longest // 3, longest), kills - 1)
        yield Burst([rng.uniform(0.1, 1.0) for _ in range(length)], rng.uniform(*rest_s))
        kills -= length + 1


async def run_killed(site: KafkaSite, schedule: Iterable[Burst], *tampers: Tamper) -> Counter[str]:
    """Kill a daemon by a schedule, records coming all the time, and let it finish."""
    counts: Counter[str] = Counter()
    daemon = site.start(*tampers)

    def is_ready() -> bool:
        return serving(site.ledger, daemon.pid) == site.ends().keys()

    try:
        async with Feeder(site, PER_S) as feeder:
            for burst in schedule:
                for number, while_s in enumerate([*burst.whiles_s, burst.rest_s]):
                    if number % 2 or number == len(burst.whiles_s):
                        await until(is_ready, "the daemon is ready")
                    await asyncio.sleep(while_s)
                    counts["at work" if is_ready() else "before it was ready"] += 1
                    daemon.kill()
                    daemon = site.start(*tampers)
            await feeder.finish()
        await finish(site, [daemon])
    finally:
        daemon.end()
    return counts


async def finish(site: Site, daemons: Iterable[Daemon]) -> None:
    """Wait until every record is in a checkpoint, then drain."""
    async with asyncio.timeout(DEADLINE_S):
        while await site.reached() != site.ends():
            await asyncio.sleep(0.3)
    await asyncio.gather(*(daemon.drain() for daemon in daemons))


async def scored_offline(site: Site, feed: Feed) -> dict[tuple[str, int], set[bytes]]:
    """Per (stream, time) the bits that `tidewarden score` gives for the same samples, out of a CSV file."""
    table, out = site.folder / "samples.csv", site.folder / "scores.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "stream", "flow", "heat"])
        writer.writerows(_accepted(feed))
    command = [sys.executable, "-m", "detector", "score", "--input", str(table), "--output", str(out)]
    command += ["--time-unit", "s", "--stream", "stream", "--channels", "flow,heat"]
    command += ["--bundle", BUNDLE, "--config", str(site.config), "--detector", "pumps"]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with out.open(newline="") as file:
        return {
            (row["stream"], int(row["time"]) * 10**9): {bits(float(row["score"]), int(row["anomaly"]))}
            for row in csv.DictReader(file)
        }


def _accepted(feed: Feed) -> Iterable[tuple[int, str, float | None, float]]:
    """The samples that are whole and neither late nor repeated, by the plainest of rules."""
    last: dict[str, int] = {}
    for value in itertools.chain(*feed.taken):
        try:
            sample = json.loads(value)
            stream, at, values = sample["stream"], sample["time"], sample["values"]
        except (ValueError, KeyError):
            continue
        if at > last.get(stream, 0):
            last[stream] = at
            yield at, stream, values["flow"], values["heat"]


@pytest.mark.timeout(240 + 8 * KILLS)
@pytest.mark.parametrize("store", [os.environ.get("STORE", "dir")], indirect=True)
async def test_kills_change_nothing(kafka: str, tmp_path: Path, seed: int, store: dict[str, object]) -> None:
    """Alerts to the byte and once, scores and memory to the bit, and a chain of manifests without a gap."""
    feeds = {"wide": Feed(seed), "narrow": Feed(seed, narrow=True)}
    site = await kafka_site(kafka, tmp_path, feeds, store=store)
    counts = await run_killed(site, bursts(KILLS, random.Random(seed)))
    faults, proof = await examine(site), lineage(site)
    events = Counter(json.loads(alert)["event"] for alert in await site.alerts())
    say(f"kills {dict(counts)}, {sum(map(len, feeds.values()))} records, alerts {dict(events)}")
    say(f"ledger {dict(proof.counts)}")
    assert faults == Counter()
    assert proof.faults == []
    assert min(events["open"], events["update"], events["close"]) >= 20, f"too quiet to prove anything: {events}"
    assert counts["at work"] >= KILLS / 3, f"few kills hit a daemon at work: {counts}"
    assert counts["before it was ready"] >= KILLS / 20, f"few kills hit a daemon that was starting: {counts}"
    found = score_bits(await site.scores())
    wide = {where[1:]: each for where, each in found.items() if where[0] == site.topics["wide"]}
    assert wide == await scored_offline(site, feeds["wide"])


async def run_killed_in_turn(site: KafkaSite, kills: int, rng: random.Random) -> Counter[str]:
    """Two replicas of a group, killed in turn, each when it has work to lose."""
    counts: Counter[str] = Counter()
    replicas = [site.start(), site.start()]
    try:
        async with Feeder(site, PER_S) as feeder:
            for number in range(kills):
                victim = replicas[number % 2]
                await until(lambda victim=victim: is_at_work(site.ledger, victim.pid), "the victim has work")
                await asyncio.sleep(rng.uniform(0.0, 1.0))
                counts["at work"] += is_at_work(site.ledger, victim.pid)
                victim.kill()
                replicas[number % 2] = site.start()
            await feeder.finish()
        await finish(site, replicas)
    finally:
        for replica in replicas:
            replica.end()
    return counts


@pytest.mark.timeout(240 + 60 * GROUP_KILLS)
@pytest.mark.parametrize("store", [os.environ.get("STORE", "kafka")], indirect=True)
async def test_kills_in_a_group_change_nothing(kafka: str, tmp_path: Path, seed: int, store: dict[str, object]) -> None:
    """The same where the shards of the dead go to the other replica."""
    feeds = {"wide": Feed(seed), "narrow": Feed(seed, narrow=True)}
    site = await kafka_site(kafka, tmp_path, feeds, store=store, group_session_s=SESSION_S)
    counts = await run_killed_in_turn(site, GROUP_KILLS, random.Random(seed))
    faults, proof = await examine(site), lineage(site)
    say(f"kills {dict(counts)}, {sum(map(len, feeds.values()))} records, ledger {dict(proof.counts)}")
    assert faults == Counter()
    assert proof.faults == []
    assert counts["at work"] >= GROUP_KILLS / 2, f"few kills hit a replica at work: {counts}"
    assert proof.counts["claim"] >= len(site.ends()) + 2 * GROUP_KILLS, "the shards did not move"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fault", "linger_ms", "every_s", "shown_by"),
    [
        (broken.early_manifest, 300, 0.1, "lost alerts"),
        (broken.no_suppression, 2, 0.5, "doubled alerts"),
        (broken.ids_from_wall_time, 2, 0.5, "extra alerts"),
    ],
)
async def test_control_a_broken_law_is_found(
    kafka: str, tmp_path: Path, seed: int, fault: Tamper, linger_ms: int, every_s: float, shown_by: str
) -> None:
    """The examination has teeth: in one of a few rounds, for no single kill need strike where it hurts."""
    rng = random.Random(seed)
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        site = await kafka_site(kafka, folder, {"wide": Feed(seed + number)}, linger_ms=linger_ms, every_s=every_s)
        await run_killed(site, [Burst([], rng.uniform(0.5, 1.5)) for _ in range(4)], fault)
        faults = await examine(site)
        say(f"{fault.__name__}: {dict(faults)}")
        if faults[shown_by]:
            return
    pytest.fail(f"no {shown_by} in five rounds")
