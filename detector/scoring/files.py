"""`tidewarden score`: files in, one row of output per row of input.

Files are read in batches that fit in memory, all streams of a batch scored side by side, and written in input order.
A file that cannot be used is left out as a whole and reported; the others do not notice. docs/score.md is the
interface that users and other programs rely on.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.engine import Engine
from detector.errors import ConfigurationError, InputError
from detector.records import Float32, Float64, Int64, Reason
from detector.scoring.narrow import LongRows, join_rows
from detector.scoring.rows import Part, Rows, RowScores, Scorer, ordinals
from detector.scoring.times import TimeUnit, event_times, time_column
from detector.tables import Column, Table, TableWriter, numeric_columns, read_columns, read_table

_BATCH_CELLS = 20_000_000  # numbers held at once, unless a single file has more: 160 MB, and four times that in detail
_WRITE_ROWS = 50_000  # rows turned into text at once
_DETAILS = ("expected", "lower", "upper", "blame")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what; see docs/score.md."""

    time: str | None = None
    """None: found by its name."""
    time_unit: TimeUnit | None = None
    stream: str | None = None
    """None: each file is one stream."""
    channels: tuple[str, ...] | None = None
    """None: every numeric column left, or of a long table every channel that it names."""
    channel: str | None = None
    """Of a long table, a row per channel: the column with the channel's name."""
    value: str = "value"
    """Of a long table: the column with the number."""
    period_s: float = 1.0
    """Between rows where there is no time column."""


@dataclass(slots=True)
class Summary:
    """What came of it."""

    files: int = 0
    rows: int = 0
    streams: int = 0
    anomalies: int = 0
    rejects: Counter[Reason] = field(default_factory=Counter)
    errors: list[InputError] = field(default_factory=list)
    """One per file that was left out."""


class Watcher:
    """Is told how far the work is; all of it may be ignored. May be called from several threads."""

    def will_read(self, count: int) -> None:
        """So many bytes will be read in all."""

    def have_read(self, count: int) -> None:
        """So many more bytes are read."""

    def will_score(self, count: int) -> None:
        """So many more rows will be scored."""

    def have_scored(self, count: int) -> None:
        """So many more rows are scored."""


@dataclass(slots=True)
class _File:
    """One file, read."""

    path: str
    times: Column
    """What the output repeats."""
    part: Part
    stream: NDArray[np.intp]
    event_ns: Int64
    reasons: dict[int, Reason]
    refused: Counter[Reason] = field(default_factory=Counter)
    """Of a long table: rows that went into no sample, hence into no row of the output."""

    def __len__(self) -> int:
        return len(self.stream)


def score_files(
    new_engine: Callable[[], Engine],
    inputs: Sequence[str],
    output: Path,
    *,
    columns: Columns = Columns(),
    detail: bool = False,
    threads: int = 1,
    watcher: Watcher | None = None,
    named: Sequence[str] = (),
) -> Summary:
    """Score files into one output.

    Args:
        new_engine: Makes an engine with nothing in it; one is made per thread.
        inputs: Paths or globs, CSV or Parquet.
        output: Where to; CSV or Parquet by its ending. Written only when a file could be read.
        columns: Which column is what.
        detail: Whether to add forecasts, blame and the reason of a rejected row.
        threads: How many engines work side by side; the output is the same for any number.
        watcher: Told how far the work is.
        named: Channels of which the caller says something, so that there must be such.

    Raises:
        ConfigurationError: The output's ending is unknown, Parquet is wanted without pyarrow, detail of long tables
            whose channels are not named, or no input has one of the channels in `named`.
    """
    if detail and columns.channel is not None and columns.channels is None:
        raise ConfigurationError("--detail", "needs --channels with --channel", hint="its columns are named after them")
    summary, watcher = Summary(), watcher or Watcher()
    with TableWriter(output) as writer:
        paths = _expand(inputs, output, summary)
        watcher.will_read(sum(Path(path).stat().st_size for path in paths))
        if named and paths and (columns.channel is None or columns.channels is not None):
            _check_named(named, _all_channels(paths, columns))
        names = _all_channels(paths, columns) if detail else []
        reader = _Reader(columns)
        scorer = Scorer(new_engine, threads=threads, detail=detail)
        for batch in _batches(paths, reader, summary, watcher):
            watcher.will_score(sum(map(len, batch)))
            scores = scorer.score(_rows(batch, reader.streams), watcher.have_scored)
            for block in _output(batch, scores, reader.streams, names if detail else None):
                writer.write(block)
            summary.rejects.update(scores.reasons.values())
            summary.anomalies += scores.anomalies
        summary.streams = len(reader.streams)
    return summary


def _expand(inputs: Sequence[str], output: Path, summary: Summary) -> list[str]:
    """Paths and globs as paths, each once, in the order given; those of a glob by name, less an earlier output."""
    paths: dict[str, None] = {}
    for pattern in inputs:
        found = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        found = [path for path in found if not Path(path).is_dir() and Path(path).absolute() != output.absolute()]
        paths |= dict.fromkeys(found)
        if not found:
            summary.errors.append(InputError(pattern, "no such file"))
    return list(paths)


def _check_named(named: Sequence[str], known: Sequence[str]) -> None:
    """Refuse what is said of nobody, before hours of work go into it."""
    if unknown := [channel for channel in named if channel not in known]:
        raise ConfigurationError("--role", "no such channel", expected=f"one of {', '.join(known)}", got=unknown[0])


def _all_channels(paths: list[str], columns: Columns) -> list[str]:
    """The channels of all files, which may differ; for these the detailed output has columns."""
    if columns.channels is not None:
        return list(columns.channels)
    names: dict[str, None] = {}
    for path in paths:
        try:
            taken = (time_column(read_columns(Path(path)), columns.time), columns.stream)
            names |= dict.fromkeys(name for name in numeric_columns(Path(path)) if name not in taken)
        except (InputError, ConfigurationError):
            continue  # reported when the file is read
    return list(names)


def _batches(paths: list[str], reader: _Reader, summary: Summary, watcher: Watcher) -> Iterator[list[_File]]:
    """Read files, as many at a time as fit."""
    batch: list[_File] = []
    cells = 0
    for path in paths:
        try:
            file = reader.read(path, watcher.have_read)
        except InputError as error:
            summary.errors.append(error)
            continue
        summary.rejects.update(file.refused)
        summary.files += 1
        summary.rows += len(file)
        batch.append(file)
        cells += file.part.cells.size
        if cells >= _BATCH_CELLS:
            yield batch
            batch, cells = [], 0
    if batch:
        yield batch


class _Reader:
    """Reads files into parts and knows the streams seen so far."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._numbers: dict[str, int] = {}
        self._seen: Counter[int] = Counter()  # rows per stream, where they are counted

    @property
    def streams(self) -> list[str]:
        """Names by number."""
        return list(self._numbers)

    def read(self, path: str, on_bytes: Callable[[int], None]) -> _File:
        """Read one file. Raises InputError, and has then learnt nothing from it."""
        columns = self._columns
        time = time_column(read_columns(Path(path)), columns.time)
        if columns.channel is not None:
            return self._read_long(path, time, columns.channel, on_bytes)
        texts = [name for name in (time, columns.stream) if name is not None]
        table = read_table(Path(path), texts=texts, numbers=columns.channels, progress=on_bytes)
        if not table.numbers:
            raise InputError(path, "has no numeric column", expected="at least one channel")
        stated_ns = None if time is None else event_times(table, time, columns.time_unit, option="--time-unit")
        stream = self._stream(table)
        part = Part(tuple(table.numbers), np.stack(list(table.numbers.values()), axis=1))
        times: Column
        if time is None or stated_ns is None:
            event_ns, times = self._counted(stream)
        else:
            event_ns, times = stated_ns, table.texts[time]
        return _File(path, times, part, stream, event_ns, _refused(table, columns.stream, event_ns))

    def _read_long(self, path: str, time: str | None, channel: str, on_bytes: Callable[[int], None]) -> _File:
        """Read a file with a row per channel, and join its rows to samples."""
        columns = self._columns
        if time is None:
            raise InputError(path, "has no time column", expected="one: rows of one time make a sample", hint="--time")
        texts = [name for name in (time, channel, columns.stream) if name is not None]
        table = read_table(Path(path), texts=texts, numbers=[columns.value], progress=on_bytes)
        event_ns, stream = event_times(table, time, columns.time_unit, option="--time-unit"), self._stream(table)
        refused = _refused(table, columns.stream, event_ns)
        rows = LongRows(stream, event_ns, table.texts[channel], table.numbers[columns.value], refused)
        joined = join_rows(rows, columns.channels)
        times = [table.texts[time][row] for row in joined.row.tolist()]
        part = Part(joined.channels, joined.values)
        return _File(path, times, part, joined.stream, joined.event_ns, {}, joined.refused)

    def _stream(self, table: Table) -> NDArray[np.intp]:
        if self._columns.stream is None:
            number = self._numbers.setdefault(str(table.path), len(self._numbers))
            return np.full(table.rows, number, np.intp)
        numbers = self._numbers
        names = table.texts[self._columns.stream]
        return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.intp)

    def _counted(self, stream: NDArray[np.intp]) -> tuple[Int64, Float64]:
        """Times where the file has none: the row's number within its stream, times the period."""
        seen = np.array([self._seen[number] for number in range(len(self._numbers))], np.int64)
        seconds: Float64 = (ordinals(stream) + seen[stream]) * np.float64(self._columns.period_s)
        self._seen.update(stream.tolist())
        return np.rint(seconds * 1e9).astype(np.int64), seconds


def _refused(table: Table, stream: str | None, event_ns: Int64) -> dict[int, Reason]:
    """Rows that the daemon could not decode."""
    refused = dict.fromkeys(np.flatnonzero(event_ns < 0).tolist(), Reason.BAD_TIME)
    if stream is not None:
        refused |= {row: Reason.MISSING_FIELD for row, name in enumerate(table.texts[stream]) if not name}
    return refused


def _rows(batch: list[_File], streams: list[str]) -> Rows:
    starts = np.cumsum([0, *(len(file) for file in batch)]).tolist()
    return Rows(
        parts=[file.part for file in batch],
        streams=streams,
        stream=np.concatenate([file.stream for file in batch]),
        event_ns=np.concatenate([file.event_ns for file in batch]),
        reasons={start + row: why for start, f in zip(starts, batch, strict=False) for row, why in f.reasons.items()},
    )


def _output(
    batch: list[_File], scores: RowScores, streams: list[str], names: list[str] | None
) -> Iterator[Mapping[str, Column]]:
    """Blocks of the output, file by file, in the order of rows."""
    start = 0
    for part, file in enumerate(batch):
        for first in range(0, len(file), _WRITE_ROWS):
            rows = slice(first, min(first + _WRITE_ROWS, len(file)))
            here = slice(start + rows.start, start + rows.stop)
            block: dict[str, Column] = {
                "file": [file.path] * (rows.stop - rows.start),
                "stream": [streams[stream] for stream in file.stream[rows].tolist()],
                "time": _texts(file.times[rows]),
                "score": scores.score[here],
                "anomaly": scores.anomaly[here],
            }
            if names is not None:
                block |= _detail(file, scores, part, rows, names)
                block["reason"] = [
                    scores.reasons[row].label if row in scores.reasons else "" for row in range(here.start, here.stop)
                ]
            yield block
        start += len(file)


def _texts(times: Column) -> Sequence[str]:
    return [repr(time) for time in times.tolist()] if isinstance(times, np.ndarray) else times


def _detail(file: _File, scores: RowScores, part: int, rows: slice, names: list[str]) -> dict[str, Column]:
    """Columns expected_C, lower_C, upper_C, blame_C of the channels `names`; empty where the file has no such."""
    block: dict[str, Column] = {}
    for name in names:
        for kind in _DETAILS:
            cells: Float64 | Float32 = getattr(scores.details[part], kind)[rows]
            nothing = np.full(len(cells), np.nan, cells.dtype)
            has = name in file.part.channels
            block[f"{kind}_{name}"] = cells[:, file.part.channels.index(name)] if has else nothing
    return block
