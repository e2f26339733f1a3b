"""`make bench`: the whole daemon against a bare drain of the same records, in one run, from a real broker.

The measured process has one core to itself, the broker and this one share the other. Every figure is the median of
several runs, taken in turn so that a machine that changes its speed changes it for all. Ratios are what to quote.

    python -m tests.benchmarks.daemon [--runs 3] [--count 400000] [--bundle tests/golden/bench.onnx]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.feeds import FEEDS, Feed, make_records, preload, spiked
from tests.kafka.broker import broker
from tests.kafka.topics import create_topic, new_name, produce, read_all

_DAEMON_CORE, _BROKER_CORE = 0, 1
_ROLES = ("drain", "calm", "decode", "daemon")
_WARM = 150_000  # records until streams exist and have passed their warm-up (at 1,000 streams)


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    if (os.cpu_count() or 1) < 2:
        sys.exit("make bench: expected two cores, one for the daemon and one for the broker")
    os.sched_setaffinity(0, {_BROKER_CORE})
    with broker() as address:
        bench = Bench(address, arguments)
        figures = [bench.measure(feed) for feed in FEEDS]
        _print_table(figures)
        _print_stages(figures)
        bench.print_memory()
        bench.print_latency(figures[0])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", type=int, default=400_000, help="records of each load")
    parser.add_argument("--bundle", default="tests/golden/bench.onnx")
    return parser.parse_args()


class Bench:
    """A broker, and jobs run against it."""

    def __init__(self, address: str, arguments: argparse.Namespace) -> None:
        self.address, self.arguments = address, arguments

    def measure(self, feed: Feed) -> dict[str, Any]:
        """All figures of one load."""
        print(f"{feed.title} ...", file=sys.stderr, flush=True)
        topic = asyncio.run(preload(self.address, feed, self.arguments.count))
        alerts = asyncio.run(create_topic(self.address, 1, name=new_name("alerts")))
        job = {"topic": topic, "alerts": alerts, "count": self.arguments.count, "warm": _WARM}
        runs = [{role: self.work(role, **job) for role in _ROLES} for _ in range(self.arguments.runs)]
        rows = max(1, round(statistics.median(run["daemon"]["wave_rows"] for run in runs)))
        model = statistics.median(self.work("model", rows=rows, channels=feed.channels)["us"] for _ in runs)
        return {"feed": feed, "runs": runs, "rows": rows, "model": model}

    def work(self, role: str, **job: Any) -> dict[str, Any]:
        """Run one measured process to its end."""
        job |= {"role": role, "core": _DAEMON_CORE, "address": self.address, "bundle": self.arguments.bundle}
        command = [sys.executable, "-m", "tests.benchmarks.worker", json.dumps(job)]
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=600, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    def print_memory(self) -> None:
        """Bytes per stream between checkpoints."""
        print("\nBytes per stream, 100,000 streams, between checkpoints")
        for channels in (1, 5):
            figure = self.work("memory", channels=channels)
            print(
                f"  C = {channels}: {figure['bytes']:.0f} bytes; the row {figure['row']}; "
                f"bound row x 1.1 + 400 + 24 C = {figure['bound']:.0f}"
            )

    def print_latency(self, full: dict[str, Any]) -> None:
        """From the broker's append of a record to its append of the alert, at a quarter of full load."""
        rate = 0.25 * 1e6 / _median(full, "daemon", "wall_us")
        print(
            f"\nBroker append to alert appended and acknowledged, {rate:,.0f} records/s, ms by the broker's own clock"
        )
        for _ in range(self.arguments.runs):
            milliseconds = asyncio.run(self._latency(rate))
            p50, p99, highest = np.percentile(milliseconds, [50, 99, 100])
            print(f"  {len(milliseconds)} alerts: p50 {p50:.0f}, p99 {p99:.0f}, max {highest:.0f}")

    async def _latency(self, rate: float) -> np.ndarray[Any, Any]:
        feed, warm, seconds = Feed(1, 1_000, "round-robin"), _WARM, 15
        clocked = {"message.timestamp.type": "LogAppendTime"}
        topic = await create_topic(self.address, 1, clocked, name=new_name("bench"))
        alerts = await create_topic(self.address, 1, clocked, name=new_name("alerts"))
        live = round(rate * seconds)
        records = make_records(feed, warm + live)
        # Every stream leaves its band once, at a time of its own, and is left alone before and after.
        for stream in range(feed.streams):
            at = warm + stream + feed.streams * int(np.random.default_rng(stream).integers(1, live // feed.streams - 1))
            records[at] = spiked(records[at])
        await produce(self.address, topic, records[:warm])
        with tempfile.TemporaryDirectory() as folder:
            ready = Path(folder) / "ready"
            job = {"topic": topic, "alerts": alerts, "count": warm + live, "warm": warm - 1000, "ready": str(ready)}
            daemon = asyncio.create_task(asyncio.to_thread(self.work, "daemon", **job))
            while not ready.exists() and not daemon.done():
                await asyncio.sleep(0.05)
            await _paced(self.address, topic, records[warm:], rate)
            await daemon
        appended = {record.offset: record.timestamp for record in (await read_all(self.address, topic))[0]}
        found = []
        for record in (await read_all(self.address, alerts))[0]:
            alert = json.loads(record.value)
            if alert["event"] == "open" and alert["source"]["offset"] >= warm:
                found.append(record.timestamp - appended[alert["source"]["offset"]])
        return np.array(found)


async def _paced(address: str, topic: str, records: list[bytes], rate: float) -> None:
    """Produce at a steady rate, in portions of 5 ms."""
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=address, acks=1, linger_ms=0, max_batch_size=1 << 20)
    await producer.start()
    portion, start = max(1, round(rate * 0.005)), time.perf_counter()
    for number, first in enumerate(range(0, len(records), portion)):
        await asyncio.sleep(max(0.0, start + 0.005 * number - time.perf_counter()))
        batch = producer.create_batch()
        for value in records[first : first + portion]:
            batch.append(key=None, value=value, timestamp=None)
        batch.close()
        await producer.send_batch(batch, topic, partition=0)
    await producer.flush()
    await producer.stop()


def _median(figure: dict[str, Any], role: str, key: str) -> float:
    return statistics.median(run[role][key] for run in figure["runs"])


def _print_table(figures: list[dict[str, Any]]) -> None:
    print("\nMicroseconds per record (wall, one core, median of the runs; lowest and highest in brackets)")
    print("drain: bare getmany; calm: the same with the daemon's collector settings; decode: calm and our decoder")
    print("own: all of the daemon but the drain and ONNX Runtime, over the drain's time")
    print(f"{'load':36} " + " ".join(f"{role:>18}" for role in _ROLES) + "  drain/daemon  own/drain  own/calm")
    for figure in figures:
        drain, calm, _, daemon = (_median(figure, role, "wall_us") for role in _ROLES)
        cells = " ".join(f"{_spread(figure, role):>18}" for role in _ROLES)
        own = [(daemon - less - figure["model"]) / less for less in (drain, calm)]
        print(f"{figure['feed'].title:36} {cells} {drain / daemon:13.2f} {own[0]:10.2f} {own[1]:9.2f}")
    base = _median(figures[0], "daemon", "wall_us")
    for figure in figures[1:4]:
        print(f"  {figure['feed'].title}: {_median(figure, 'daemon', 'wall_us') / base:.2f} x the first line's daemon")


def _spread(figure: dict[str, Any], role: str) -> str:
    values = sorted(run[role]["wall_us"] for run in figure["runs"])
    return f"{statistics.median(values):.2f} [{values[0]:.2f}, {values[-1]:.2f}]"


def _print_stages(figures: list[dict[str, Any]]) -> None:
    names = ("decode", "route", "align", "wave", "infer", "decide")
    print("\nStages, microseconds per record; model = ONNX Runtime alone at the mean wave size")
    print(f"{'load':34} " + " ".join(f"{name:>8}" for name in names) + f" {'model':>8} {'model/infer':>12} {'wave':>6}")
    for figure in figures:
        stages = {
            name: statistics.median(run["daemon"]["stages"].get(f"stage:{name}", 0.0) for run in figure["runs"])
            for name in names
        }
        cells = " ".join(f"{stages[name]:8.2f}" for name in names)
        share = figure["model"] / stages["infer"] if stages["infer"] else 0.0
        print(f"{figure['feed'].title:34} {cells} {figure['model']:8.2f} {share:12.2f} {figure['rows']:6d}")


if __name__ == "__main__":
    main()
