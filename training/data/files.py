"""CSV and Parquet files to `Series`.

Every fault is an `InputError` that names file, line and column (a Parquet file has rows instead of lines). An empty
cell and `nan` are missing values.
"""

from __future__ import annotations

import csv
import glob
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from detector.errors import InputError
from detector.records import Float64, Int64
from training.data.series import Series, accept
from training.settings import DataSettings

_TIME_NAMES = ("time", "timestamp", "ts", "date", "datetime")
_NS_PER_UNIT = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_EMPTY = ["", "nan", "NaN", "NAN", "null", "NULL", "None"]
_ZONED = r"(Z|[+-]\d\d:?\d\d)$"


@dataclass(frozen=True, slots=True)
class Table:
    """A file's columns; CSV cells are still text."""

    path: Path
    columns: dict[str, pa.Array]
    first_line: int
    """Line (CSV) or row (Parquet) of the first sample."""

    def fault(self, column: str, row: int, what: str, *, expected: object, got: object = None) -> InputError:
        """An error that points at one cell."""
        line = "line" if self.path.suffix.lower() != ".parquet" else "row"
        where = f"{self.path}, {line} {row + self.first_line}, column {column}"
        return InputError(where, what, expected=expected, got=repr(got))


def read_files(settings: DataSettings, rejects: Counter[str]) -> list[Series]:
    """Read all files; a stream with a column of its own goes on from file to file.

    Raises:
        InputError: naming file, line and column.
    """
    parts: dict[str, list[tuple[tuple[str, ...], Int64, Float64]]] = defaultdict(list)
    for path in _resolve(settings.paths):
        table = _read(path)
        time_column = _time_column(table, settings.time)
        channels = _channels(table, settings, time_column)
        values = np.stack([_numbers(table, name) for name in channels], axis=1)
        time_ns = _times(table, time_column, settings, len(values))
        for stream, rows in _rows_by_stream(table, settings.stream):
            parts[stream].append((channels, time_ns[rows], values[rows]))
    series = [_join(stream, pieces, rejects) for stream, pieces in parts.items()]
    return [one for one in series if one is not None]


def _resolve(patterns: Sequence[str]) -> list[Path]:
    paths: dict[Path, None] = {}
    for pattern in patterns:
        found = sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise InputError(pattern, "no such file", expected="CSV or Parquet")
        paths.update(dict.fromkeys(map(Path, found)))
    return list(paths)


def _join(stream: str, pieces: list[tuple[tuple[str, ...], Int64, Float64]], rejects: Counter[str]) -> Series | None:
    channels = pieces[0][0]
    for other, _, _ in pieces:
        if other != channels:
            raise InputError(f"stream {stream}", "its files differ in channels", expected=channels, got=other)
    time_ns = np.concatenate([piece[1] for piece in pieces])
    return accept(stream, channels, time_ns, np.concatenate([piece[2] for piece in pieces]), rejects)


def _read(path: Path) -> Table:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            table, first_line = pa.parquet.read_table(path), 0
        elif suffix in (".csv", ".txt"):
            table, first_line = _read_csv(path), 2
        else:
            raise InputError(path, "unknown kind of file", expected="a name ending in .csv or .parquet")
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, str(error).partition("\n")[0]) from None
    if table.num_rows == 0:
        raise InputError(path, "holds no rows")
    return Table(path, {name: table.column(name).combine_chunks() for name in table.column_names}, first_line)


def _unreadable(path: Path, message: str) -> InputError:
    if row := re.search(r"Row #(\d+): Expected (\d+ columns), got (\d+)", message):
        return InputError(f"{path}, line {row[1]}", "is cut off or too long", expected=row[2], got=row[3])
    return InputError(path, "cannot be read", got=message)


def _read_csv(path: Path) -> pa.Table:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        names = next(csv.reader(file), [])
    return pa.csv.read_csv(
        path,
        read_options=pa.csv.ReadOptions(use_threads=False),  # with threads its messages do not know the row
        parse_options=pa.csv.ParseOptions(ignore_empty_lines=False),  # keeps row + 2 = line
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )


def _column(table: Table, name: str) -> pa.Array:
    if name not in table.columns:
        raise InputError(table.path, f"has no column {name!r}", expected=f"one of {', '.join(table.columns)}")
    return table.columns[name]


def _time_column(table: Table, name: str | None) -> str | None:
    if name is not None:
        _column(table, name)
        return name
    return next((column for column in table.columns if column.lower() in _TIME_NAMES), None)


def _channels(table: Table, settings: DataSettings, time_column: str | None) -> tuple[str, ...]:
    if settings.channels is not None:
        return tuple(settings.channels)
    left = [name for name in table.columns if name not in (time_column, settings.stream)]
    channels = tuple(name for name in left if _looks_numeric(table.columns[name]))
    if not channels:
        raise InputError(table.path, "has no numeric column", got=", ".join(table.columns))
    return channels


def _looks_numeric(column: pa.Array) -> bool:
    """Whether the first cell that holds anything is a number; a later one that is none is then a fault."""
    if not pa.types.is_string(column.type):
        return _is_number(column.type)
    for cell in column:
        if (text := cell.as_py()) is not None and text.strip() not in _EMPTY:
            return _to_float(text) is not None
    return False


def _is_number(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def _to_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _numbers(table: Table, name: str) -> Float64:
    column = _column(table, name)
    if pa.types.is_string(column.type):
        text = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.is_in(text, pa.array(_EMPTY)), pa.scalar(None, pa.string()), text)
    elif not _is_number(column.type):
        raise InputError(table.path, f"column {name!r}", expected="numbers", got=column.type)
    try:
        return np.array(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    except pa.ArrowInvalid:
        return _numbers_one_by_one(table, name, column)


def _numbers_one_by_one(table: Table, name: str, column: pa.Array) -> Float64:
    """What arrow will not read, such as 1_000 or +5; finds the cell that is no number."""
    numbers = np.full(len(column), np.nan)
    for row, text in enumerate(column.to_pylist()):
        number = np.nan if text is None else _to_float(text)
        if number is None:
            raise table.fault(name, row, "is no number", expected="a number or an empty cell", got=text)
        numbers[row] = number
    return numbers


def _rows_by_stream(table: Table, name: str | None) -> list[tuple[str, np.ndarray]]:
    if name is None:
        return [(str(table.path), np.arange(len(next(iter(table.columns.values())))))]
    keys = pc.cast(_column(table, name), pa.string()).dictionary_encode()
    if keys.null_count:
        row = int(np.flatnonzero(keys.is_null().to_numpy(zero_copy_only=False))[0])
        raise table.fault(name, row, "is empty", expected="the stream's key")
    indices = keys.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(indices, kind="stable")
    bounds = np.searchsorted(indices[order], np.arange(1, len(keys.dictionary)))
    return list(zip(keys.dictionary.to_pylist(), np.split(order, bounds), strict=True))


def _times(table: Table, name: str | None, settings: DataSettings, rows: int) -> Int64:
    """(rows,) event times in Unix nanoseconds."""
    if name is None:
        return _counted_times(table, settings, rows)
    column = _column(table, name)
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise table.fault(name, row, "is empty", expected="a time")
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return _unix_ns(column)
    numbers = _as_numbers(column)
    if numbers is None:
        return _text_times(table, name, column)
    if settings.time_unit in (None, "iso8601"):
        raise InputError(table.path, f"column {name!r} holds numbers", expected="data.time_unit: s, ms, us or ns")
    return _scaled(numbers, _NS_PER_UNIT[settings.time_unit])


def _counted_times(table: Table, settings: DataSettings, rows: int) -> Int64:
    if settings.period_s is None:
        raise InputError(
            table.path,
            "has no time column",
            expected="data.time, or data.period_s to count rows",
            got=list(table.columns),
        )
    return np.round(np.arange(rows) * (settings.period_s * 1e9)).astype(np.int64)


def _as_numbers(column: pa.Array) -> pa.Array | None:
    """int64 or float64, or None where the column is text such as a date."""
    for kind in (pa.int64(), pa.float64()):
        try:
            return pc.cast(column, kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    return None


def _scaled(numbers: pa.Array, ns_per_unit: int) -> Int64:
    values = numbers.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "i":
        return values * ns_per_unit
    whole = np.floor(values)  # apart, so that the fraction of a large number of seconds keeps its digits
    return whole.astype(np.int64) * ns_per_unit + np.round((values - whole) * ns_per_unit).astype(np.int64)


def _text_times(table: Table, name: str, column: pa.Array) -> Int64:
    text = pc.utf8_trim_whitespace(column)
    zoned = pc.match_substring_regex(text[:1], _ZONED)[0].as_py()
    kind = pa.timestamp("ns", "UTC") if zoned else pa.timestamp("ns")
    try:
        return _unix_ns(pc.cast(text, kind))
    except pa.ArrowInvalid:
        pass
    for row, cell in enumerate(text):  # the slow way, once, to say which cell it was
        try:
            pc.cast(pa.array([cell.as_py()]), kind)
        except pa.ArrowInvalid:
            expected = "ISO 8601 such as 2026-11-21T12:00:00Z, as in the other rows"
            raise table.fault(name, row, "is no time", expected=expected, got=cell.as_py()) from None
    raise InputError(table.path, f"column {name!r}", expected="times")


def _unix_ns(column: pa.Array) -> Int64:
    """Unix nanoseconds; a time without an offset is UTC."""
    zone = column.type.tz if pa.types.is_timestamp(column.type) else None
    return pc.cast(pc.cast(column, pa.timestamp("ns", zone)), pa.int64()).to_numpy(zero_copy_only=False)
