"""What each stage costs, per record, with records already in memory: python tests/benchmarks/stages.py [--bundle B]

`rows` is what `infer` does around the model: gather, clock, scatter. `model` is ONNX Runtime. `ours` is all but it.
The last line per C says how fast the model steps in place, gather and scatter included, as a share of ONNX Runtime
alone. All is processor time of the one thread, so that a busy machine does not blur it more than by its caches.
Narrow lines are of one-channel records; C of them make a sample.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from detector.engine import Detector, Engine
from detector.model.bundle import read_bundle
from detector.model.session import Session, StepOutput
from detector.records import NO_TIME, Records, Shard
from detector.settings import DetectorSettings, EngineSettings, RecordSettings
from detector.stages.infer import WallClock, WaveInput, infer

POLL_RECORDS = 4000
SHARD = Shard("bench", "bench", 0)
STAGES = ("decode", "route", "align", "wave", "rows", "decide")
_FIRST_S = 1_732_190_000


class Load(NamedTuple):
    """What the records are like."""

    streams: int
    channels: int
    order: str
    is_narrow: bool = False


class TimedSession:
    """A session that says how long the model itself took."""

    def __init__(self, session: Session) -> None:
        self._session, self.took_s = session, 0.0

    def step(self, *wave: np.ndarray) -> StepOutput:
        """Step and add up the time."""
        began_s = time.thread_time()
        out = self._session.step(*wave)
        self.took_s += time.thread_time() - began_s
        return out


def polls(load: Load, count: int, first_s: float, seed: int = 1) -> Iterator[Records]:
    """Polls of JSON; `count` of them, from the time `first_s` on."""
    random = np.random.default_rng(seed)
    samples = POLL_RECORDS // load.channels if load.is_narrow else POLL_RECORDS
    for poll in range(count):
        number = np.arange(poll * samples, (poll + 1) * samples)
        which = random.integers(0, load.streams, samples) if load.order == "random" else number % load.streams
        times = (first_s + 60.0 * number / load.streams).tolist()  # each stream about once a minute
        readings = random.normal(10.0, 1.0, (samples, load.channels)).round(3).tolist()
        values: list[bytes | None] = []
        for stream, time_s, reading in zip(which.tolist(), times, readings, strict=True):
            head = f'{{"stream":"s-{stream}","time":{time_s:.6f},'
            if load.is_narrow:
                values += [f'{head}"channel":"v{c}","value":{cell}}}'.encode() for c, cell in enumerate(reading)]
            else:
                cells = ",".join(f'"v{c}":{cell}' for c, cell in enumerate(reading))
                values.append(f'{head}"values":{{{cells}}}}}'.encode())
        start, append_ns = poll * POLL_RECORDS, np.full(POLL_RECORDS, NO_TIME)
        positions = np.arange(start, start + POLL_RECORDS)
        yield Records(SHARD, values, [None] * POLL_RECORDS, positions, append_ns, start + POLL_RECORDS)


def measure(bundle: Path, load: Load, repeats: int) -> dict[str, float]:
    """Nanoseconds per record of each stage, the median over `repeats` polls after every stream has been seen."""
    read = read_bundle(bundle)
    session = TimedSession(Session(read, "cpu"))
    settings, record = DetectorSettings(), RecordSettings()
    if load.is_narrow:
        settings = DetectorSettings(channels=[f"v{c}" for c in range(load.channels)])
        record = RecordSettings(channel="channel")
    engine = Engine(SHARD, [Detector("bench", settings, read, session)], record, EngineSettings())
    warm = max(4, -(-load.streams * (load.channels if load.is_narrow else 1) // POLL_RECORDS))
    # New streams are made in turn and not measured; what follows is the load itself.
    for records in polls(load._replace(order="in turn"), warm, _FIRST_S):
        engine.advance(records)
    found: list[dict[str, float]] = []
    for records in polls(load, repeats, _FIRST_S + 86_400.0, seed=2):
        session.took_s = 0.0
        with patch("detector.engine.poll.time.perf_counter", time.thread_time):
            outcome = engine.advance(records)
        assert not outcome.rejects, outcome.rejects[0]
        costs = outcome.stage_s | {"rows": outcome.stage_s["infer"] - session.took_s, "model": session.took_s}
        found.append({stage: 1e9 * seconds / POLL_RECORDS for stage, seconds in costs.items()})
    costs = {stage: median(one[stage] for one in found) for stage in (*STAGES, "model", "infer")}
    costs["ours"] = median(sum(one[stage] for stage in STAGES) for one in found)
    return costs


def step_share(bundle: Path, channels: int, rows: int = 1000, repeats: int = 100) -> float:
    """ONNX Runtime alone, over the step in place in an arena of 100,000 rows, at the same wave size."""
    read = read_bundle(bundle)
    session = TimedSession(Session(read, "cpu"))
    state = np.tile(read.initial_row(channels), (100_000, 1))
    random = np.random.default_rng(3)
    clock, shares = WallClock("UTC"), []
    for turn in range(repeats):
        slots = np.sort(random.choice(len(state), rows, replace=False))
        values = random.normal(size=(rows, channels))
        wave = WaveInput(slots, values, np.full(rows, 60.0), np.full(rows, (_FIRST_S + 60 * turn) * 10**9))
        session.took_s = 0.0
        began_s = time.thread_time()
        infer(session, state, wave, clock)
        shares.append(session.took_s / (time.thread_time() - began_s))
    return median(shares)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("tests/golden/tiny-any.onnx"))
    parser.add_argument("--repeats", type=int, default=25)
    arguments = parser.parse_args()
    columns = (*STAGES, "ours", "model")
    print(f"ns per record, polls of {POLL_RECORDS}, {arguments.bundle.name}, {os.cpu_count()} cores")
    print(f"{'streams':>8} {'C':>2} {'order':>8} {'':>6}", *(f"{name:>7}" for name in columns))
    for channels in (1, 5):
        for streams, order in ((1000, "in turn"), (1000, "random"), (100_000, "in turn"), (100_000, "random")):
            for shape in ("wide", "narrow") if order == "random" else ("wide",):
                load = Load(streams, channels, order, is_narrow=shape == "narrow")
                costs = measure(arguments.bundle, load, arguments.repeats)
                print(f"{streams:>8} {channels:>2} {order:>8} {shape:>6}", *(f"{costs[name]:7.0f}" for name in columns))
        share = step_share(arguments.bundle, channels)
        print(f"{'':>8} {channels:>2} step in place: {share:.0%} of ONNX Runtime alone")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
