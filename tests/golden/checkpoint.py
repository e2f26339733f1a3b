"""The golden checkpoints: what each version wrote, kept for ever, and how the newest was made.

    python -m tests.golden.checkpoint        writes checkpoint-v2/ anew; only while version 2 is not released

Two detectors, one of each kind of bundle, six streams, a base and a delta, an anomaly open across the cut. In version
2 two of the streams are cold, others came back and left, and there is a second shard of narrow records, cut amid its
samples. Beside the store's files lie the bundles and what must come out of the records that follow.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detector.checkpoint.protocol import Checkpointer, Identity, Outputs
from detector.checkpoint.restore import restore
from detector.checkpoint.stores.dir import DirStore
from detector.clock import ManualClock
from detector.engine import Detector, Engine
from detector.model.bundle import read_bundle
from detector.model.session import Session
from detector.records import NO_TIME, Outcome, Records, Shard
from detector.settings import DecideSettings, DetectorSettings, EngineSettings, MatchSettings, RecordSettings
from detector.sources.base import Bounds

SHARD = Shard("golden", "plant/line 1", 3)
NARROW = Shard("golden", "plant/line 2", 0)
BASE, DELTA, END = 900, 1100, 1500  # positions of the two checkpoints, and of the end of what is expected
FIXED_CHANNELS = ["flow", "head_pressure", "current", "vibration", "temperature"]
_STREAMS, _POLL = 6, 50


@dataclass(frozen=True)
class Golden:
    """One shard of a golden checkpoint."""

    name: str
    shard: Shard = SHARD
    max_streams: int = 1000

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return Path(__file__).parent / self.name

    @property
    def expected(self) -> Path:
        """What comes out of the records from DELTA to END."""
        return self.folder / ("expected.json" if self.shard == SHARD else "expected-narrow.json")

    @property
    def is_narrow(self) -> bool:
        """Whether its records bring one channel each."""
        return self.shard == NARROW

    def records(self, start: int, end: int) -> Records:
        """Samples from integers alone, so that every machine makes the same; two levels shift across DELTA."""
        make = _narrow if self.is_narrow else _record
        values: list[bytes | None] = [make(position) for position in range(start, end)]
        positions, append_ns = np.arange(start, end, dtype=np.int64), np.full(end - start, NO_TIME, np.int64)
        return Records(self.shard, values, [None] * len(values), positions, append_ns, end)

    def detectors(self) -> list[Detector]:
        """One of each kind; narrow records need to be told their channels."""
        found = []
        for kind in ("any",) if self.is_narrow else ("any", "fixed"):
            bundle = read_bundle(self.folder / f"{kind}.onnx")
            match, decide = (
                MatchSettings(stream=f"{kind}-.*"),
                DecideSettings(threshold_nines=1.6, hysteresis_nines=0.5),
            )
            channels = ["flow", "heat"] if self.is_narrow else None
            settings = DetectorSettings(match=match, decide=decide, channels=channels)
            found.append(Detector(kind, settings, bundle, Session(bundle)))
        return found

    def new_engine(self) -> Engine:
        """An engine as the golden one was."""
        record = RecordSettings(channel="channel", value="value") if self.is_narrow else RecordSettings()
        return Engine(self.shard, self.detectors(), record, EngineSettings(max_streams=self.max_streams))

    def identity(self) -> Identity:
        """Of the golden configuration."""
        running = {each.name: each.bundle for each in self.detectors()}
        bundles = {name: (bundle.sha256, bundle.label) for name, bundle in running.items()}
        return Identity(bundles, "golden", Session(running["any"]).numerics, running)


FIRST = Golden("checkpoint-v1")
SECOND = [Golden("checkpoint-v2", max_streams=4), Golden("checkpoint-v2", NARROW, max_streams=2)]


def _record(position: int) -> bytes:
    tick, stream = divmod(position, _STREAMS)
    noise = [((position * 7919 + k * 104729 + tick * tick * 31) % 1009) / 1009 for k in range(2)]
    shift = 12 if stream in (1, 4) and 178 <= tick < 200 else 0
    kind, names = ("any", ["flow", "heat"]) if stream < 3 else ("fixed", FIXED_CHANNELS)
    values = {name: round(20 + 5 * k + shift + noise[k % 2], 4) for k, name in enumerate(names)}
    document = {
        "stream": f"{kind}-{stream}",
        "time": 1_700_000_000 + tick * 10,
        "values": values,
        "labels": {"n": str(stream)},
    }
    return json.dumps(document).encode()


def _narrow(position: int) -> bytes:
    """Three streams' flow and then their heat, at every 10 seconds."""
    tick, within = divmod(position, 6)
    stream, channel = within % 3, "flow" if within < 3 else "heat"
    shift = 12 if stream == 1 and 178 <= tick < 200 else 0
    value = round(20 + shift + ((position * 7919 + tick * tick * 31) % 1009) / 1009, 4)
    document = {"stream": f"any-{stream}", "time": 1_700_000_000 + tick * 10, "channel": channel, "value": value}
    return json.dumps(document | {"labels": {"n": str(stream)}}).encode()


def plain(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Outcomes as JSON can hold them, floats exact."""
    scores = {
        f"{stream}@{event_ns}": float(score)
        for outcome in outcomes
        for each in outcome.scores
        for stream, event_ns, score in zip(each.streams, each.event_ns.tolist(), each.score.tolist(), strict=True)
    }
    return {"scores": scores, "alerts": [msgspec.to_builtins(alert) for each in outcomes for alert in each.alerts]}


class StillSource:
    """A source that is only asked about itself."""

    name = "still"

    async def bounds(self, shard: Shard, near: int | None = None) -> Bounds:
        """The whole log."""
        return Bounds(0, END)

    async def anchor(self, shard: Shard, position: int) -> str | None:
        """The record before, itself."""
        make = _narrow if shard == NARROW else _record
        return make(position - 1).decode() if position else None

    async def partitions(self, shard: Shard) -> int | None:
        """There are none."""
        return None

    async def commit(self, positions: dict[Shard, int]) -> None:
        """Nobody listens."""


async def start(golden: Golden, store: DirStore, engine: Engine) -> Checkpointer:
    """Restore the shard and take it over."""
    thread, source, clock, running = ThreadPoolExecutor(1), StillSource(), ManualClock(), golden.identity()
    parts: dict[str, Any] = {"memory": engine, "store": store, "source": source, "clock": clock, "identity": running}
    restored = await restore(golden.shard, start="earliest", alerts={}, **parts)
    return Checkpointer(manifest=restored.manifest, outputs=Outputs({}), every_s=1, engine_thread=thread, **parts)


async def advance(golden: Golden, keeper: Checkpointer, engine: Engine, start: int, end: int) -> list[Outcome]:
    """Carry records through, in polls of a few; rows of cold streams come back."""
    outcomes = []
    for at in range(start, end, _POLL):
        polled = golden.records(at, min(at + _POLL, end))
        await keeper.cold.bring_back(polled)
        outcomes.append(engine.advance(polled))
    return outcomes


async def make() -> None:
    """Write checkpoint-v2/ anew."""
    folder = SECOND[0].folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for kind in ("any", "fixed"):
        shutil.copy(folder.parent / f"tiny-{kind}.onnx", folder / f"{kind}.onnx")
    for golden in SECOND:
        engine = golden.new_engine()
        keeper = await start(golden, DirStore(folder / "state"), engine)
        for begin, end in [(0, BASE), (BASE, DELTA)]:
            await advance(golden, keeper, engine, begin, end)
            await keeper.make_durable(await keeper.take(is_replaying=False))
        expected = plain(await advance(golden, keeper, engine, DELTA, END))
        golden.expected.write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(make())
