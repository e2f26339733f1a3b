"""Single streams in files of their own: the UCR archive, MGAB, and the web-service indicators WSD and KPI.

ucr   one anomaly after a clean training part; the archive's own text files, or npz (`train`, `test`, `test_label`)
mgab  chaotic Mackey-Glass series with ten anomalies each (Thill et al. 2020); its CSV, or npz
wsd   web-service indicators, npz with two halves, each with labels and timestamps; the second half is measured
kpi   the same shape (AIOPS 2018)
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from training.evaluate.suites.case import Case
from training.evaluate.suites.files import (
    as_labels,
    as_values,
    counted_ns,
    numbers,
    read_arrays,
    read_csv,
    read_matrix,
    seconds_ns,
)
from training.evaluate.suites.split import split_of

_UCR_NAME = re.compile(r"\d+_UCR_Anomaly_(?P<name>.+)_(?P<train>\d+)_(?P<begin>\d+)_(?P<end>\d+)")
_COUNTED_S = 1.0  # period of ucr and mgab, which have no times
_VALUE = ("value",)


def ucr_files(folder: Path) -> list[Path]:
    """The series in a folder, by name."""
    texts = (path for path in folder.glob("*.txt") if _UCR_NAME.match(path.stem))
    return sorted([*folder.glob("*.npz"), *texts])


def npz_files(folder: Path) -> list[Path]:
    """The npz files in a folder, by name."""
    return sorted(folder.glob("*.npz"))


def mgab_files(folder: Path) -> list[Path]:
    """The series in a folder, by name."""
    return sorted([*folder.glob("*.npz"), *(path for path in folder.glob("*.csv") if path.stem.isdigit())])


def read_ucr(path: Path) -> Case:
    """One series; its family says whether it is plain, DISTORTED or NOISE. Raises InputError."""
    stated = _UCR_NAME.match(path.stem)
    if stated:
        name, train, begin, end = stated["name"], *(int(stated[part]) for part in ("train", "begin", "end"))
        values = read_matrix(path).reshape(-1, 1)
        labels = np.zeros(len(values), np.uint8)
        labels[begin:end] = 1
    else:
        before, after, told = read_arrays(path, "train", "test", "test_label")
        values = as_values(path, "train, test", before, after)
        name, train = path.stem, len(before)
        labels = as_labels(path, np.concatenate([np.zeros(train), told]), len(values))
    return Case(
        suite="ucr",
        family=next((kind for kind in ("DISTORTED", "NOISE") if name.startswith(kind)), "plain"),
        name=name,
        split=split_of("ucr", name),
        time_ns=counted_ns(len(values), _COUNTED_S),
        values=values,
        labels=labels,
        train=train,
        channels=_VALUE,
        period_s=_COUNTED_S,
        begin=train,
    )


def read_mgab(path: Path) -> Case:
    """One series; the rows that it declares as ignored at its start are not measured. Raises InputError."""
    names = ("value", "is_anomaly", "is_ignored")
    if path.suffix == ".npz":
        cells, told, ignored = read_arrays(path, *names)
        values = as_values(path, "value", cells)
    else:
        table = numbers(path, read_csv(path), *names)
        values, told, ignored = table[:, :1], table[:, 1], table[:, 2]
    measured = np.flatnonzero(ignored == 0)
    return Case(
        suite="mgab",
        family="MGAB",
        name=path.stem,
        split=split_of("mgab", path.stem),
        time_ns=counted_ns(len(values), _COUNTED_S),
        values=values,
        labels=as_labels(path, told, len(values)),
        train=0,
        channels=_VALUE,
        period_s=_COUNTED_S,
        begin=int(measured[0]) if measured.size else 0,
    )


def read_wsd(path: Path) -> Case:
    """One indicator. Raises InputError."""
    return _read_halves("wsd", path)


def read_kpi(path: Path) -> Case:
    """One indicator. Raises InputError."""
    return _read_halves("kpi", path)


def _read_halves(suite: str, path: Path) -> Case:
    names = ("train", "test", "train_label", "test_label", "train_timestamp", "test_timestamp")
    train, test, *labels, first, second = read_arrays(path, *names)
    values = as_values(path, "train, test", train, test)
    time_ns = seconds_ns(path, np.concatenate([first, second]))
    return Case(
        suite=suite,
        family=suite.upper(),
        name=path.stem,
        split=split_of(suite, path.stem),
        time_ns=time_ns,
        values=values,
        labels=as_labels(path, np.concatenate(labels), len(values)),
        train=len(train),
        channels=_VALUE,
        period_s=float(np.median(np.diff(time_ns))) / 1e9 if len(time_ns) > 1 else None,
        begin=len(train),
    )
