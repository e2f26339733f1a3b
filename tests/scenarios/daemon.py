"""A daemon as a process on files: its settings, its input, its outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from detector.settings import Settings, load

ROOT = Path(__file__).parents[2]
BUNDLE = str(ROOT / "tests/golden/tiny-any.onnx")
DETECTOR: dict[str, Any] = {"bundle": BUNDLE, "decide": {"threshold_nines": 1.6}}
NARROW: dict[str, Any] = {"channel": "channel", "value": "value"}
"""What `record` says of narrow lines."""


def configuration(folder: Path, **changes: Any) -> dict[str, Any]:
    """A file in, alerts and complete scores to files out."""
    plain: dict[str, Any] = {
        "sources": {"lines": {"type": "file", "paths": [str(folder / "in.jsonl")]}},
        "detectors": {"pumps": DETECTOR},
        "sinks": {
            "alerts": {"out": {"type": "file", "path": str(folder / "alerts.jsonl")}},
            "scores": {"all": {"type": "file", "path": str(folder / "scores.jsonl")}},
            "scores_mode": "complete",
        },
        "checkpoint": {"path": str(folder / "state"), "every_s": 0.2},
        "http": {"port": 0},
    }
    return plain | changes


def settings(folder: Path, **changes: Any) -> Settings:
    """The same, validated."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(configuration(folder, **changes)))
    return load(path)


def append(folder: Path, start: int, end: int, streams: int = 3) -> None:
    """Samples with a level shift now and then."""
    with (folder / "in.jsonl").open("a") as file:
        for tick in range(start, end):
            for stream in range(streams):
                flow = (tick * 7919 + stream * 31) % 101 / 100 + (30 if tick % 90 > 80 else 0)
                sample = {"stream": f"p{stream}", "time": 1_600_000_000 + tick * 10, "values": {"flow": flow}}
                file.write(json.dumps(sample) + "\n")


def append_narrow(folder: Path, start: int, end: int, streams: int = 3) -> None:
    """Samples of two channels, each a line; those of different streams and channels interleaved."""
    with (folder / "in.jsonl").open("a") as file:
        for tick in range(start, end):
            for channel in ("flow", "heat") if tick % 2 else ("heat", "flow"):
                for stream in range(streams):
                    noise = (tick * 7919 + stream * 31 + len(channel)) % 101 / 100
                    value = noise + (30 if channel == "flow" and tick % 90 > 80 else 0)
                    where = {"stream": f"p{stream}", "time": 1_600_000_000 + tick * 10}
                    file.write(json.dumps(where | {"channel": channel, "value": value}) + "\n")


def lines(path: Path) -> list[dict[str, Any]]:
    """What was written."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The daemon of `settings`, as a process; the caller ends it."""
    command = [sys.executable, "-m", "detector", "run", "-c", str(folder / "config.yaml")]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
