"""TSB-AD (Liu and Paparrizos, NeurIPS 2024): series of many sources, measured over all of their rows.

Takes the benchmark's own CSV files (`Data` or channel columns, `Label` last) and npz files (`X`, `y`); the rows that
are training stand in the name, `..._tr_1007_1st_2014`. The source, such as UCR, is the family.
"""

from __future__ import annotations

import csv
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from detector.errors import InputError
from training.evaluate.suites.case import Case
from training.evaluate.suites.files import as_labels, as_values, counted_ns, numbers, read_arrays, read_csv
from training.evaluate.suites.split import split_of

_NAME = re.compile(r"\d+_(?P<family>[^_]+)_id_\d+_.*tr_(?P<train>\d+)_1st_\d+")
_PERIOD_S = 1.0  # the benchmark has no times; as `tidewarden score` counts where a file has none


def files(folder: Path) -> list[Path]:
    """The series in a folder, by name; of one that lies there both as npz and as CSV the npz."""
    found = {path.stem: path for kind in ("csv", "npz") for path in folder.glob(f"*.{kind}") if _NAME.match(path.stem)}
    return [found[name] for name in sorted(found)]


def read_univariate(path: Path) -> Case:
    """One series of TSB-AD-U. Raises InputError."""
    case = _read("tsb-ad-u", path)
    if len(case.channels) != 1:
        raise InputError(path, "channels", expected=1, got=len(case.channels), hint="--suite tsb-ad-m has many")
    return case


def read_multivariate(path: Path) -> Case:
    """One series of TSB-AD-M. Raises InputError."""
    return _read("tsb-ad-m", path)


def _read(suite: str, path: Path) -> Case:
    name = _NAME.match(path.stem)
    if name is None:
        raise InputError(path, "name", expected="NNN_SOURCE_id_N_..._tr_N_1st_N", got=path.stem)
    if path.suffix == ".npz":
        cells, labels = read_arrays(path, "X", "y")
        values = as_values(path, "X", cells)
        channels = tuple(f"channel_{c}" for c in range(values.shape[1]))
    else:
        columns = read_csv(path)
        channels = tuple(column for column in columns if column != "Label")
        values, labels = numbers(path, columns, *channels), numbers(path, columns, "Label")
    return Case(
        suite=suite,
        family=name["family"],
        name=path.stem,
        split=split_of(suite, path.stem),
        time_ns=counted_ns(len(values), _PERIOD_S),
        values=values,
        labels=as_labels(path, labels, len(values)),
        train=min(int(name["train"]), len(values)),
        channels=channels,
        period_s=_PERIOD_S,
    )


def published(folder: Path, suite: str) -> dict[str, dict[str, float]]:
    """VUS-PR by method and series, as the benchmark's authors publish it; empty where their table is not there."""
    name = {"tsb-ad-u": "published_vus_pr_U.csv", "tsb-ad-m": "published_vus_pr_M.csv"}.get(suite, "none.csv")
    path = next((path for path in (folder / name, folder.parent / name) if path.exists()), None)
    return {} if path is None else _table(path)


@lru_cache(maxsize=2)
def _table(path: Path) -> dict[str, dict[str, float]]:
    """Columns up to `ts_len` are methods; what follows describes the series."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0])[1 : list(rows[0]).index("ts_len")]
    table: dict[str, dict[str, float]] = {method: {} for method in columns}
    for row in rows:
        for method in columns:
            if row[method] and np.isfinite(float(row[method])):
                table[method][Path(row["file"]).stem] = float(row[method])
    return table
