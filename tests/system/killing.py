"""A site for the kill test: an input topic with its feed, a daemon as a process, and where its outputs go."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from aiokafka import AIOKafkaProducer

from detector.app import load_detectors
from detector.engine import Engine
from detector.errors import SourceError
from detector.kafka_client import describe_cluster
from detector.records import NO_TIME, Outcome, Records, Shard
from detector.settings import KafkaSourceSettings, load
from tests.kafka.topics import create_topic, new_name

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
