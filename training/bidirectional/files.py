"""The user's file: read so that every row and column of it can be written back as it stands.

Training drops rows in which nothing was measured; here these are the ones to be filled. What has no place in the order
of time (a time that cannot be read, a row that is late or a duplicate, an infinite value) is left as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.errors import InputError
from detector.records import Float64, Int64
from detector.scoring.times import event_times, time_column
from detector.tables import read_columns, read_table
from training.bidirectional.known import Bools
from training.settings import DataSettings


@dataclass(frozen=True, slots=True)
class Stream:
    """The usable rows of one stream, in order of time; n of them, C channels."""

    name: str
    rows: Int64
    """(n,) where they stand in the file."""
    time_ns: Int64
    values: Float64
    """(n, C) raw units, NaN where missing."""


@dataclass(frozen=True, slots=True)
class History:
    """A file."""

    path: Path
    columns: dict[str, list[str]]
    """Cells as they stand."""
    rows: int
    streams: list[Stream]
    left_out: int
    """Rows that belong to no stream's order of time."""


def read_history(path: Path, channels: Sequence[str], data: DataSettings) -> History:
    """Read a CSV or Parquet file.

    Args:
        path: The file.
        channels: Columns that hold the channels.
        data: Which column is time, and which is the stream.

    Raises:
        InputError: naming file, line and column.
    """
    names = read_columns(path)
    time = time_column(names, data.time)
    if missing := [name for name in (*channels, data.stream) if name is not None and name not in names]:
        expected = f"the run's columns, {', '.join(missing)} too"
        raise InputError(path, "columns are missing", expected=expected, got=", ".join(names))
    table = read_table(path, texts=names, numbers=channels)
    if not table.rows:
        raise InputError(path, "holds no rows")
    values = np.stack([table.numbers[name] for name in channels], axis=1)
    times = None if time is None else event_times(table, time, data.time_unit, option="--time-unit:")
    keys = np.array(table.texts[data.stream], object) if data.stream else np.full(table.rows, str(path), object)
    streams = []
    for key in dict.fromkeys(keys):
        rows = np.flatnonzero(keys == key)
        when = _counted(path, len(rows), data) if times is None else times[rows]
        kept = _in_order(when, values[rows])
        if kept.any():
            streams.append(Stream(str(key), rows[kept], when[kept], values[rows[kept]]))
    return History(path, table.texts, table.rows, streams, table.rows - sum(len(one.rows) for one in streams))


def _counted(path: Path, rows: int, data: DataSettings) -> Int64:
    if data.period_s is None:
        raise InputError(path, "has no time column", expected="--time, or --period to count rows")
    return np.rint(np.arange(rows) * (data.period_s * 1e9)).astype(np.int64)


def _in_order(time_ns: Int64, values: Float64) -> Bools:
    """Which rows are finite and later than all before them, (n,) bool."""
    usable: Bools = (time_ns >= 0) & ~np.isinf(values).any(axis=1)
    latest = np.maximum.accumulate(np.where(usable, time_ns, -1))
    in_order: Bools = usable & (time_ns > np.concatenate([[-1], latest[:-1]]))
    return in_order
