"""CSV and Parquet files to `Series`, by the same rules and with the same messages as `tidewarden score`.

What cannot be used (a missing column, a cell that is no number) is an `InputError` that names file, line and column.
What the daemon would refuse (a time that cannot be read, a late sample) is left out and counted by reason.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from detector.errors import InputError
from detector.records import Int64
from detector.scoring.times import event_times, time_column
from detector.tables import Table, numeric_columns, read_blocks, read_columns, read_table
from training.data.gather import Gathered
from training.data.series import Series, Watch
from training.settings import DataSettings

_LARGE_BYTES = 64 << 20  # a file that is larger is read block by block


def read_files(settings: DataSettings, rejects: Counter[str], watch: Watch = iter) -> list[Series]:
    """All files in memory; a stream with a column of its own goes on from file to file. Raises InputError."""
    gathered = Gathered(rejects)
    gather_files(settings, gathered, watch)
    return gathered.series()


def gather_files(settings: DataSettings, gathered: Gathered, watch: Watch = iter) -> None:
    """Read all files.

    Args:
        settings: Which files, and which column is what.
        gathered: Takes the samples.
        watch: Shows progress over the files.

    Raises:
        InputError: naming file, line and column.
    """
    for path in watch(resolve(settings.paths)):
        names = read_columns(path)
        time = time_column(names, settings.time)
        counted: Counter[str] = Counter()
        for table in _tables(path, names, time, settings):
            channels = tuple(table.numbers)
            values = np.stack(list(table.numbers.values()), axis=1)
            time_ns = None if time is None else event_times(table, time, settings.time_unit, option="data.time_unit:")
            for stream, rows in _rows_by_stream(table, settings.stream):
                when = _counted_times(path, settings, counted[stream], len(rows)) if time_ns is None else time_ns[rows]
                counted[stream] += len(rows)
                gathered.add(stream, channels, when, values[rows])


def resolve(patterns: Sequence[str]) -> list[Path]:
    """The files that names and globs stand for, each once. Raises InputError where one stands for none."""
    paths: dict[Path, None] = {}
    for pattern in patterns:
        found = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise InputError(pattern, "no such file", expected="CSV or Parquet files, or a glob")
        paths |= dict.fromkeys(map(Path, found))
    return list(paths)


def _tables(path: Path, names: Sequence[str], time: str | None, settings: DataSettings) -> Iterator[Table]:
    """The file's columns, in one piece or, where it is large, block by block.

    Of a large file, what is numeric is said by its first rows: a channel that is empty there must be named.
    """
    texts = [name for name in (time, settings.stream) if name is not None]
    if path.stat().st_size <= _LARGE_BYTES:
        tables: Iterator[Table] = iter([read_table(path, texts=texts, numbers=settings.channels)])
    else:
        numbers = settings.channels or [name for name in numeric_columns(path) if name not in texts]
        tables = read_blocks(path, texts=texts, numbers=numbers)
    rows = 0
    for table in tables:
        rows += table.rows
        if table.rows and not table.numbers:
            raise InputError(path, "has no numeric column", expected="at least one channel", got=", ".join(names))
        if table.rows:
            yield table
    if not rows:
        raise InputError(path, "holds no rows")


def _rows_by_stream(table: Table, column: str | None) -> Iterator[tuple[str, Int64]]:
    if column is None:
        yield str(table.path), np.arange(table.rows)
        return
    names, stream = np.unique(np.array(table.texts[column], object), return_inverse=True)
    order = np.argsort(stream, kind="stable")
    yield from zip(names, np.split(order, np.cumsum(np.bincount(stream))[:-1]), strict=True)


def _counted_times(path: Path, settings: DataSettings, before: int, rows: int) -> Int64:
    if settings.period_s is None:
        raise InputError(path, "has no time column", expected="data.time, or data.period_s to count rows")
    return np.rint(np.arange(before, before + rows) * (settings.period_s * 1e9)).astype(np.int64)
