"""Training on more history than memory holds: python -m tests.benchmarks.larger_than_memory --gigabytes 10

Generates that much Parquet (noise around cycles, which does not compress), trains a small forecaster on all of it for
one epoch, exports the bundle, and prints what each part took and the most memory that the process ever held (VmHWM,
which counts torch itself). The exit status says whether that stayed below 2 GB. Needs twice the gigabytes of disk.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from rich.console import Console

from training.progress import Progress
from training.run import train
from training.settings import TrainSettings

LIMIT_GB = 2.0
FILE_ROWS, GROUP_ROWS = 200_000, 10_000


def generate(folder: Path, gigabytes: float, streams: int, channels: int) -> int:
    """Files of one stream after the other; returns how many samples there are."""
    rng, total = np.random.default_rng(1), int(gigabytes * 1e9 / (8 * channels))
    each = total // streams
    schema = pa.schema(
        [("time", pa.int64()), ("pump", pa.string())] + [(f"c{c}", pa.float64()) for c in range(channels)]
    )
    for number in range(streams):
        with pa.parquet.ParquetWriter(folder / f"{number:04d}.parquet", schema, compression="none") as file:
            for at in range(0, each, GROUP_ROWS):
                t = np.arange(at, min(at + GROUP_ROWS, each))
                wave = np.sin(t[:, None] / (20 + np.arange(channels)) + number)
                values = wave + 0.1 * rng.standard_normal(wave.shape)
                columns = {"time": t * 10, "pump": [f"p{number}"] * len(t)}
                columns |= {f"c{c}": values[:, c] for c in range(channels)}
                file.write_table(pa.table(columns, schema))
    return each * streams


def memory_gb(name: str) -> float:
    """What the kernel says of this process: VmRSS now, VmHWM at most."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1e6


def main() -> None:
    """Generate, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=Path("larger-than-memory"))
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True)
    try:
        began = time.perf_counter()
        samples = generate(asked.folder, asked.gigabytes, asked.streams, asked.channels)
        size = sum(path.stat().st_size for path in asked.folder.glob("*.parquet")) / 1e9
        seconds = time.perf_counter() - began
        print(f"generated {size:.1f} GB, {samples:,} samples of {asked.channels} channels, in {seconds:.0f} s")
        print(f"memory before: {memory_gb('VmHWM'):.2f} GB", flush=True)
        began = time.perf_counter()
        with Progress(Console(stderr=True, force_terminal=False)) as progress:
            run = train(settings(asked.folder), progress)
        seconds = time.perf_counter() - began
        print(f"read, trained an epoch, exported {run.name} in {seconds:.0f} s: {samples / seconds:,.0f} rows/s")
        print(f"most memory: {memory_gb('VmHWM'):.2f} GB of {LIMIT_GB:g}")
    finally:
        shutil.rmtree(asked.folder)
    raise SystemExit(memory_gb("VmHWM") > LIMIT_GB)


def settings(folder: Path) -> TrainSettings:
    """One joint forecaster over all channels."""
    return TrainSettings.model_validate(
        {
            "name": "large",
            "data": {"paths": [f"{folder}/*.parquet"], "stream": "pump", "time_unit": "s", "memory_mb": 256},
            "model": {"mode": "fixed", "hidden": 32},
            "fit": {"epochs": 1, "batch": 16, "learning_rate": 3e-3},
            "output": folder / "runs",
        }
    )


if __name__ == "__main__":
    main()
