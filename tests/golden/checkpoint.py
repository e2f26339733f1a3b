"""The golden checkpoint: what version 1 wrote, kept for ever in checkpoint-v1/, and how it was made.

    python -m tests.golden.checkpoint        writes it anew; only while version 1 is not released

Two detectors, one of each kind of bundle, six streams, a base and a delta, an anomaly open across the cut. Beside the
store's files lie the bundles and what must come out of the records that follow.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detector.checkpoint.protocol import Checkpointer, Identity, Outputs
from detector.checkpoint.restore import restore
from detector.checkpoint.store_dir import DirStore
from detector.clock import ManualClock
from detector.engine import Detector, Engine
from detector.model.bundle import read_bundle
from detector.model.session import Session
from detector.records import NO_TIME, Outcome, Records, Shard
from detector.settings import DecideSettings, DetectorSettings, EngineSettings, MatchSettings, RecordSettings
from detector.sources.base import Bounds

FOLDER = Path(__file__).parent / "checkpoint-v1"
SHARD = Shard("golden", "plant/line 1", 3)
BASE, DELTA, END = 900, 1100, 1500  # positions of the two checkpoints, and of the end of what is expected
FIXED_CHANNELS = ["flow", "head_pressure", "current", "vibration", "temperature"]
_STREAMS = 6


def records(start: int, end: int) -> Records:
    """Samples from integers alone, so that every machine makes the same; two levels shift across DELTA."""
    count = end - start
    values: list[bytes | None] = [_record(position) for position in range(start, end)]
    positions, append_ns = np.arange(start, end, dtype=np.int64), np.full(count, NO_TIME, np.int64)
    return Records(SHARD, values, [None] * count, positions, append_ns, end)


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


def detectors() -> list[Detector]:
    """One of each kind."""
    found = []
    for kind in ("any", "fixed"):
        bundle = read_bundle(FOLDER / f"{kind}.onnx")
        match, decide = MatchSettings(stream=f"{kind}-.*"), DecideSettings(threshold_nines=1.6, hysteresis_nines=0.5)
        found.append(Detector(kind, DetectorSettings(match=match, decide=decide), bundle, Session(bundle)))
    return found


def new_engine() -> Engine:
    """An engine as the golden one was."""
    return Engine(SHARD, detectors(), RecordSettings(), EngineSettings())


def identity() -> Identity:
    """Of the golden configuration."""
    running = detectors()
    bundles = {each.name: (each.bundle.sha256, each.bundle.label) for each in running}
    return Identity(bundles, "golden", Session(running[0].bundle).numerics)


def plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON can hold it, floats exact."""
    scores = {
        f"{stream}@{event_ns}": float(score)
        for each in outcome.scores
        for stream, event_ns, score in zip(each.streams, each.event_ns.tolist(), each.score.tolist(), strict=True)
    }
    return {"scores": scores, "alerts": [msgspec.to_builtins(alert) for alert in outcome.alerts]}


class StillSource:
    """A source that is only asked about itself."""

    name = "still"

    async def bounds(self, shard: Shard, near: int | None = None) -> Bounds:
        """The whole log."""
        return Bounds(0, END)

    async def anchor(self, shard: Shard, position: int) -> str | None:
        """The record before, itself."""
        return _record(position - 1).decode() if position else None

    async def partitions(self, shard: Shard) -> int | None:
        """There are none."""
        return None

    async def commit(self, positions: dict[Shard, int]) -> None:
        """Nobody listens."""


async def start(store: DirStore, engine: Engine) -> Checkpointer:
    """Restore the shard and take it over."""
    thread, source, clock, running = ThreadPoolExecutor(1), StillSource(), ManualClock(), identity()
    parts: dict[str, Any] = {
        "memory": engine,
        "store": store,
        "source": source,
        "clock": clock,
    }
    restored = await restore(SHARD, start="earliest", alerts={}, identity=running, **parts)
    return Checkpointer(
        manifest=restored.manifest, outputs=Outputs({}), identity=running, every_s=1, engine_thread=thread, **parts
    )


async def make(bundles: Sequence[str] = ("any", "fixed")) -> None:
    """Write checkpoint-v1/ anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for kind in bundles:
        shutil.copy(FOLDER.parent / f"tiny-{kind}.onnx", FOLDER / f"{kind}.onnx")
    engine = new_engine()
    keeper = await start(DirStore(FOLDER / "state"), engine)
    for begin, end in [(0, BASE), (BASE, DELTA)]:
        engine.advance(records(begin, end))
        await keeper.make_durable(await keeper.take(is_replaying=False))
    expected = plain(engine.advance(records(DELTA, END)))
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(make())
