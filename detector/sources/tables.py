"""Files of samples as records: JSON Lines as they stand, rows of CSV and Parquet as JSON of the declared shape.

A `Tape` is what the file source plays: it hands over `Chunk`s and knows positions and anchors. One shape for all of
them means one way to decode, one set of reasons to reject. A row that is no row (too short, not UTF-8) is handed over
as it stands and rejected further on, like any broken record.

Of CSV (UTF-8, commas, a header line, no line breaks inside cells) and Parquet the stream, the time and the channels
are columns. Without `channels` in the settings every other column is one whose first cell is a number or empty. In
narrow records the channel's name and its value are a column each.
"""

from __future__ import annotations

import csv
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np

from detector.errors import ConfigurationError, SourceError
from detector.records import NO_TIME, Int64
from detector.settings import FileSourceSettings
from detector.sources.lines import ANCHOR_BYTES, LineFile, Lines
from detector.tables import pyarrow_or_error

_HEAD_BYTES = 1 << 20  # header and first row must stand in so many bytes
_NS_PER = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}

Cell: TypeAlias = str | int | float | msgspec.Raw | None
_encode = msgspec.json.Encoder().encode
_BOM = b"\xef\xbb\xbf"  # spreadsheets write it
_BATCH_ROWS = 4096
_INFINITE = msgspec.Raw(b"1e999")  # JSON has no infinity; what decodes it says not_finite


@dataclass(slots=True)
class Chunk:
    """Some records of a file."""

    values: list[bytes | None]
    originals: Sequence[bytes] | None
    """The lines that the values were made from, where they differ."""
    positions: Int64
    next_position: int


class Tape(Protocol):
    """One file, from any position on. All methods may block."""

    is_finished: bool

    def check(self) -> None:
        """Raise ConfigurationError if a column that the settings name is not there, as far as can be known yet."""
        ...

    def seek(self, position: int) -> None:
        """Go on at a position."""
        ...

    def read(self, limit: int) -> Chunk | None:
        """The next records; None where there are none (yet)."""
        ...

    def start(self, near: int) -> int:
        """The first position of the generation that `near` is in."""
        ...

    def end(self, near: int) -> int:
        """The position after the last record that is there now, in that generation."""
        ...

    def anchor(self, position: int) -> str | None:
        """A fingerprint of what stands before a position."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


def open_tape(path: Path, settings: FileSourceSettings) -> Tape:
    """Open a file by its ending.

    Raises:
        ConfigurationError: The ending is unknown, a column is missing, or pyarrow is.
        SourceError: The file cannot be read.
    """
    make = _TAPES.get(path.suffix.lower())
    if make is None:
        raise ConfigurationError(path, "unknown kind of file", expected=f"an ending of {', '.join(_TAPES)}")
    tape = make(path, settings)
    try:
        tape.check()
    except ConfigurationError:
        tape.close()
        raise
    return tape


class JsonLinesTape(LineFile):
    """Lines that are records."""

    def __init__(self, path: Path, settings: FileSourceSettings) -> None:
        super().__init__(path, follow=settings.mode == "tail", max_line_bytes=settings.record.max_record_bytes)

    def check(self) -> None:
        """There are no columns."""

    def read(self, limit: int) -> Chunk | None:
        """The next lines, less empty ones."""
        found = self.read_lines(limit)
        if found is None:
            return None
        lines, positions = _filled(found)
        return Chunk([*lines], None, positions, found.next_position)


class CsvTape(LineFile):
    """Lines that are rows under a header, which stands at the start of every generation."""

    def __init__(self, path: Path, settings: FileSourceSettings) -> None:
        super().__init__(path, follow=settings.mode == "tail", max_line_bytes=settings.record.max_record_bytes)
        self._settings = settings
        self._row: _Row | None = None
        self._row_of = -1  # the generation whose header it was made from

    def check(self) -> None:
        """Columns are known as soon as the header is there."""
        if b"\n" in self.head(_HEAD_BYTES):
            self._learn()

    def read(self, limit: int) -> Chunk | None:
        """The next rows as JSON."""
        found = self.read_lines(limit)
        if found is None:
            return None
        lines, positions = _filled(found)
        if lines and positions[0] == self.start(found.next_position):
            lines, positions = lines[1:], positions[1:]
        row = self._row if self._row is not None and self._row_of == self.generation else self._learn()
        return Chunk([*map(row.value, _cells(lines), lines)], lines, positions, found.next_position)

    def _learn(self) -> _Row:
        """The columns of this generation; they do not depend on where reading begins, so a restart sees the same."""
        first, _, others = self.head(_HEAD_BYTES).partition(b"\n")
        second = next((line for line in others.split(b"\n") if line.strip()), b"")
        header = _cells_of_one(first.removeprefix(_BOM).removesuffix(b"\r")) or []
        sample = _cells_of_one(second.removesuffix(b"\r")) or []
        is_channel = [not isinstance(_number(cell), str) for cell in sample]
        self._row = _Row(self.path, header, is_channel, self._settings)
        self._row_of = self.generation if second else -1
        return self._row


class ParquetTape:
    """Rows of a Parquet file, a position each. Such a file is complete when it is there: nothing to follow."""

    def __init__(self, path: Path, settings: FileSourceSettings) -> None:
        arrow = pyarrow_or_error()
        try:
            self._file = arrow.parquet.ParquetFile(path)
        except (OSError, arrow.ArrowException) as error:
            raise SourceError(path, "cannot be read", got=str(error).partition("\n")[0]) from error
        self._path, self._settings = path, settings
        self._row: _Row
        self.seek(0)

    def check(self) -> None:
        """The file's schema names the columns."""
        schema, types = self._file.schema_arrow, pyarrow_or_error().types
        numeric = [types.is_integer(f.type) or types.is_floating(f.type) or types.is_decimal(f.type) for f in schema]
        self._row = _Row(self._path, schema.names, numeric, self._settings)

    def seek(self, position: int) -> None:
        """Go on at a row."""
        self._position, self._rows, self.is_finished = position, self._rows_from(position), False

    def _rows_from(self, row: int) -> Iterator[Sequence[Cell]]:
        """Rows from `row` on; groups of rows before it are not read."""
        metadata = self._file.metadata
        groups = list(range(metadata.num_row_groups))
        while groups and row >= (size := metadata.row_group(groups[0]).num_rows):
            row -= size
            del groups[0]
        for batch in self._file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups) if groups else ():
            columns = [_typed_cells(column, self._settings.record.time_unit) for column in batch.columns]
            yield from islice(zip(*columns, strict=True), row, None)
            row = max(0, row - batch.num_rows)

    def read(self, limit: int) -> Chunk | None:
        """The next rows as JSON."""
        rows = list(islice(self._rows, limit))
        if not rows:
            self.is_finished = True
            return None
        first, self._position = self._position, self._position + len(rows)
        return Chunk([*map(self._row.value, rows)], None, np.arange(first, self._position), self._position)

    def start(self, near: int) -> int:
        """The first row."""
        return 0

    def end(self, near: int) -> int:
        """One past the last row."""
        return int(self._file.metadata.num_rows)

    def anchor(self, position: int) -> str | None:
        """Checksum of the file's last 4 KiB, which describe all of it: rows have no place of their own."""
        with self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - ANCHOR_BYTES))
            return f"crc32:{zlib.crc32(file.read()):08x}"

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


_TAPES: dict[str, Callable[[Path, FileSourceSettings], Tape]] = {
    ".csv": CsvTape,
    ".jsonl": JsonLinesTape,
    ".ndjson": JsonLinesTape,
    ".json": JsonLinesTape,
    ".parquet": ParquetTape,
}


class _Row:
    """Which cell of a row is what, and how it reads as a record."""

    def __init__(
        self, path: Path, columns: Sequence[str], is_numeric: Sequence[bool], settings: FileSourceSettings
    ) -> None:
        record = settings.record
        self._path, self._columns, self._record = path, list(columns), record
        self._stream = None if record.stream is None else self._at(record.stream, "stream", "null, one stream per file")
        self._time = None if record.time is None else self._at(record.time, "time", "the column with the time")
        self._texts = [] if record.stream is None or self._stream is None else [(record.stream, self._stream)]
        if record.channel is not None:
            at = self._at(record.channel, "record.channel", "the column with the channel's name")
            self._texts.append((record.channel, at))
            self._channels = [(record.value, self._at(record.value, "record.value", "the column with the value"))]
            return
        named = settings.channels or record.channels
        if named is None:
            used = {self._stream, self._time}
            self._channels = [(columns[i], i) for i, is_one in enumerate(is_numeric) if is_one and i not in used]
        else:
            self._channels = [(name, self._at(name, "channels", "columns of the file")) for name in named]

    def _at(self, column: str, setting: str, better: str) -> int:
        if column not in self._columns:
            raise ConfigurationError(
                self._path,
                f"column {column!r} is not there",
                expected=f"one of {', '.join(self._columns)}",
                hint=f"set {setting} to {better}",
            )
        return self._columns.index(column)

    def value(self, cells: Sequence[Cell] | None, line: bytes = b"") -> bytes:
        """A row as JSON; what is no row stays the line that it was."""
        if cells is None or len(cells) != len(self._columns):
            return line
        record = self._record
        values: dict[str, object] = {name: _number(cells[at]) for name, at in self._channels}
        is_flat = record.channel is not None or record.values is None
        document: dict[str, object] = values if is_flat else {str(record.values): values}
        for name, at in self._texts:
            document[name] = None if cells[at] is None else str(cells[at])
        if record.time is not None and self._time is not None:
            time = cells[self._time]
            document[record.time] = time if record.time_unit == "iso8601" else _number(time)
        return _encode(document)


def _filled(found: Lines) -> tuple[list[bytes], Int64]:
    """Lines that are not blank; a blank one is nothing, also where it ends a file."""
    if all(found.lines):
        return found.lines, found.positions
    keep = [i for i, line in enumerate(found.lines) if line.strip()]
    return [found.lines[i] for i in keep], found.positions[keep]


def _cells(lines: Sequence[bytes]) -> Iterator[list[str] | None]:
    """The cells of each line; None where it is not CSV or not UTF-8."""
    try:
        rows = list(csv.reader(b"\n".join(lines).decode().split("\n"), strict=True)) if lines else []
    except (UnicodeDecodeError, csv.Error):
        rows = []
    # One bad line spoils the lot, and an open quote swallows the next line: then each is read on its own.
    return iter(rows) if len(rows) == len(lines) else map(_cells_of_one, lines)


def _cells_of_one(line: bytes) -> list[str] | None:
    try:
        return next(csv.reader([line.decode()], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return None


def _number(cell: Cell) -> Cell:
    """A cell as a JSON number, null where empty or NaN; other text stays as it is, for the decoder to reject."""
    if isinstance(cell, str):
        cell = _parse(cell)
    if isinstance(cell, float) and not math.isfinite(cell):
        return None if math.isnan(cell) else _INFINITE
    return cell


def _parse(text: str) -> Cell:
    if not text.strip():
        return None
    if "_" in text:  # digit grouping of Python, not of data files
        return text
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _typed_cells(column: Any, time_unit: str) -> list[Cell]:
    """A column of Parquet as JSON knows it: times in the declared unit, decimals as floats."""
    arrow = pyarrow_or_error()
    if arrow.types.is_timestamp(column.type):
        times = column.cast(arrow.timestamp("ns")).to_numpy(zero_copy_only=False)
        if time_unit == "iso8601":
            return [None if text == "NaT" else f"{text}Z" for text in np.datetime_as_string(times).tolist()]
        return [None if ns == NO_TIME else _in_unit(ns, _NS_PER[time_unit]) for ns in times.astype(np.int64).tolist()]
    if arrow.types.is_decimal(column.type):
        column = column.cast(arrow.float64())
    cells: list[Cell] = column.to_pylist()
    return cells


def _in_unit(ns: int, scale: int) -> Cell:
    """Exact where the unit allows an integer, else the nearest float."""
    return ns // scale if ns % scale == 0 else ns / scale
