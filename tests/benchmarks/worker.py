"""One measured process of the benchmark, pinned to a core of its own: `python -m tests.benchmarks.worker '<json>'`.

Roles: drain (bare aiokafka), calm (the same with rare collections), decode (calm, and our decoder behind it), daemon
(the whole of it), model (ONNX Runtime alone), memory. Prints one JSON document. Time counts from the moment that
`warm` records are through, until `count` are.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from detector.app import rare_collections

POLL = 4000


def main() -> None:
    """Do what the argument says."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    os.sched_setaffinity(0, {job["core"]})
    role = {"drain": drain, "calm": drain, "decode": drain, "daemon": daemon, "model": model, "memory": memory}[
        job["role"]
    ]
    print(json.dumps(role(job)))


def drain(job: dict[str, Any]) -> dict[str, Any]:
    """`getmany` as fast as it goes; all but `drain` with the daemon's collector settings."""
    with contextlib.nullcontext() if job["role"] == "drain" else rare_collections():
        return asyncio.run(_drain(job))


async def _drain(job: dict[str, Any]) -> dict[str, Any]:
    from detector.records import Records, Shard
    from detector.settings import RecordSettings
    from detector.stages.decode import Decoder

    partition = TopicPartition(job["topic"], 0)
    decoder = Decoder(RecordSettings()) if job["role"] == "decode" else None
    shard = Shard("bench", job["topic"], 0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=job["address"],
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
    )
    await consumer.start()
    consumer.assign([partition])
    consumer.seek(partition, 0)
    seen, mark = 0, None
    while seen < job["count"]:
        for batch in (await consumer.getmany(timeout_ms=50, max_records=POLL)).values():
            seen += len(batch)
            if decoder is not None:
                decoder.decode(
                    Records(
                        shard,
                        [record.value for record in batch],
                        [record.key for record in batch],
                        np.array([record.offset for record in batch], np.int64),
                        np.array([record.timestamp for record in batch], np.int64) * 1_000_000,
                        batch[-1].offset + 1,
                    )
                )
        if mark is None and seen >= job["warm"]:
            mark = (seen, time.perf_counter(), time.process_time())
    end = (seen, time.perf_counter(), time.process_time())
    await consumer.stop()
    return _between(mark, end)


def _between(mark: Any, end: Any) -> dict[str, Any]:
    records = end[0] - mark[0]
    return {
        "records": records,
        "wall_us": 1e6 * (end[1] - mark[1]) / records,
        "cpu_us": 1e6 * (end[2] - mark[2]) / records,
    }


def daemon(job: dict[str, Any]) -> dict[str, Any]:
    """`tidewarden run` with every part present, watched from inside its own loop."""
    return asyncio.run(_daemon(job))


async def _daemon(job: dict[str, Any]) -> dict[str, Any]:
    from detector.app import App
    from detector.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        kafka = {"type": "kafka", "bootstrap_servers": job["address"]}
        settings = Settings.model_validate(
            {
                "sources": {"bench": kafka | {"topics": [job["topic"]], "partitions": "0", "poll_records": POLL}},
                "detectors": {"bench": {"bundle": job["bundle"]}},
                "sinks": {
                    "alerts": {"alerts": kafka | {"topic": job["alerts"]}},
                    "dead_letters": {"letters": {"type": "file", "path": f"{folder}/letters.jsonl"}},
                },
                "checkpoint": {"path": f"{folder}/state", "every_s": 20},
                "http": {"port": 0},
                "log": {"level": "warning"},
            }
        )
        app = App(settings)
        running = asyncio.create_task(app.run())
        result = await _watch(app, job, running)
        app.drain()
        await running
        return result


async def _watch(app: Any, job: dict[str, Any], running: asyncio.Task[Any]) -> dict[str, Any]:
    status, registry = app.telemetry.status, app.telemetry.registry
    mark: Any = None
    before: dict[str, float] = {}
    while True:
        await asyncio.sleep(0.01)
        if running.done():
            await running
            raise RuntimeError("the daemon ended by itself")
        if mark is None and status.records >= job["warm"]:
            mark, before = (status.records, time.perf_counter(), time.process_time()), _counters(registry)
            if job.get("ready"):
                Path(job["ready"]).touch()
        if status.records >= job["count"]:
            end, after = (status.records, time.perf_counter(), time.process_time()), _counters(registry)
            break
    delta = {name: value - before.get(name, 0.0) for name, value in after.items()}
    records = end[0] - mark[0]
    stages = {name: 1e6 * value / records for name, value in delta.items() if name.startswith("stage:")}
    rows, waves = delta.get("wave_rows", 0.0), delta.get("waves", 0.0)
    return _between(mark, end) | {"stages": stages, "wave_rows": rows / waves if waves else 0.0}


def _counters(registry: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == "tidewarden_stage_seconds_total":
                found[f"stage:{sample.labels['stage']}"] = sample.value
            elif sample.name == "tidewarden_wave_rows_sum":
                found["wave_rows"] = sample.value
            elif sample.name == "tidewarden_wave_rows_count":
                found["waves"] = sample.value
    return found


def model(job: dict[str, Any]) -> dict[str, Any]:
    """ONNX Runtime alone: the same arrays again and again, nothing gathered or put back."""
    import onnxruntime

    from detector.model.bundle import read_bundle

    bundle = read_bundle(Path(job["bundle"]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(bundle.model_bytes, options, providers=["CPUExecutionProvider"])
    rows, channels = job["rows"], job["channels"]
    generator = np.random.default_rng(1)
    feed = {
        "values": generator.normal(50, 1, (rows, channels)),
        "observed": np.ones((rows, channels), np.float32),
        "elapsed": np.ones((rows, 1), np.float32),
        "clock": np.zeros((rows, 4), np.float32),
        "state": np.tile(bundle.initial_row(channels), (rows, 1)),
    }
    for _ in range(150):  # past the warm-up, with a state as it is in life
        feed["state"] = session.run(["next_state"], feed)[0]
    times = []
    for _ in range(max(50, 200_000 // rows)):
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return {"us": 1e6 * float(np.median(times)) / rows}


def memory(job: dict[str, Any]) -> dict[str, Any]:
    """Bytes that 100,000 streams add to a process that has scored one, beside what the row itself takes."""
    from detector.engine import Detector, Engine
    from detector.model.bundle import read_bundle
    from detector.model.session import Session
    from detector.records import Records, Shard
    from detector.settings import DetectorSettings, EngineSettings, RecordSettings
    from tests.benchmarks.feeds import Feed, make_records

    bundle = read_bundle(Path(job["bundle"]))
    shard = Shard("bench", "memory", 0)
    detector = Detector("bench", DetectorSettings(), bundle, Session(bundle))
    engine = Engine(shard, [detector], RecordSettings(), EngineSettings())
    streams = 100_000

    def advance(feed: Feed, first: int) -> None:
        values = make_records(feed, POLL, first=first)
        positions = np.arange(first, first + POLL)
        engine.advance(Records(shard, list(values), [None] * POLL, positions, positions * 0 + 2**62, first + POLL))
        gc.collect()

    for first in range(0, 10 * POLL, POLL):  # until the heap for what comes and goes with a poll has its size
        advance(Feed(job["channels"], POLL, "round-robin"), first)
    before = _resident()
    for first in range(POLL, streams, POLL):
        advance(Feed(job["channels"], streams, "round-robin"), first)
    row = 4 * bundle.row_floats(job["channels"])
    bound = 1.1 * row + 400 + 24 * job["channels"]
    return {"bytes": (_resident() - before) / (streams - POLL), "row": row, "bound": bound}


def _resident() -> int:
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps for later is not the streams'
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
