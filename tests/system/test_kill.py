"""The daemon against a real Kafka, killed with SIGKILL again and again: nothing lost, nothing changed, nothing doubled.

A feeder appends samples at a steady pace to four partitions, with level shifts, late, repeated and broken records. The
daemon runs as a process and is killed at random moments while they come in. In the end its outputs must be those of
the engine over the same records in one piece, to the bit, those of `tidewarden score` over the same samples, and those
of a daemon that nobody killed. Two daemons with
one law of the checkpoint protocol broken must fail the same examination.
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
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from detector.sinks.encode import encode_alert
from tests.kafka.topics import read_all
from tests.system.killing import BUNDLE, DEADLINE_S, ROOT, SHARE_S, Daemon, Feed, Feeder, Site

pytestmark = pytest.mark.system


async def run_killed(site: Site, kills: int, rng: random.Random, fault: str | None = None) -> int:
    """Kill a daemon so many times while records come, then let it finish; returns how many kills hit it at work."""
    hits = 0
    daemon = site.start(fault)
    try:
        async with Feeder(site, kills) as feeder:
            for _ in range(kills):
                await daemon.until_serving()
                await feeder.begin_share()
                await asyncio.sleep(rng.uniform(0.05, 0.9 * SHARE_S))
                hits += feeder.is_busy
                daemon.kill()
                daemon = site.start(fault)
            await feeder.finish()
            await finish(site, daemon)
    finally:
        daemon.end()
    return hits


async def finish(site: Site, daemon: Daemon) -> None:
    """Wait until the last record of each partition is scored, then drain."""
    last = {
        (scores.streams[at], int(scores.event_ns[at]))
        for outcome in site.golden()
        for scores in outcome.scores
        for at in [int(scores.positions.argmax())]
    }
    deadline_s = time.monotonic() + DEADLINE_S
    while not last <= (await scores_on(site)).keys():
        assert time.monotonic() < deadline_s, f"not all records were scored:\n{daemon.log()}"
        await asyncio.sleep(0.3)
    await daemon.drain()


async def scores_on(site: Site) -> dict[tuple[str, int], set[bytes]]:
    """Per (stream, time) the bits of every score on the topic."""
    found: dict[tuple[str, int], set[bytes]] = {}
    for records in (await read_all(site.address, site.scores)).values():
        for record in records:
            score = json.loads(record.value)
            found.setdefault((score["stream"], score["time_ns"]), set()).add(_bits(score["score"], score["anomaly"]))
    return found


def _bits(score: float, anomaly: int) -> bytes:
    return np.float32(score).tobytes() + bytes([anomaly])


async def alerts_on(site: Site) -> dict[int, list[bytes]]:
    """Per partition the alerts on the topic, in order."""
    found = await read_all(site.address, site.alerts)
    return {partition: [record.value for record in records] for partition, records in found.items()}


def without_copies(alerts: list[bytes]) -> dict[str, bytes]:
    """Alerts by id, in the order of their first copy; copies must be equal."""
    found: dict[str, bytes] = {}
    for alert in alerts:
        assert found.setdefault(json.loads(alert)["id"], alert) == alert
    return found


async def examine(site: Site) -> Counter[str]:
    """What is lost, extra, changed, out of order or doubled, against the engine in one piece."""
    faults: Counter[str] = Counter()
    alerts = await alerts_on(site)
    for partition, outcome in enumerate(site.golden()):
        golden = {alert.id: encode_alert(alert) for alert in outcome.alerts}
        given = without_copies(alerts[partition])
        faults["lost alerts"] += len(golden.keys() - given.keys())
        faults["extra alerts"] += len(given.keys() - golden.keys())
        faults["changed alerts"] += sum(given[key] != golden[key] for key in golden.keys() & given.keys())
        faults["doubled alerts"] += len(alerts[partition]) - len(given)
        faults["misplaced alerts"] += _per_stream(given.values()) != _per_stream(golden.values())
    faults["wrong scores"] += await scores_on(site) != golden_scores(site)
    return +faults


def _per_stream(alerts: Iterable[bytes]) -> dict[str, list[str]]:
    order: dict[str, list[str]] = {}
    for alert in map(json.loads, alerts):
        order.setdefault(alert["stream"], []).append(alert["id"])
    return order


def golden_scores(site: Site) -> dict[tuple[str, int], set[bytes]]:
    """Per (stream, time) the bits that the engine gives."""
    return {
        (stream, event_ns): {_bits(score, anomaly)}
        for outcome in site.golden()
        for scores in outcome.scores
        for stream, event_ns, score, anomaly in zip(
            scores.streams, scores.event_ns.tolist(), scores.score, scores.anomaly.tolist(), strict=True
        )
    }


def _say(text: str) -> None:
    print(text)  # noqa: T201  # what the run did, for whoever reads its log


@pytest.fixture
def seed() -> int:
    """Printed; TIDEWARDEN_TEST_SEED repeats a run."""
    chosen = int(os.environ.get("TIDEWARDEN_TEST_SEED", random.SystemRandom().randrange(10**6)))
    _say(f"TIDEWARDEN_TEST_SEED={chosen}")
    return chosen


async def scored_offline(site: Site) -> dict[tuple[str, int], set[bytes]]:
    """Per (stream, time) the bits that `tidewarden score` gives for the same samples, out of a CSV file."""
    table, out = site.folder / "samples.csv", site.folder / "scores.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "stream", "flow", "heat"])
        writer.writerows(_accepted(site.feed))
    command = [sys.executable, "-m", "detector", "score", "--input", str(table), "--output", str(out)]
    command += ["--time-unit", "s", "--stream", "stream", "--channels", "flow,heat"]
    command += ["--bundle", BUNDLE, "--config", str(site.config), "--detector", "pumps"]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with out.open(newline="") as file:
        return {
            (row["stream"], int(row["time"]) * 10**9): {_bits(float(row["score"]), int(row["anomaly"]))}
            for row in csv.DictReader(file)
        }


def _accepted(feed: Feed) -> Iterable[tuple[int, str, float | None, float]]:
    """The samples that are whole and neither late nor repeated, by the plainest of rules."""
    last: dict[str, int] = {}
    for value in itertools.chain(*feed.partitions):
        try:
            sample = json.loads(value)
            stream, at, values = sample["stream"], sample["time"], sample["values"]
        except (ValueError, KeyError):
            continue
        if at > last.get(stream, 0):
            last[stream] = at
            yield at, stream, values["flow"], values["heat"]


@pytest.mark.timeout(150)
async def test_twelve_kills_change_nothing(kafka: str, tmp_path: Path, seed: int) -> None:
    """Scores to the bit, alerts as a set and in order per stream, duplicates 0; the same as a daemon left in peace."""
    site = await Site(kafka, tmp_path / "killed", Feed(seed)).build()
    hits = await run_killed(site, 12, random.Random(seed))
    assert hits >= 10, f"only {hits} kills hit a daemon that had records to come"
    assert await examine(site) == {}
    assert await scores_on(site) == await scored_offline(site)
    alerts = await alerts_on(site)
    events = Counter(json.loads(alert)["event"] for of_one in alerts.values() for alert in of_one)
    assert min(events["open"], events["update"], events["close"]) >= 20, f"too quiet to prove anything: {events}"

    peaceful = await Site(kafka, tmp_path / "peaceful", site.feed).build(site.topic)
    daemon = peaceful.start()
    try:
        await finish(peaceful, daemon)
    finally:
        daemon.end()
    undisturbed = await alerts_on(peaceful)
    for partition, given in alerts.items():
        assert sorted(given) == sorted(undisturbed[partition])
        assert _per_stream(given) == _per_stream(undisturbed[partition])
    _say(f"{hits} kills, {len(site.feed)} records, alerts: {dict(events)}")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("fault", "linger_ms", "every_s", "shown_by"),
    [("early-manifest", 300, 0.1, "lost alerts"), ("no-suppression", 2, 0.5, "doubled alerts")],
)
async def test_control_a_broken_protocol_fails(
    kafka: str, tmp_path: Path, seed: int, fault: str, linger_ms: int, every_s: float, shown_by: str
) -> None:
    """The examination has teeth: each fault is found."""
    site = await Site(kafka, tmp_path / fault, Feed(seed), linger_ms, every_s).build()
    await run_killed(site, 5, random.Random(seed), fault)
    faults = await examine(site)
    _say(f"{fault}: {dict(faults)}")
    assert faults[shown_by] > 0
