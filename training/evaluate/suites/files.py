"""Reading the files that suites come in; whatever is wrong with one is an `InputError` naming file, place and remedy.

Arrays come out as evaluation wants them: float64 matrices, 0/1 labels, Unix nanoseconds.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.errors import InputError
from detector.records import Bytes, Float64, Int64

START_NS = 1_577_836_800 * 10**9  # 2020-01-01: the first row where a suite has no times, a Wednesday at midnight


def read_arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    """The named arrays of an npz file. Raises InputError."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # np.load leaves a torn one open
            missing = [name for name in names if name not in stored.files]
            if missing:
                raise InputError(path, "arrays", expected=", ".join(names), got=", ".join(stored.files) or "none")
            return [stored[name] for name in names]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(path, "cannot be read", expected="an npz file", got=error) from error


def read_matrix(path: Path, delimiter: str | None = None) -> Float64:
    """The numbers of a text file without header, (rows, columns). Raises InputError."""
    try:
        return np.loadtxt(path, np.float64, delimiter=delimiter, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(path, "cannot be read", expected="rows of numbers", got=error) from error


def read_csv(path: Path, delimiter: str = ",") -> dict[str, list[str]]:
    """The columns of a CSV file with a header, as text. Raises InputError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = csv.reader(file, delimiter=delimiter)
    except (OSError, ValueError, csv.Error) as error:  # UnicodeDecodeError is a ValueError; so is a missing header
        raise InputError(path, "cannot be read", expected="a CSV file with a header", got=error) from error
    rows = [row for row in rows if row]
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise InputError(path, f"line {line}", expected=f"{len(header)} cells", got=len(row))
    return {name: [row[c] for row in rows] for c, name in enumerate(header)}


def numbers(path: Path, columns: Mapping[str, Sequence[str]], *names: str) -> Float64:
    """Those columns as (rows, names), NaN where a cell is empty. Raises InputError naming line and column."""
    return np.stack([_numbers(path, name, _column(path, columns, name)) for name in names], axis=1)


def times(path: Path, columns: Mapping[str, Sequence[str]], name: str) -> Int64:
    """A column of times `2014-04-01 00:00:00`, taken as UTC, in nanoseconds. Raises InputError."""
    found = []
    for line, cell in enumerate(_column(path, columns, name), 2):
        try:
            found.append(unix_ns(cell))
        except ValueError as error:
            raise InputError(path, f"line {line}, column {name!r}", expected="a time", got=repr(cell)) from error
    return np.array(found, np.int64)


def unix_ns(text: str) -> int:
    """A time as ISO 8601 has it, UTC unless it says otherwise, in nanoseconds. Raises ValueError."""
    time = datetime.fromisoformat(text)
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    return round(time.timestamp() * 1e6) * 1_000


def counted_ns(rows: int, period_s: float) -> Int64:
    """Made-up times for a suite that has none."""
    return START_NS + np.round(np.arange(rows) * (period_s * 1e9)).astype(np.int64)


def seconds_ns(path: Path, seconds: NDArray[Any]) -> Int64:
    """Unix seconds as nanoseconds. Raises InputError where one is no number."""
    if seconds.dtype.kind not in "iuf" or not np.isfinite(seconds).all():
        raise InputError(path, "timestamps", expected="Unix seconds", got=seconds.dtype)
    return np.round(seconds.astype(np.float64) * 1e3).astype(np.int64) * 1_000_000


def as_values(path: Path, name: str, *parts: NDArray[Any]) -> Float64:
    """Parts one after the other, (T, C) float64. Raises InputError where one holds no numbers or widths differ."""
    shaped = [part[:, None] if part.ndim == 1 else part for part in parts]
    for part in shaped:
        if part.dtype.kind not in "biuf" or part.ndim != 2 or part.shape[1] != shaped[0].shape[1] or not part.shape[1]:
            expected = f"numbers (rows, {shaped[0].shape[1] if shaped[0].ndim == 2 else 'channels'})"
            raise InputError(path, f"array {name!r}", expected=expected, got=f"{part.dtype} {part.shape}")
    values = np.concatenate(shaped).astype(np.float64)
    if not len(values):
        raise InputError(path, f"array {name!r}", expected="at least one row", got="none")
    return values


def as_labels(path: Path, labels: NDArray[Any], rows: int) -> Bytes:
    """Labels (T,) of 0 and 1. Raises InputError naming the first row that is neither."""
    labels = labels.reshape(-1)
    if len(labels) != rows:
        raise InputError(path, "labels", expected=f"{rows}, one per row", got=len(labels))
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if wrong.size:
        raise InputError(path, f"label of row {wrong[0]}", expected="0 or 1", got=labels[wrong[0]])
    return labels.astype(np.uint8)


def _column(path: Path, columns: Mapping[str, Sequence[str]], name: str) -> Sequence[str]:
    if name not in columns:
        raise InputError(path, f"column {name!r} is missing", expected=f"one of {', '.join(columns)}")
    return columns[name]


def _numbers(path: Path, name: str, cells: Sequence[str]) -> Float64:
    found = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            found[row] = float(cell) if cell.strip() else np.nan
        except ValueError as error:
            raise InputError(path, f"line {row + 2}, column {name!r}", expected="a number", got=repr(cell)) from error
    return found
