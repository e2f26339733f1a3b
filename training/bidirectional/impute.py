"""Fills the empty cells of a file."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.records import Float64
from detector.tables import TableWriter
from training.bidirectional.estimate import Estimate, estimate, stretch
from training.bidirectional.files import History, Stream
from training.bidirectional.known import Bools
from training.bidirectional.run import Run


@dataclass(frozen=True, slots=True)
class Filled:
    """A stream and what its empty cells should be."""

    stream: Stream
    said: Estimate
    cells: Bools
    """(n, C) True where filled."""


def fill(run: Run, history: History) -> list[Filled]:
    """Estimate every stream from what was measured of it; what was measured stays as it is."""
    zone = run.settings.data.time_zone
    filled = []
    for stream in history.streams:
        one = stretch(stream.time_ns, stream.values, zone)
        filled.append(Filled(stream, estimate(run.model, one, one.measured), _fillable(one.measured)))
    return filled


def _fillable(measured: Bools) -> Bools:
    """Empty cells of channels of which something is known."""
    return ~measured & measured.any(axis=0)


def write_table(path: Path, history: History, filled: Sequence[Filled], channels: Sequence[str]) -> None:
    """Write the file again, row by row and column by column, with its empty cells filled."""
    columns: dict[str, list[str]] = {name: list(cells) for name, cells in history.columns.items()}
    for one in filled:
        for c, name in enumerate(channels):
            for at in np.flatnonzero(one.cells[:, c]):
                columns[name][one.stream.rows[at]] = _cells(one.said, at, c)[0]
    with TableWriter(path) as table:
        table.write(columns if path.suffix.lower() == ".csv" else _as_numbers(columns, channels))


def _as_numbers(columns: dict[str, list[str]], channels: Sequence[str]) -> dict[str, list[str] | Float64]:
    numbers = {name: np.array([float(cell or "nan") for cell in columns[name]]) for name in channels}
    return {**columns, **numbers}


def write_cells(path: Path, filled: Sequence[Filled], channels: Sequence[str]) -> int:
    """Write a row for each cell that was filled, with its band; the file's first row is 1. Return how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["row", "stream", "time", "channel", "value", "lower", "upper"])
        for one in filled:
            times = np.datetime_as_string(one.stream.time_ns.astype("datetime64[ns]"), unit="ms")
            for at, c in np.argwhere(one.cells):
                row = int(one.stream.rows[at]) + 1
                table.writerow([row, one.stream.name, f"{times[at]}Z", channels[c], *_cells(one.said, at, c)])
                count += 1
    return count


def _cells(said: Estimate, at: int, c: int) -> list[str]:
    """Centre, lower and upper, to a hundredth of the band: more digits would be noise."""
    centre, lower, upper = (float(part[at, c]) for part in (said.centre, said.lower, said.upper))
    digits = 2 - math.floor(math.log10(upper - lower))
    return [repr(round(value, digits)) for value in (centre, lower, upper)]
