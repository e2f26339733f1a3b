"""Tables in files: CSV and Parquet (extra `files`), by the file's ending; read into columns, and results written back.

    table = read_table(Path("pumps.csv"), texts=["time"])
    table.texts["time"]          # cells as they stand, "" where empty
    table.numbers["flow"]        # (n,) float64, NaN where empty

A column is numeric when its first non-empty cell is a number; a cell further down that is none is an error that names
file, line and column. CSV (UTF-8, commas, a header line) is read by the standard library alone, so that it reads the
same with and without pyarrow. Text columns of a Parquet file read as they would stand in CSV: times in RFC 3339.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detector.errors import ConfigurationError, InputError
from detector.records import Float64

_BLOCK_ROWS = 20_000  # rows turned into columns at once; keeps the text of a large file out of memory
_BUFFER_BYTES = 1 << 20  # of each column of a Parquet file; without, a whole row group is in memory at once

Progress: TypeAlias = Callable[[int], None]
"""Told how many more bytes have been read."""
Column: TypeAlias = Sequence[str] | NDArray[np.generic]
"""What a writer takes: text, or an array of floats or integers; NaN becomes an empty cell."""


@dataclass(slots=True)
class Table:
    """A file's columns, n rows."""

    path: Path
    rows: int
    texts: dict[str, list[str]]
    numbers: dict[str, Float64]


def read_columns(path: Path) -> list[str]:
    """The names of a file's columns. Raises InputError."""
    if _is_parquet(path):
        with _parquet_file(path) as file:
            return list(file.schema_arrow.names)
    with _csv_file(path) as lines:
        return lines.header


def numeric_columns(path: Path) -> list[str]:
    """The columns that look numeric from the file's first rows. Raises InputError."""
    if _is_parquet(path):
        with _parquet_file(path) as file:
            schema = file.schema_arrow
            return [name for name in schema.names if _is_numeric(pyarrow_or_error().types, schema.field(name).type)]
    with _csv_file(path) as lines:
        first = next(lines.blocks(), None)
        return [name for name in lines.header if first is None or _may_be_numeric(first.cells(name), [])]


def read_table(
    path: Path,
    *,
    texts: Sequence[str] = (),
    numbers: Sequence[str] | None = None,
    progress: Progress = lambda _: None,
) -> Table:
    """Read a whole file.

    Args:
        path: A .parquet file, or else CSV.
        texts: Columns wanted as text.
        numbers: Columns wanted as numbers; None takes every numeric column that is not in `texts`.
        progress: Told about bytes read.

    Raises:
        InputError: The file cannot be read, a column is missing, a row is ragged or a cell is no number.
    """
    known = read_columns(path)
    _check_known(path, known, [*texts, *(numbers or ())])
    wanted = [name for name in known if name not in texts] if numbers is None else list(numbers)
    read = _read_parquet if _is_parquet(path) else _read_csv
    table = read(path, list(texts), wanted, numbers is None, progress)
    if numbers is None:
        table.numbers = {name: cells for name, cells in table.numbers.items() if not np.isnan(cells).all()}
    return table


def read_blocks(path: Path, *, texts: Sequence[str], numbers: Sequence[str]) -> Iterator[Table]:
    """Read a file block by block, in order: one that is larger than memory.

    Args:
        path: A .parquet file, or else CSV.
        texts: Columns wanted as text.
        numbers: Columns wanted as numbers.

    Raises:
        InputError: As `read_table`.
    """
    _check_known(path, read_columns(path), [*texts, *numbers])
    if _is_parquet(path):
        yield from _parquet_blocks(path, list(texts), list(numbers))
        return
    with _csv_file(path) as lines:
        for block in lines.blocks():
            cells = {name: list(block.cells(name)) for name in texts}
            yield Table(path, len(block.rows), cells, {name: block.numbers(name) for name in numbers})


def _check_known(path: Path, known: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise InputError(path, f"column {name!r} is missing", expected=f"one of {', '.join(known)}")


# CSV


def _read_csv(path: Path, texts: list[str], wanted: list[str], only_numeric: bool, progress: Progress) -> Table:
    table = Table(path, 0, {name: [] for name in texts}, {})
    blocks: dict[str, list[Float64]] = {name: [] for name in wanted}
    told = 0
    with _csv_file(path) as lines:
        for block in lines.blocks():
            for name in texts:
                table.texts[name].extend(block.cells(name))
            for name in list(blocks):
                if only_numeric and not _may_be_numeric(block.cells(name), blocks[name]):
                    del blocks[name]
                else:
                    blocks[name].append(block.numbers(name))
            table.rows += len(block.rows)
            progress(lines.read_bytes - told)
            told = lines.read_bytes
    table.numbers = {name: np.concatenate([*parts, np.zeros(0)]) for name, parts in blocks.items()}
    return table


@contextmanager
def _csv_file(path: Path) -> Iterator[_Csv]:
    with _readable(path), path.open(encoding="utf-8-sig", newline="") as file:
        yield _Csv(path, file)


class _Csv:
    """A CSV file as blocks of rows."""

    def __init__(self, path: Path, file: io.TextIOWrapper) -> None:
        self.path, self._file = path, file
        self._reader = csv.reader(file, strict=True)
        self.header = next(iter(self._rows(1)), [])
        if not any(self.header):
            raise InputError(f"{path}:1", "the header is missing", expected="a first line that names the columns")
        twice = next((name for name in self.header if self.header.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{path}:1", f"column {twice!r} stands there twice", expected="each name once")

    @property
    def read_bytes(self) -> int:
        """How far the file has been read, to a buffer."""
        return os.lseek(self._file.fileno(), 0, os.SEEK_CUR)

    def blocks(self) -> Iterator[_Block]:
        """All rows; blank lines are none."""
        while True:
            before = self._reader.line_num
            rows = self._rows(_BLOCK_ROWS)
            if self._reader.line_num == before:
                return
            if filled := [row for row in rows if row]:
                yield _Block(self, before + 1, rows, filled)

    def _rows(self, count: int) -> list[list[str]]:
        try:
            return list(islice(self._reader, count))
        except csv.Error as error:
            raise InputError(f"{self.path}:{self._reader.line_num}", f"not CSV: {error}") from error
        except UnicodeDecodeError as error:
            # The reader is ahead of the rows by a buffer: which line it is can only be bounded.
            byte = f"byte {error.object[error.start]:#04x}"
            raise InputError(f"{self.path}:{self._reader.line_num + 1}", "not UTF-8 from here on", got=byte) from error


class _Block:
    """Some rows of a CSV file, and on which line they begin."""

    def __init__(self, lines: _Csv, first_line: int, raw: list[list[str]], rows: list[list[str]]) -> None:
        self._lines, self._first_line, self._raw, self.rows = lines, first_line, raw, rows
        width = len(lines.header)
        for place, row in enumerate(rows):
            if len(row) != width:
                raise InputError(self._where(place), "the row is ragged", expected=f"{width} cells", got=len(row))
        self._columns = list(zip(*rows, strict=True))

    def cells(self, column: str) -> tuple[str, ...]:
        return self._columns[self._lines.header.index(column)]

    def numbers(self, column: str) -> Float64:
        cells = self.cells(column)
        try:
            if "_" in "".join(cells):
                raise ValueError
            return np.array([float(cell) if cell else np.nan for cell in cells], np.float64)
        except ValueError:
            return self._numbers_one_by_one(column, cells)

    def _numbers_one_by_one(self, column: str, cells: Sequence[str]) -> Float64:
        """The slow way: blanks count as empty, and an error gets its place."""
        values = np.full(len(cells), np.nan)
        for place, cell in enumerate(cells):
            if not cell.strip():
                continue
            if not _is_number(cell):
                where = f"{self._where(place)}: column {column!r}"
                raise InputError(where, "not a number", expected="a number or an empty cell", got=repr(cell))
            values[place] = float(cell)
        return values

    def _where(self, place: int) -> str:
        """File and line of a row: blank lines count, and quoted cells may hold line breaks."""
        raw = next(i for i, row in enumerate(self._raw) if row is self.rows[place])
        breaks = sum(cell.count("\n") for row in self._raw[:raw] for cell in row)
        return f"{self._lines.path}:{self._first_line + raw + breaks}"


def _may_be_numeric(cells: Sequence[str], before: list[Float64]) -> bool:
    """Whether the column's first non-empty cell, here or in an earlier block, is a number."""
    if any(not np.isnan(block).all() for block in before):
        return True
    return _is_number(next((cell for cell in cells if cell.strip() and cell.strip().lower() != "nan"), "0"))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # digit grouping of Python, not of data files


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(path, "cannot be read", expected="a readable file", got=error.strerror or error) from error


# Parquet


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in {".parquet", ".pq"}


def pyarrow_or_error() -> Any:
    """Pyarrow, or a ConfigurationError that says what to install."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigurationError(
            "Parquet", "pyarrow is not installed", hint="pip install 'tidewarden[files]', or use CSV"
        ) from error
    return pyarrow


@contextmanager
def _parquet_file(path: Path, buffer_size: int = 0) -> Iterator[Any]:
    arrow = pyarrow_or_error()
    with _readable(path):
        try:
            file = arrow.parquet.ParquetFile(path, buffer_size=buffer_size)
        except arrow.ArrowException as error:
            raise InputError(path, "not a Parquet file", got=str(error).partition("\n")[0]) from error
        with file:
            yield file


def _read_parquet(path: Path, texts: list[str], wanted: list[str], only_numeric: bool, progress: Progress) -> Table:
    with _parquet_file(path) as file:
        numeric = _numeric(path, file.schema_arrow, wanted, only_numeric)
        with _undamaged(path):
            columns = file.read(columns=[*texts, *numeric])
    progress(path.stat().st_size)
    return _table(path, columns, texts, numeric)


def _parquet_blocks(path: Path, texts: list[str], wanted: list[str]) -> Iterator[Table]:
    with _parquet_file(path, buffer_size=_BUFFER_BYTES) as file, _undamaged(path):
        numeric = _numeric(path, file.schema_arrow, wanted, False)
        for batch in file.iter_batches(_BLOCK_ROWS, columns=[*texts, *numeric]):
            yield _table(path, batch, texts, numeric)


def _numeric(path: Path, schema: Any, wanted: Sequence[str], only_numeric: bool) -> list[str]:
    types = pyarrow_or_error().types
    numeric = [name for name in wanted if _is_numeric(types, schema.field(name).type)]
    for name in wanted:
        if name not in numeric and not only_numeric:
            raise InputError(
                f"{path}: column {name!r}", "not numbers", expected="a numeric column", got=schema.field(name).type
            )
    return numeric


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    arrow = pyarrow_or_error()
    try:
        yield
    except arrow.ArrowException as error:
        raise InputError(path, "damaged", got=str(error).partition("\n")[0]) from error


def _table(path: Path, columns: Any, texts: Sequence[str], numeric: Sequence[str]) -> Table:
    arrow = pyarrow_or_error()
    numbers = {
        name: np.asarray(columns[name].cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
        for name in numeric
    }
    return Table(path, columns.num_rows, {name: _as_text(arrow, columns[name]) for name in texts}, numbers)


def _is_numeric(types: Any, of: Any) -> bool:
    return bool(types.is_integer(of) or types.is_floating(of) or types.is_decimal(of))


def _as_text(arrow: Any, column: Any) -> list[str]:
    """A column as CSV would hold it."""
    if arrow.types.is_timestamp(column.type):
        counts = column.cast(arrow.int64()).to_numpy(zero_copy_only=False)
        stamps = np.asarray(counts).astype(f"datetime64[{column.type.unit}]")
        return [_rfc3339(text) for text in np.datetime_as_string(stamps).tolist()]
    return ["" if cell is None else str(cell) for cell in column.to_pylist()]


def _rfc3339(text: str) -> str:
    if text == "NaT":
        return ""
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "Z"


# Writing


class TableWriter:
    """Writes blocks of columns; the file appears under its name only when it is complete.

    Raises ConfigurationError on entry when the ending is neither .csv nor .parquet, or pyarrow is missing.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() != ".csv" and not _is_parquet(path):
            raise ConfigurationError(path, "unknown kind of output", expected="an ending of .csv or .parquet")
        self.path, self._partial = path, path.with_name(f".{path.name}.partial")
        self._arrow = pyarrow_or_error() if _is_parquet(path) else None
        self._file: Any = None

    def __enter__(self) -> TableWriter:
        return self

    def write(self, columns: Mapping[str, Column]) -> None:
        """Append rows; every call must bring the same columns in the same order."""
        if self._arrow is not None:
            self._write_parquet(self._arrow, columns)
        else:
            self._write_csv(columns)

    def _write_csv(self, columns: Mapping[str, Column]) -> None:
        if self._file is None:
            self._file = self._partial.open("w", encoding="utf-8", newline="")
            csv.writer(self._file, lineterminator="\n").writerow(columns)
        cells = [format_column(column) for column in columns.values()]
        csv.writer(self._file, lineterminator="\n").writerows(zip(*cells, strict=True))

    def _write_parquet(self, arrow: Any, columns: Mapping[str, Column]) -> None:
        table = arrow.table(
            {
                name: arrow.array(column, from_pandas=True)  # from_pandas: NaN becomes null
                if isinstance(column, np.ndarray)
                else arrow.array(column, arrow.string())
                for name, column in columns.items()
            }
        )
        if self._file is None:
            self._file = arrow.parquet.ParquetWriter(self._partial, table.schema)
        self._file.write_table(table)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._file is None:
            return
        self._file.close()
        if error is None:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink(missing_ok=True)


def format_column(column: Column) -> Sequence[str]:
    """Cells of CSV: floats as the shortest decimals that read back to the same bits in their own width."""
    if not isinstance(column, np.ndarray):
        return column
    if column.dtype == np.float64:
        return ["" if value != value else repr(value) for value in column.tolist()]
    if column.dtype == np.float32:
        return ["" if text == "nan" else text for text in column.astype(str).tolist()]
    return [str(value) for value in column.tolist()]
