"""How soon a standby scores: 100,000 streams, a real engine, from the assignment to the first score never seen before.

How long it takes to notice that an owner is lost is the group's affair, at least the session timeout, and not in this.
The limit is held by the processor's clock, of all threads together; what others do on the machine is no matter of ours.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.checkpoint.base import Store
from detector.checkpoint.protocol import Identity
from detector.checkpoint.restore import load
from detector.checkpoint.stores import make_store
from detector.clock import SystemClock
from detector.engine import Detector, Engine
from detector.model.bundle import read_bundle
from detector.model.session import Session
from detector.records import NO_TIME, Records, Scores, Shard
from detector.settings import (
    DetectorSettings,
    DirCheckpointSettings,
    EngineSettings,
    KafkaCheckpointSettings,
    RecordSettings,
)
from tests.kafka import topics
from tests.scenarios.group import Group, Replica
from tests.unit.test_shards import SHARD, until

BUNDLE = Path(__file__).parents[1] / "golden" / "bench.onnx"
STREAMS, ALL, LIMIT_S = 100_000, 2_400_000, 2.0


class Log(Sequence[Any]):
    """Records made when they are read: each stream in turn."""

    def __len__(self) -> int:
        return ALL

    def __getitem__(self, at: Any) -> str:
        return f"record {at}"


class Plant(Group):
    """A group over such a log, of real records."""

    largest_poll = 8000

    def records(self, shard: Shard, start: int, end: int) -> Records:
        """One sample each."""
        end = min(end, ALL)
        values: list[bytes | None] = [
            b'{"stream":"s%d","time":%d,"values":{"flow":%d}}'
            % (at % STREAMS, 1_600_000_000 + at // STREAMS * 10, at % 7)
            for at in range(start, end)
        ]
        append_ns = np.full(len(values), NO_TIME, np.int64)
        positions = np.arange(start, start + len(values), dtype=np.int64)
        return Records(shard, values, [None] * len(values), positions, append_ns, start + len(values))


@pytest.fixture(params=["dir", pytest.param("kafka", marks=pytest.mark.system)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Each in turn."""
    if request.param == "dir":
        settings: Any = DirCheckpointSettings(path=tmp_path)
    else:
        address = request.getfixturevalue("kafka")
        settings = KafkaCheckpointSettings(type="kafka", bootstrap_servers=address, topic=topics.new_name())
    made = make_store(settings)
    await made.start()
    yield made
    await made.stop()


def now() -> tuple[float, float]:
    """Seconds: of the wall, and of the processor."""
    return time.perf_counter(), time.process_time()


async def test_a_standby_scores_within_two_seconds(tmp_path: Path, store: Store) -> None:
    """Rows are in memory already; what is left is the claim, the last segment, the alerts' tail and the replay."""
    bundle = read_bundle(BUNDLE)
    detector = Detector("default", DetectorSettings(), bundle, Session(bundle, "cpu"))

    def new_engine(shard: Shard) -> Engine:
        return Engine(shard, [detector], RecordSettings(), EngineSettings())

    group = Plant(tmp_path, shards=1, count=1, clock=SystemClock(), store=store, every_s=1.0)
    group.logs[SHARD] = Log()  # type: ignore[assignment]  # all that is asked of it
    group.identity = Identity({"default": (bundle.sha256, bundle.label)}, "configuration", "numerics")
    owner, spare = Replica(group, new_engine=new_engine), Replica(group, new_engine=new_engine, standby=True)
    held = spare.pipeline.shards.warm._held
    owner.source.assign([SHARD])
    await until(lambda: owner.pipeline.live, 60)
    live = owner.pipeline.live[SHARD]
    await until(lambda: live.checkpointer.manifest.position >= STREAMS, 60)
    await until(lambda: live.position > live.checkpointer.manifest.position, 60)
    await owner.crash()
    await group.store.settled()
    reached = live.position
    loaded = await load(store, SHARD)
    assert loaded is not None
    assert STREAMS <= loaded.manifest.position < reached < ALL
    await until(lambda: SHARD in held and held[SHARD].manifest.position == loaded.manifest.position, 60)
    first: dict[str, tuple[float, float]] = {}
    deliver = spare.sinks[1].deliver_scores

    async def watched(shard: Shard, scores: Sequence[Scores]) -> None:
        first.setdefault("score", now())
        if max(int(each.positions[-1]) for each in scores) >= reached:
            first.setdefault("new score", now())
        await deliver(shard, scores)

    spare.sinks[1].deliver_scores = watched  # type: ignore[method-assign]  # a stop-watch
    group.store.reads.clear()
    began = now()
    spare.source.assign([SHARD])
    await until(lambda: "new score" in first, 60)
    took_s = {what: [round(at - start, 3) for at, start in zip(ats, began, strict=True)] for what, ats in first.items()}
    replayed = reached - loaded.manifest.position
    print(f"{type(store).__name__}: {STREAMS:,} streams, {replayed:,} replayed, seconds (wall, processor): {took_s}")  # noqa: T201  (the figure it is run for)
    assert [name for name in group.store.reads if name.startswith("segment")] == []
    assert took_s["new score"][1] < LIMIT_S
    await spare.crash()
