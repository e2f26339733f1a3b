"""A place where a daemon works: its configuration, the records that its sources hold, and what came out.

    site = await kafka_site(address, folder, {"wide": Feed(seed), "narrow": Feed(seed, narrow=True)})
    daemon = site.start()

A file site is the same on files, for tests that need no broker. Both may keep their checkpoints in any store. `golden`
is what must come out: what the engine says of each shard's records in one piece.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import yaml

from detector.app import load_detectors
from detector.checkpoint.base import Store, manifests_newest_first
from detector.checkpoint.format import decode_manifest
from detector.checkpoint.stores import make_store
from detector.engine import Engine
from detector.errors import SourceError
from detector.kafka.client import describe_cluster
from detector.records import NO_TIME, Outcome, Records, Shard, Snapshot
from detector.settings import KafkaSourceSettings, Settings, load
from tests.kafka.topics import create_topic, new_name, read_all
from tests.system import ledger, narrow
from tests.system.feed import Feed
from tests.system.processes import ROOT, Daemon, Tamper

BUNDLE = str(ROOT / "tests/golden/tiny-any.onnx")
_DECIDE = {
    "threshold_nines": 1.6,
    "hysteresis_nines": 0.5,
    "resolve_samples": 2,
    "cool_down_s": 0,
    "update_every_s": 40,  # of event time: four samples
}
_RECORD: Mapping[bool, Mapping[str, str]] = {False: {}, True: narrow.RECORD}
"""How a feed is read, by whether it is narrow."""


@dataclass(frozen=True)
class Golden:
    """What must come out for one shard."""

    outcomes: Sequence[Outcome]
    memory: Snapshot


@dataclass
class Site(ABC):
    """Where a daemon works. The rest is in `FileSite` and `KafkaSite`."""

    folder: Path
    feeds: Mapping[str, Feed]
    """By the name of their source."""
    is_finite: ClassVar[bool] = False
    """Whether the sources end, and close then what has not all arrived."""
    settings: Settings = field(init=False)
    starts: int = field(init=False, default=0)

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "config.yaml"

    @property
    def ledger(self) -> Path:
        """What the daemons did, kept by themselves."""
        return self.folder / "ledger"

    def write(self, settings: dict[str, Any]) -> None:
        """Write the configuration and make the folders."""
        self.ledger.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(settings))
        self.settings = load(self.config)

    def start(self, *tampers: Tamper) -> Daemon:
        """A daemon of this site, sound or tampered with."""
        self.starts += 1
        return Daemon(
            self.config, self.folder / f"log-{self.starts}.txt", [partial(ledger.keep, self.ledger), *tampers]
        )

    def store(self) -> Store:
        """The store of checkpoints, not yet started."""
        return make_store(self.settings.checkpoint)

    @abstractmethod
    def records(self) -> Iterator[tuple[str, Records]]:
        """Per shard the name of its source and all its records in one piece."""

    @abstractmethod
    async def alerts(self) -> list[bytes]:
        """The alerts that came out; those of a stream in their order."""

    @abstractmethod
    async def scores(self) -> list[bytes]:
        """The scores that came out."""

    def ends(self) -> dict[Shard, int]:
        """Per shard one past its last record."""
        return {records.shard: records.next_position for _, records in self.records()}

    def engine(self, shard: Shard, source: str) -> Engine:
        """An engine as the daemon has it."""
        detectors, _ = load_detectors(self.settings)
        return Engine(shard, detectors, self.settings.sources[source].record, self.settings.engine)

    def golden(self) -> dict[Shard, Golden]:
        """What the engine says of each shard in one piece."""
        found = {}
        for source, records in self.records():
            engine = self.engine(records.shard, source)
            outcomes = [engine.advance(records)]
            if self.is_finite:
                outcomes.append(engine.flush())
            found[records.shard] = Golden(outcomes, engine.snapshot(full=True))
        return found

    async def reached(self) -> dict[Shard, int]:
        """Per shard how far its newest manifest is, as the store says."""
        store, found = self.store(), {}
        await store.start()
        try:
            for shard in self.ends():
                if newest := manifests_newest_first(await store.names(shard))[:1]:
                    found[shard] = decode_manifest(await store.read(shard, newest[0]), newest[0]).position
        finally:
            await store.stop()
        return found


@dataclass
class FileSite(Site):
    """Files in, files out: `in-<source>-<partition>.jsonl` hold the feeds, which were taken before."""

    is_finite: ClassVar[bool] = True
    inputs: Path = Path()

    def records(self) -> Iterator[tuple[str, Records]]:
        """Positions are offsets in bytes."""
        for source, feed in self.feeds.items():
            for partition, lines in enumerate(feed.taken):
                path = self.inputs / f"in-{source}-{partition}.jsonl"
                starts = [0, *accumulate(len(line) + 1 for line in lines)]
                shard = Shard(f"file:{source}", str(path), 0)
                yield source, _records(shard, lines, np.array(starts[:-1], np.int64), starts[-1], path.stem.encode())

    async def alerts(self) -> list[bytes]:
        """Whole lines of the file."""
        return _lines(self.folder / "alerts.jsonl")

    async def scores(self) -> list[bytes]:
        """Whole lines of the file."""
        return _lines(self.folder / "scores.jsonl")


def file_site(
    inputs: Path,
    folder: Path,
    feeds: Mapping[str, Feed],
    *,
    store: Mapping[str, Any] | None = None,
    every_s: float = 0.5,
) -> FileSite:
    """Write the feeds to `inputs` unless they are there, and a configuration that reads them."""
    site = FileSite(folder, feeds, inputs)
    for _, records in site.records():
        path = Path(records.shard.topic)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(value + b"\n" for value in records.values))
    sources = {
        name: {"type": "file", "paths": [str(inputs / f"in-{name}-*.jsonl")], "record": dict(_RECORD[feed.narrow])}
        for name, feed in feeds.items()
    }
    sinks = {name: {"type": "file", "path": str(folder / f"{name}.jsonl")} for name in ("alerts", "scores")}
    site.write(_settings(sources, sinks, _checkpoint(folder, store, every_s)))
    return site


@dataclass
class KafkaSite(Site):
    """Topics in, topics out, each with as many partitions as the feeds have."""

    address: str = ""
    topics: dict[str, str] = field(default_factory=dict)
    """Per source its topic."""
    cluster: str = ""
    alerts_topic: str = ""
    scores_topic: str = ""

    def records(self) -> Iterator[tuple[str, Records]]:
        """Positions are offsets, and nobody else appends."""
        for source, feed in self.feeds.items():
            for partition, values in enumerate(feed.taken):
                shard = Shard(self.cluster, self.topics[source], partition)
                yield source, _records(shard, values, np.arange(len(values), dtype=np.int64), len(values), None)

    async def alerts(self) -> list[bytes]:
        """What is on the topic."""
        return await _on(self.address, self.alerts_topic)

    async def scores(self) -> list[bytes]:
        """What is on the topic."""
        return await _on(self.address, self.scores_topic)


async def kafka_site(
    address: str,
    folder: Path,
    feeds: Mapping[str, Feed],
    *,
    topics: Mapping[str, str] | None = None,
    store: Mapping[str, Any] | None = None,
    every_s: float = 0.5,
    linger_ms: int = 20,
    group_session_s: float | None = None,
) -> KafkaSite:
    """Create the topics, and a configuration with static assignment, or for a group with that session timeout."""
    partitions = len(next(iter(feeds.values())).taken)
    made = [await create_topic(address, partitions) for _ in range(2)]
    topics = dict(topics or {name: await create_topic(address, partitions) for name in feeds})
    membership: dict[str, Any] = {"partitions": f"0-{partitions - 1}"}
    if group_session_s is not None:
        membership = {"session_timeout_s": group_session_s}
    client = {"type": "kafka", "bootstrap_servers": address}
    sources = {
        name: client
        | membership
        | {"topics": [topics[name]], "group": new_name("group"), "record": dict(_RECORD[feed.narrow])}
        for name, feed in feeds.items()
    }
    outputs = dict(zip(("alerts", "scores"), made, strict=True))
    sinks = {name: client | {"linger_ms": linger_ms, "topic": topic} for name, topic in outputs.items()}
    cluster = await describe_cluster(KafkaSourceSettings(**next(iter(sources.values()))), "test", SourceError)
    site = KafkaSite(folder, feeds, address, topics, cluster.id, *made)
    site.write(_settings(sources, sinks, _checkpoint(folder, store, every_s)))
    return site


def _settings(sources: Mapping[str, Any], sinks: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sources": dict(sources),
        "detectors": {"pumps": {"bundle": BUNDLE, "channels": ["flow", "heat"], "decide": _DECIDE}},
        "sinks": {
            "alerts": {"out": sinks["alerts"]},
            "scores": {"all": sinks["scores"]},
            "scores_mode": "complete",
        },
        "checkpoint": dict(checkpoint),
        "http": {"port": 0},
    }


def _checkpoint(folder: Path, store: Mapping[str, Any] | None, every_s: float) -> dict[str, Any]:
    return {"every_s": every_s, **(store or {"type": "dir", "path": str(folder / "state")})}


def _records(shard: Shard, values: Sequence[bytes], positions: Any, end: int, key: bytes | None) -> Records:
    append_ns = np.full(len(values), NO_TIME, np.int64)
    return Records(shard, list(values), [key] * len(values), positions, append_ns, end)


def _lines(path: Path) -> list[bytes]:
    return [line[:-1] for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


async def _on(address: str, topic: str) -> list[bytes]:
    return [record.value for records in (await read_all(address, topic)).values() for record in records]


def shard_of(alert: bytes) -> Shard:
    """Whose alert it is."""
    source = json.loads(alert)["source"]
    return Shard(source["cluster"], source["topic"], source["partition"])
