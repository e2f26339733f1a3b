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
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from aiokafka import AIOKafkaProducer

from detector.app import load_detectors
from detector.engine import Engine
from detector.errors import SourceError
from detector.kafka_client import describe_cluster
from detector.records import NO_TIME, Outcome, Records, Shard
from detector.settings import KafkaSourceSettings, load
from detector.sinks.encode import encode_alert
from tests.kafka.topics import create_topic, new_name, read_all

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
BUNDLE = str(ROOT / "tests/golden/tiny-any.onnx")
PARTITIONS = 4
STREAMS = 60
SAMPLES = 400  # of each stream: about 25,000 records
WARM_UP = 9500  # records before the first fault of a stream; they come at once
SHARE_S = 1.4  # how long the records between two kills take to come
DEADLINE_S = 60.0


@dataclass
class Feed:
    """The records of each partition, and how far they were appended."""

    seed: int
    partitions: list[list[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self.partitions = [[] for _ in range(PARTITIONS)]
        streams = [_stream(rng, i) for i in range(STREAMS)]
        for tick in range(SAMPLES):
            for i in rng.sample(range(STREAMS), STREAMS):
                mine, plan = self.partitions[i % PARTITIONS], streams[i]
                mine.append(plan[tick])
                if rng.random() < 0.02:
                    mine.append(plan[max(0, tick - rng.randrange(4))])  # late, or the same again
                if rng.random() < 0.01:
                    mine.append(rng.choice([b"{", b"\xff\xfe", b'{"stream": "pump"}', plan[tick][:-9]]))

    def __len__(self) -> int:
        return sum(map(len, self.partitions))

    def interleaved(self) -> Iterable[tuple[int, bytes]]:
        """All partitions' records in the order in which they are appended."""
        longest = max(map(len, self.partitions))
        for at in range(longest):
            for partition, values in enumerate(self.partitions):
                if at < len(values):
                    yield partition, values[at]


def _stream(rng: random.Random, number: int) -> list[bytes]:
    """A stream's samples: noise about a level, with faults that shift it."""
    values, level, until = [], 50.0, 0
    for tick in range(SAMPLES):
        if tick > 150 and tick >= until and rng.random() < 0.02:
            until = tick + rng.randrange(5, 40)
            level = 50.0 + rng.choice([-1, 1]) * rng.uniform(20, 60)
        elif tick == until:
            level = 50.0
        flow = None if rng.random() < 0.03 else level + rng.gauss(0, 1)
        sample = {"flow": flow, "heat": 20 + rng.gauss(0, 0.2)}
        record = {"stream": f"pump-{number:02d}", "time": 1_600_000_000 + tick * 10, "values": sample}
        values.append(json.dumps(record).encode())
    return values


@dataclass
class Site:
    """One input topic with its feed, and the places where a daemon's outputs go."""

    address: str
    folder: Path
    feed: Feed
    linger_ms: int = 20
    every_s: float = 0.5
    topic: str = ""
    cluster: str = ""
    config: Path = Path()
    alerts: str = ""
    scores: str = ""

    async def build(self, topic: str | None = None) -> Site:
        """Create the topics and write the configuration."""
        self.folder.mkdir(exist_ok=True)
        self.topic = topic or await create_topic(self.address, PARTITIONS)
        self.alerts = await create_topic(self.address, PARTITIONS)
        self.scores = await create_topic(self.address, PARTITIONS)
        source = {
            "type": "kafka",
            "bootstrap_servers": self.address,
            "topics": [self.topic],
            "partitions": f"0-{PARTITIONS - 1}",
            "group": new_name("group"),
        }
        sink = {"type": "kafka", "bootstrap_servers": self.address, "linger_ms": self.linger_ms}
        decide = {"threshold_nines": 1.6, "hysteresis_nines": 0.5, "resolve_samples": 2, "cool_down_s": 0}
        decide |= {"update_every_s": 40}  # of event time: four samples
        settings = {
            "sources": {"plant": source},
            "detectors": {"pumps": {"bundle": BUNDLE, "decide": decide}},
            "sinks": {
                "alerts": {"out": sink | {"topic": self.alerts}},
                "scores": {"all": sink | {"topic": self.scores}},
                "scores_mode": "complete",
            },
            "checkpoint": {"path": str(self.folder / "state"), "every_s": self.every_s},
            "http": {"port": 0},
        }
        self.config = self.folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(settings))
        self.cluster = (await describe_cluster(KafkaSourceSettings(**source), "test", SourceError)).id
        return self

    def start(self, fault: str | None = None) -> Daemon:
        """A daemon of this site, sound or broken."""
        command = ["-m", "tests.system.broken_daemon", fault] if fault else ["-m", "detector", "run"]
        return Daemon([*command, "-c", str(self.config)], self.folder / "log.txt")

    def golden(self) -> list[Outcome]:
        """What the engine says of each partition in one piece."""
        settings = load(self.config)
        detectors, _ = load_detectors(settings)
        record, outcomes = settings.sources["plant"].record, []
        for partition, values in enumerate(self.feed.partitions):
            shard = Shard(self.cluster, self.topic, partition)
            engine = Engine(shard, detectors, record, settings.engine)
            count = len(values)
            positions, append_ns = np.arange(count, dtype=np.int64), np.full(count, NO_TIME, np.int64)
            outcomes.append(engine.advance(Records(shard, list(values), [None] * count, positions, append_ns, count)))
        return outcomes


class Daemon:
    """The daemon as a process."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        self._seen = log.stat().st_size if log.exists() else 0
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                stdout=stream,
                stderr=stream,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def log(self) -> str:
        """What this process has written."""
        return self._log.read_bytes()[self._seen :].decode(errors="replace")

    async def until_serving(self) -> None:
        """Wait until every shard is restored."""
        deadline = time.monotonic() + DEADLINE_S
        while self.log().count('"shard restored"') + self.log().count('"shard started without memory"') < PARTITIONS:
            assert self._process.poll() is None, f"the daemon ended by itself:\n{self.log()}"
            assert time.monotonic() < deadline, f"the daemon does not get ready:\n{self.log()}"
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL; it must have been alive."""
        assert self._process.poll() is None, f"the daemon ended by itself:\n{self.log()}"
        self._process.kill()
        self._process.wait()

    async def drain(self) -> None:
        """SIGTERM; it must end by itself, in order."""
        self._process.terminate()
        code = await asyncio.to_thread(self._process.wait, DEADLINE_S)
        assert code == 0, f"exit code {code}:\n{self.log()}"

    def end(self) -> None:
        """Whatever happened."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Feeder:
    """Appends a feed share by share, each at a steady pace, so that records come in at every kill."""

    def __init__(self, site: Site, shares: int) -> None:
        self._site, self._producer = site, AIOKafkaProducer(bootstrap_servers=site.address, acks="all", linger_ms=5)
        self._share = (len(site.feed) - WARM_UP) // (shares + 1)  # the last one comes when the last kill is over
        self._records, self._pending = site.feed.interleaved(), []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Feeder:
        await self._producer.start()
        await self._append(WARM_UP, pace=None)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
        await self._producer.stop()

    async def begin_share(self) -> None:
        """Append the next share in the background, over SHARE_S seconds; after what is left of the one before."""
        if self._task is not None:
            await self._task
        self._task = asyncio.create_task(self._append(self._share, pace=self._share / SHARE_S))

    @property
    def is_busy(self) -> bool:
        """Whether records of a share are still to come."""
        return self._task is not None and not self._task.done()

    async def finish(self) -> None:
        """Append all that is left, and wait until all of it is acknowledged."""
        if self._task is not None:
            await self._task
        await self._append(len(self._site.feed), pace=None)
        await asyncio.gather(*self._pending)

    async def _append(self, count: int, pace: float | None) -> None:
        started_s = time.monotonic()
        for done, (partition, value) in enumerate(itertools.islice(self._records, count)):
            self._pending.append(await self._producer.send(self._site.topic, value, partition=partition))
            while pace is not None and done > (time.monotonic() - started_s) * pace:
                await asyncio.sleep(0.01)


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
