"""How well gaps are filled, by their length: from both sides, on a line, by the last value, and by the forecaster.

    python -m tests.benchmarks.gaps RUNS [--data ../shared/data]

Trains a both-sided run on the demo's plant and one on WSD's dev series (server metrics) under RUNS, unless they are
there already, and hides cells of the later spans, which were not trained on. The forecaster is the bundle in the box:
it walks through the span, and in a gap goes on from its own medians, as if they had been measured. Errors are mean
absolute ones in units of the channel's spread. docs/impute.md shows what came of it.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.model.further import LEARNING
from detector.model.session import Session
from detector.records import Float64
from detector.scoring import open_bundle
from training.bidirectional.estimate import Stretch
from training.bidirectional.gaps import by_last, by_line, measure
from training.bidirectional.known import Bools
from training.bidirectional.run import open_run, spans, train
from training.data.load import load_history
from training.evaluate.suites import SUITES
from training.progress import Progress
from training.settings import TrainSettings

_PLANT = {"streams": 40, "hours": 12}
_ROWS = 6_000  # of each server metric, its latest
_DAY_NS = 86_400 * 10**9


def main() -> None:
    """Train where need be, and print a table for each kind of data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    _tables("plant", {"plant": _PLANT}, given)
    if SUITES["wsd"].is_below(given.data):
        metrics = _as_file(given.data, given.runs / "wsd.csv")
        _tables("wsd", {"paths": [str(metrics)], "stream": "stream", "channels": ["value"]}, given)


def _tables(name: str, data: dict[str, Any], given: argparse.Namespace) -> None:
    asked = {"name": name, "data": data, "model": {"mode": "fixed", "direction": "both"}, "output": given.runs}
    settings = TrainSettings.model_validate(asked | {"fit": {"epochs": given.epochs}})
    folder = next((one for one in given.runs.glob(f"{name}-*") if not one.suffix), None)
    if folder is None:
        with Progress() as progress:
            folder = train(settings, progress)
    run = open_run(folder)
    _, later = spans(load_history(run.settings).series, run.settings.data.time_zone)
    others = {"linear": by_line, "last value": by_last, "forecaster": forecaster}
    for gone in ("all channels", "one channel") if len(run.model.shape.channels) > 1 else ("all channels",):
        print(f"\n{name}, {gone} gone: {len(later)} streams\n")
        print("| gap, samples | cells | both-sided | linear | last value | forecaster | inside the band |")
        print("|---|---|---|---|---|---|---|")
        for row in measure(run.model, later, others, alone=gone == "one channel"):
            errors = " | ".join(f"{error:.3f}" for error in row.errors.values())
            first, last = row.lengths
            print(f"| {first} to {last} | {row.cells:,} | {errors} | {row.inside:.1%} |", flush=True)


def forecaster(stretches: Sequence[Stretch], shown: Sequence[Bools]) -> list[Float64]:
    """Walk through all stretches side by side, and through their gaps by the medians of the bundle in the box."""
    session = Session(open_bundle("default"))
    N, T, C = len(stretches), max(map(len, stretches)), stretches[0].values.shape[1]
    values, seen, elapsed = np.full((N, T, C), np.nan), np.zeros((N, T, C), bool), np.zeros((N, T), np.float32)
    clock = np.zeros((N, T, stretches[0].clock.shape[1]), np.float32)
    for row, (one, cells) in enumerate(zip(stretches, shown, strict=True)):
        n = len(one)
        values[row, :n], seen[row, :n], clock[row, :n] = one.values, cells, one.clock
        elapsed[row, :n] = np.diff(one.periods, prepend=one.periods[:1]) * one.period_s
    state = np.tile(session.bundle.initial_row(C), (N, 1))
    everything = np.ones((N, C), np.float32)
    for t in range(T):
        moment = (elapsed[:, t, None], clock[:, t], state)
        said = session.step(np.full((N, C), np.nan), 0 * everything, *moment)
        values[:, t] = np.where(seen[:, t], values[:, t], said.expected)
        learning = np.any(seen[:, t], axis=1)[:, None].astype(np.float32)
        further = {LEARNING: learning} if LEARNING in session.bundle.inputs else {}
        state = session.step(values[:, t], everything, *moment, further).next_state
    return [values[row, : len(one)] for row, one in enumerate(stretches)]


def _as_file(data: Path, path: Path) -> Path:
    """WSD's dev series as the table that training reads, moved by whole days so that all end on the same one."""
    cases, _ = SUITES["wsd"].load(data, split="dev")
    latest = max(int(case.time_ns[-1]) for case in cases)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["time", "stream", "value"])
        for case in cases:
            moved = case.time_ns[-_ROWS:] + (latest - case.time_ns[-1]) // _DAY_NS * _DAY_NS
            times = np.datetime_as_string(moved.astype("datetime64[ns]"), unit="s")
            for when, value in zip(times, case.values[-_ROWS:, 0], strict=True):
                table.writerow([f"{when}Z", case.name, "" if np.isnan(value) else repr(float(value))])
    return path


if __name__ == "__main__":
    main()
