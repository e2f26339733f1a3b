"""The Numenta Anomaly Benchmark (Lavin and Ahmad 2015): files of `timestamp, value` and windows around anomalies.

Takes the benchmark's repository as it is (`data/GROUP/FILE.csv`, `labels/combined_windows.json`). Groups are the
families. There is no training part: the first 15 % of a file, at most 750 rows, are its probation.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import numpy as np

from detector.errors import InputError
from detector.records import Float64, Int64
from training.evaluate.suites.case import Case
from training.evaluate.suites.files import numbers, read_csv, times, unix_ns
from training.evaluate.suites.split import split_of

_WINDOWS = ("combined_windows.json", "labels/combined_windows.json")


def files(folder: Path) -> list[Path]:
    """The series in a folder, by group and name; none where the windows are not there."""
    data = folder / "data"
    return sorted(data.glob("*/*.csv")) if any((folder / windows).exists() for windows in _WINDOWS) else []


def read(path: Path) -> Case:
    """One file. Raises InputError."""
    name = f"{path.parent.name}/{path.name}"
    stated = _windows(path.parents[2])
    if name not in stated:
        raise InputError(path, "has no entry in combined_windows.json", expected=name)
    columns = read_csv(path)
    time_ns = times(path, columns, "timestamp")
    windows = tuple(_rows(time_ns, unix_ns(begin), unix_ns(end)) for begin, end in stated[name])
    labels = np.zeros(len(time_ns), np.uint8)
    for begin, end in windows:
        labels[begin:end] = 1
    return Case(
        suite="nab",
        family=path.parent.name,
        name=name,
        split=split_of("nab", name),
        time_ns=time_ns,
        values=numbers(path, columns, "value"),
        labels=labels,
        train=0,
        channels=("value",),
        period_s=float(np.median(np.diff(time_ns))) / 1e9 if len(time_ns) > 1 else None,
        windows=windows,
    )


def published(folder: Path, names: Collection[str]) -> dict[str, dict[str, Float64]]:
    """Scores per detector and file that others published, where they lie in the folder and speak of all these files."""
    found: dict[str, dict[str, Float64]] = {}
    for detector in sorted((folder / "published_scores").glob("*")):
        paths = {name: detector / name for name in names}
        if paths and all(path.exists() for path in paths.values()):
            found[detector.name] = {
                name: numbers(path, read_csv(path), "anomaly_score")[:, 0] for name, path in paths.items()
            }
    return found


@lru_cache(maxsize=2)
def _windows(folder: Path) -> dict[str, list[tuple[str, str]]]:
    path = next(folder / windows for windows in _WINDOWS if (folder / windows).exists())
    try:
        found: dict[str, list[tuple[str, str]]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(path, "cannot be read", expected="JSON of windows by file", got=error) from error
    return found


def _rows(time_ns: Int64, begin_ns: int, end_ns: int) -> tuple[int, int]:
    """The rows of a window, which holds both of its ends."""
    inside = np.flatnonzero((time_ns >= begin_ns) & (time_ns <= end_ns))
    return (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)
