"""Streams of many channels: the water test bed SKAB, spacecraft telemetry (SMAP, MSL) and servers (SMD).

skab  CSV with `;`, 8 sensors at 1 Hz, `anomaly`; the first 400 rows of each file are training
smap  telemetry in channel 0, one-hot commands in the rest; npz (`train`, `test`) or the original folders of npy
smd   38 indicators of a server; npz (`train`, `test`, `label`) or the original folders of txt
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.errors import InputError
from training.evaluate.suites.case import Case
from training.evaluate.suites.files import (
    as_labels,
    as_values,
    counted_ns,
    numbers,
    read_arrays,
    read_csv,
    read_matrix,
    times,
)
from training.evaluate.suites.split import split_of

_SKAB_TRAIN = 400  # rows; the leader board's rule
_SKAB_GROUPS = ("valve1", "valve2", "other")
_SKAB_TRUTH = ("anomaly", "changepoint")
_MINUTE_S = 60.0  # smap and smd have no times; their papers speak of one-minute aggregates
_TELEMETRY = 0  # channel of smap that the labels speak of
_ANOMALIES = "labeled_anomalies.csv"


def skab_files(folder: Path) -> list[Path]:
    """The labelled runs, by group and number; the anomaly-free run has nothing to find."""
    found = [path for group in _SKAB_GROUPS for path in (folder / group).glob("*.csv")]
    return sorted(found, key=lambda path: (path.parent.name, path.stem.zfill(9)))


def read_skab(path: Path) -> Case:
    """One run. Raises InputError."""
    name = f"{path.parent.name}/{path.stem}"
    columns = read_csv(path, ";")
    channels = tuple(column for column in columns if column not in ("datetime", *_SKAB_TRUTH))
    time_ns = times(path, columns, "datetime")
    return Case(
        suite="skab",
        family=path.parent.name,
        name=name,
        split=split_of("skab", name),
        time_ns=time_ns,
        values=numbers(path, columns, *channels),
        labels=as_labels(path, numbers(path, columns, "anomaly"), len(time_ns)),
        train=min(_SKAB_TRAIN, len(time_ns)),
        channels=channels,
        period_s=1.0,
        begin=min(_SKAB_TRAIN, len(time_ns)),
    )


def smap_files(folder: Path) -> list[Path]:
    """The telemetry streams in a folder, by name; none where the labels are not there."""
    if _anomalies_path(folder) is None:
        return []
    return sorted([*folder.glob("*.npz"), *(folder / "test").glob("*.npy")])


def read_smap(path: Path) -> Case:
    """One stream; its spacecraft is the family. Raises InputError."""
    folder = path.parent if path.suffix == ".npz" else path.parents[1]
    known = _anomalies(folder)
    if path.stem not in known:
        raise InputError(path, f"has no entry in {_ANOMALIES}", expected=path.stem)
    if path.suffix == ".npz":
        train, test = read_arrays(path, "train", "test")
    else:
        train, test = (_read_npy(folder / part / path.name) for part in ("train", "test"))
    values = as_values(path, "train, test", train, test)
    windows = tuple((len(train) + first, len(train) + last + 1) for first, last in sorted(known[path.stem].events))
    labels = np.zeros(len(values), np.uint8)
    for begin, end in windows:
        labels[begin:end] = 1
    commands = (f"command_{c}" for c in range(1, values.shape[1]))
    return Case(
        suite="smap",
        family=known[path.stem].spacecraft,
        name=path.stem,
        split=split_of("smap", path.stem),
        time_ns=counted_ns(len(values), _MINUTE_S),
        values=values,
        labels=labels,
        train=len(train),
        channels=("telemetry", *commands),
        period_s=_MINUTE_S,
        windows=windows,
        begin=len(train),
        target=_TELEMETRY,
    )


class _Truth(NamedTuple):
    spacecraft: str
    events: list[tuple[int, int]]
    """First and last row, in the test part."""


def _anomalies_path(folder: Path) -> Path | None:
    return next((path for path in (folder / _ANOMALIES, folder.parent / _ANOMALIES) if path.exists()), None)


@lru_cache(maxsize=2)
def _anomalies(folder: Path) -> dict[str, _Truth]:
    """What the labels say, by stream; a stream that is listed twice has the events of both lines."""
    path = _anomalies_path(folder) or folder / _ANOMALIES
    columns = read_csv(path)
    found: dict[str, _Truth] = {}
    for line, (stream, craft, cell) in enumerate(
        zip(columns["chan_id"], columns["spacecraft"], columns["anomaly_sequences"], strict=True), 2
    ):
        try:
            events = [(int(first), int(last)) for first, last in json.loads(cell)]
        except ValueError as error:
            raise InputError(path, f"line {line}", expected="[[first, last], ...]", got=cell) from error
        found.setdefault(stream, _Truth(craft, [])).events.extend(events)
    return found


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        loaded: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(path, "cannot be read", expected="an npy file", got=error) from error
    return loaded


def smd_files(folder: Path) -> list[Path]:
    """The servers in a folder, by name."""
    return sorted([*folder.glob("machine-*.npz"), *(folder / "test").glob("machine-*.txt")])


def read_smd(path: Path) -> Case:
    """One server; its group (the first number) is the family. Raises InputError."""
    if path.suffix == ".npz":
        train, test, told = read_arrays(path, "train", "test", "label")
    else:
        folder = path.parents[1]
        train, test = (read_matrix(folder / part / path.name, ",") for part in ("train", "test"))
        told = read_matrix(folder / "test_label" / path.name)
    values = as_values(path, "train, test", train, test)
    labels = as_labels(path, np.concatenate([np.zeros(len(train)), told.reshape(-1)]), len(values))
    return Case(
        suite="smd",
        family="-".join(path.stem.split("-")[:2]),
        name=path.stem,
        split=split_of("smd", path.stem),
        time_ns=counted_ns(len(values), _MINUTE_S),
        values=values,
        labels=labels,
        train=len(train),
        channels=tuple(f"indicator_{c}" for c in range(values.shape[1])),
        period_s=_MINUTE_S,
        begin=len(train),
    )
