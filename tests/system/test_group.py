"""Two replicas of one group on a real broker hand their shards over: in order, in time, and with nothing to do again.

Kills and frozen replicas are in test_rebalance.py. Here nobody dies, so the demands are harder: after a hand-over
nothing is replayed, no output comes twice, and a shard that comes straight back is not even loaded.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from detector.app import App
from detector.checkpoint.stores.dir import DirStore
from detector.settings import load
from tests.kafka import topics

pytestmark = pytest.mark.system

PARTITIONS, STREAMS, LIMIT_S = 4, 8, 120.0
BUNDLE = str(Path(__file__).parents[1] / "golden/tiny-any.onnx")


class Plant:
    """A topic, and replicas that watch it."""

    def __init__(self, folder: Path, address: str, topic: str, scores: str, **checkpoint: Any) -> None:
        self.folder, self.address, self.topic, self.scores, self.ticks = folder, address, topic, scores, 0
        self._checkpoint = {"path": str(folder / "state"), "every_s": 1.0} | checkpoint

    def app(self) -> App:
        """One more replica."""
        client = {"type": "kafka", "bootstrap_servers": self.address}
        plain = {
            "sources": {"in": client | {"topics": [self.topic], "group": self.topic, "session_timeout_s": 6}},
            "detectors": {"pumps": {"bundle": BUNDLE}},
            "sinks": {"scores": {"out": client | {"topic": self.scores}}, "scores_mode": "complete"},
            "checkpoint": self._checkpoint,
            "http": {"port": 0},
        }
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(plain))
        return App(load(path))

    async def tick(self) -> None:
        """A sample of each stream."""
        for stream in range(STREAMS):
            sample = {"stream": f"s{stream}", "time": 1_600_000_000 + self.ticks * 10, "values": {"v": self.ticks % 7}}
            await topics.produce(self.address, self.topic, [json.dumps(sample).encode()], partition=stream % PARTITIONS)
        self.ticks += 1


@asynccontextmanager
async def running(app: App) -> AsyncIterator[App]:
    """A replica, drained at the end."""
    task = asyncio.create_task(app.run())
    try:
        yield app
    finally:
        app.drain()
        await asyncio.wait_for(task, LIMIT_S)


async def until(plant: Plant, is_so: Callable[[], Any]) -> None:
    """Go on producing until it is."""
    async with asyncio.timeout(LIMIT_S):
        while not is_so():
            await plant.tick()
            await asyncio.sleep(0.05)


def owns(app: App, count: int) -> bool:
    """Whether it reads so many shards, and all that it was given."""
    return app.pipeline is not None and len(app.pipeline.live) == count and not app.telemetry.status.unready()


def figure(app: App, name: str) -> float:
    """A metric without labels."""
    return app.telemetry.registry.get_sample_value(f"tidewarden_{name}") or 0


async def make_plant(folder: Path, address: str, **checkpoint: Any) -> Plant:
    """Topics, and nobody yet."""
    topic, scores = await topics.create_topic(address, PARTITIONS), await topics.create_topic(address, PARTITIONS)
    return Plant(folder, address, topic, scores, **checkpoint)


async def finish(plant: Plant, *apps: App) -> None:
    """Wait until everything is read."""
    want = plant.ticks * STREAMS // PARTITIONS

    def is_read() -> bool:
        live = [live for app in apps if app.pipeline is not None for live in app.pipeline.live.values()]
        return len(live) == PARTITIONS and all(each.position == want for each in live)

    async with asyncio.timeout(LIMIT_S):
        while not is_read():
            await asyncio.sleep(0.05)


async def scored(plant: Plant) -> Counter[tuple[str, str]]:
    """How often each sample was scored."""
    found = await topics.read_all(plant.address, plant.scores)
    scores = [json.loads(record.value) for batch in found.values() for record in batch]
    return Counter((score["stream"], score["time"]) for score in scores)


async def test_hand_overs_leave_nothing_to_do_again(tmp_path: Path, kafka: str) -> None:
    """One joins, one leaves, one joins again: each sample is scored once, and warm memory is used."""
    plant = await make_plant(tmp_path, kafka)
    async with running(plant.app()) as first:
        await until(plant, lambda: owns(first, 4))
        for _ in range(2):
            async with running(plant.app()) as second:
                await until(plant, lambda: owns(first, 2) and owns(second, 2))
                assert figure(second, "replay_records_total") < STREAMS * 100
            await until(plant, lambda: owns(first, 4))
        await finish(plant, first)
        assert figure(first, "warm_restores_total") >= 2 * 4, "what stays, and what comes back, is there already"
    counts = await scored(plant)
    assert len(counts) == plant.ticks * STREAMS
    assert set(counts.values()) == {1}
    store = DirStore(tmp_path / "state")
    assert len(await store.shards()) == PARTITIONS


async def test_a_spare_replica_is_ready_and_follows(tmp_path: Path, kafka: str) -> None:
    """More replicas than partitions: the spare has nothing, is well, and has a copy of everything."""
    plant = await make_plant(tmp_path, kafka, standby=True)
    plant.topic = await topics.create_topic(kafka, 1)

    async def single() -> None:
        sample = {"stream": "s", "time": 1_600_000_000 + plant.ticks * 10, "values": {"v": 1}}
        await topics.produce(kafka, plant.topic, [json.dumps(sample).encode()])
        plant.ticks += 1

    plant.tick = single  # type: ignore[method-assign]  # one partition, one stream
    async with running(plant.app()) as one, running(plant.app()) as other:
        await until(plant, lambda: (owns(one, 1) and owns(other, 0)) or (owns(one, 0) and owns(other, 1)))
        owner, spare = (one, other) if owns(one, 1) else (other, one)
        assert spare.pipeline is not None
        held = spare.pipeline.shards.warm._held
        await until(plant, lambda: held and next(iter(held.values())).manifest.position > 5)
        owner.drain()
        await until(plant, lambda: owns(spare, 1))
        assert figure(spare, "warm_restores_total") == 1
    assert set((await scored(plant)).values()) == {1}
