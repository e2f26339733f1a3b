"""Narrow records on a real broker, as JSON and as MessagePack, keyed well and keyed badly."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from detector.app import App
from tests.kafka.topics import create_topic
from tests.scenarios.daemon import DETECTOR, NARROW, lines, settings

pytestmark = pytest.mark.system

CHANNELS = ["flow", "heat"]
TICKS, STREAMS = 200, 6
DEADLINE_S = 120.0


def samples() -> list[dict[str, Any]]:
    """Narrow documents; both channels of every sample come."""
    rng = random.Random(8)
    found = []
    for tick in range(TICKS):
        cells = [(stream, channel) for stream in range(STREAMS) for channel in CHANNELS]
        for stream, channel in rng.sample(cells, len(cells)):
            value = rng.gauss(0, 1) + (40 if channel == "flow" and stream < 2 and tick % 100 > 90 else 0)
            where = {"stream": f"p{stream}", "time": 1_600_000_000 + tick * 10}
            found.append(where | {"channel": channel, "value": value})
    return found


async def run(kafka: str, folder: Path, form: str, *, by_stream: bool = True) -> tuple[App, list[Any]]:
    """A daemon over a topic with the feed; returns it, and what it said of each sample."""
    folder.mkdir()
    topic = await create_topic(kafka, 2)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
    await producer.start()
    for one in samples():
        partition = int(one["stream"][1:]) % 2 if by_stream else CHANNELS.index(one["channel"])
        value = msgspec.msgpack.encode(one) if form == "msgpack" else json.dumps(one).encode()
        await producer.send(topic, value, partition=partition)
    await producer.send(topic, b"\xc1{", partition=0)
    await producer.stop()
    source = {"type": "kafka", "bootstrap_servers": kafka, "topics": [topic], "partitions": "0-1", "group": topic}
    detectors = {"pumps": DETECTOR | {"channels": CHANNELS}}
    app = App(settings(folder, sources={"plant": source | {"record": NARROW | {"format": form}}}, detectors=detectors))
    running = asyncio.create_task(app.run())
    deadline_s = time.monotonic() + DEADLINE_S
    while app.telemetry.status.records < len(samples()) + 1:
        assert time.monotonic() < deadline_s, "the daemon does not read the topic"
        assert not running.done(), running
        await asyncio.sleep(0.05)
    app.drain()
    await running
    scores = [
        [one[name] for name in ("stream", "time_ns", "score", "anomaly")] for one in lines(folder / "scores.jsonl")
    ]
    return app, sorted(scores)


async def test_both_formats_come_to_the_same_samples(kafka: str, tmp_path: Path) -> None:
    """Every sample once, whichever the encoding; the broken record is the one reject."""
    found = {form: await run(kafka, tmp_path / form, form) for form in ("json", "msgpack")}
    assert found["json"][1] == found["msgpack"][1]
    assert len(found["json"][1]) == TICKS * STREAMS
    assert sum(one[3] for one in found["json"][1]) > 10
    for form, reason in (("json", "not_utf8"), ("msgpack", "malformed")):
        app, _ = found[form]
        assert app.telemetry.status.rejects == {reason: 1}
        assert not app.telemetry.registry.get_sample_value("tidewarden_streams_split_total", {"source": "plant"})


async def test_channels_on_different_partitions_are_told_of(kafka: str, tmp_path: Path) -> None:
    """A producer that does not key by stream: each stream is told of once."""
    app, scores = await run(kafka, tmp_path / "split", "json", by_stream=False)
    told = app.telemetry.registry.get_sample_value("tidewarden_streams_split_total", {"source": "plant"})
    assert told == STREAMS
    assert len(scores) == 2 * (TICKS - 1) * STREAMS  # none of which has both channels; the last ones are still open
