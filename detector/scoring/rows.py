"""Rows in memory through the daemon's engine, many streams side by side.

    scorer = Scorer(bundle_path, threads=2)
    scores = scorer.score(rows)          # again for more rows of the same streams: the memory goes on

The engine makes a wave of at most one sample per stream, so rows are handed to it in turn: the first of every stream,
then the second, and so on. Streams are dealt to engines by a hash, one thread each. As what is computed for a stream
depends on its own samples only, neither the turn nor the number of threads changes a bit of the result.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detector.engine import Engine
from detector.records import (
    NO_TIME,
    Bytes,
    Float32,
    Float64,
    Int64,
    Outcome,
    Reason,
    Samples,
    Scores,
    Shard,
)

SHARD = Shard("score", "score", 0)
_FEED_ROWS = 8192  # rows in one call of the engine; several waves even of 1,024

Progress = Callable[[int], None]
"""Told how many more rows are scored; may be called from several threads."""


@dataclass(slots=True)
class Part:
    """Rows with the same channels, such as a file; n of them."""

    channels: tuple[str, ...]
    cells: Float64
    """(n, C), raw units, NaN where missing."""


@dataclass(slots=True)
class Rows:
    """Parts one after the other, n rows in all."""

    parts: list[Part]
    streams: list[str]
    """The names that `stream` points to."""
    stream: NDArray[np.intp]
    """(n,) whose sample a row is."""
    event_ns: Int64
    """(n,)"""
    reasons: dict[int, Reason] = field(default_factory=dict)
    """Rows refused already, by their place; they are not scored."""

    def __len__(self) -> int:
        return len(self.stream)


@dataclass(slots=True)
class Detail:
    """What is known beside the score of a part's rows, each (n, C); NaN where a row was rejected."""

    expected: Float64
    lower: Float64
    upper: Float64
    blame: Float32


@dataclass(slots=True)
class RowScores:
    """One entry per row; a rejected row has score 0 and a reason."""

    score: Float32
    threshold: Float32
    anomaly: Bytes
    reasons: dict[int, Reason]
    anomalies: int = 0
    """How many opened."""
    details: list[Detail] = field(default_factory=list)
    """One per part; empty unless asked for."""


class Scorer:
    """Engines that remember streams from one call to the next."""

    def __init__(self, new_engine: Callable[[], Engine], *, threads: int = 1, detail: bool = False) -> None:
        self._engines = [new_engine() for _ in range(max(1, threads))]
        self._fed = [0] * len(self._engines)  # positions, which must rise
        self._detail = detail

    def score(self, rows: Rows, progress: Progress = lambda _: None) -> RowScores:
        """Score rows; those of a stream in their order."""
        scores = _blank(rows, self._detail)
        feed = _Feed(rows)
        whose = np.array([zlib.crc32(name.encode()) % len(self._engines) for name in rows.streams], np.intp)
        is_refused = np.zeros(len(rows), np.bool_)
        is_refused[list(rows.reasons)] = True
        groups = [
            order[~is_refused[order] & (whose[rows.stream[order]] == group)]
            for order in [_turns(rows.stream)]
            for group in range(len(self._engines))
        ]
        with ThreadPoolExecutor(len(self._engines), "score") as pool:
            jobs = [pool.submit(self._run, group, feed, turns, scores, progress) for group, turns in enumerate(groups)]
            outcomes = [job.result() for job in jobs]
        for reasons, anomalies in outcomes:
            scores.reasons |= reasons
            scores.anomalies += anomalies
        return scores

    def _run(
        self, group: int, feed: _Feed, turns: NDArray[np.intp], scores: RowScores, progress: Progress
    ) -> tuple[dict[int, Reason], int]:
        """Feed one engine; writes to the rows of its own streams only."""
        reasons: dict[int, Reason] = {}
        anomalies = 0
        for start in range(0, len(turns), _FEED_ROWS):
            some = turns[start : start + _FEED_ROWS]
            first = self._fed[group]
            self._fed[group] = first + len(some)
            outcome = self._engines[group].advance_samples(feed.samples(some, first), Outcome(SHARD, first + len(some)))
            for of_arena in outcome.scores:
                feed.put(of_arena, some, scores)
            reasons |= {int(some[reject.index]): reject.reason for reject in outcome.rejects}
            anomalies += sum(alert.event == "open" for alert in outcome.alerts)
            progress(len(some))
        return reasons, anomalies


class _Feed:
    """Rows as the engine takes them, by their places."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._shapes = list(dict.fromkeys(part.channels for part in rows.parts))
        lengths = [len(part.cells) for part in rows.parts]
        self._part_of = np.repeat(np.arange(len(lengths)), lengths)
        self._first = np.cumsum([0, *lengths])
        shape_of_part = np.array([self._shapes.index(part.channels) for part in rows.parts], np.intp)
        self._shape_of = shape_of_part[self._part_of]
        self._cells = [
            np.concatenate([part.cells for part in rows.parts if part.channels == shape]) for shape in self._shapes
        ]
        self._within = np.zeros(len(rows), np.intp)
        for shape in range(len(self._shapes)):
            of_shape = self._shape_of == shape
            self._within[of_shape] = np.arange(np.count_nonzero(of_shape))

    def samples(self, some: NDArray[np.intp], first_position: int) -> Samples:
        """The rows `some` in that order; their index is their place in it."""
        shape_of = self._shape_of[some]
        count = len(some)
        return Samples(
            shard=SHARD,
            index=np.arange(count, dtype=np.int64),
            streams=[self._rows.streams[stream] for stream in self._rows.stream[some].tolist()],
            event_ns=self._rows.event_ns[some],
            append_ns=np.full(count, NO_TIME, np.int64),
            positions=np.arange(first_position, first_position + count, dtype=np.int64),
            shapes=self._shapes,
            shape_of=shape_of,
            cells=[cells[self._within[some[shape_of == shape]]] for shape, cells in enumerate(self._cells)],
        )

    def put(self, found: Scores, some: NDArray[np.intp], scores: RowScores) -> None:
        """Write what the engine found of `some` to its rows."""
        rows = some[found.index]
        scores.score[rows], scores.threshold[rows] = found.score, found.threshold
        scores.anomaly[rows] = found.anomaly
        if not scores.details:
            return
        part_of = self._part_of[rows]
        for part in np.unique(part_of).tolist():
            here = part_of == part
            self._put_detail(found, here, rows[here] - self._first[part], part, scores.details[part])

    def _put_detail(
        self, found: Scores, here: NDArray[np.bool_], rows: NDArray[np.intp], part: int, detail: Detail
    ) -> None:
        channels = self._rows.parts[part].channels
        for c, channel in enumerate(found.channels):
            if channel not in channels:
                continue
            column = channels.index(channel)
            for name in ("expected", "lower", "upper", "blame"):
                getattr(detail, name)[rows, column] = getattr(found, name)[here, c]


def _turns(stream: NDArray[np.intp]) -> NDArray[np.intp]:
    """Places of rows in the order: the first of each stream, then the second of each, and so on."""
    return np.argsort(ordinals(stream), kind="stable")


def ordinals(stream: NDArray[np.intp]) -> NDArray[np.intp]:
    """(n,) how many rows of the same stream stand before each row."""
    by_stream = np.argsort(stream, kind="stable")
    sorted_streams = stream[by_stream]
    is_first = np.ones(len(stream), np.bool_)
    is_first[1:] = sorted_streams[1:] != sorted_streams[:-1]
    starts = np.flatnonzero(is_first)
    result = np.empty(len(stream), np.intp)
    result[by_stream] = np.arange(len(stream)) - np.repeat(starts, np.diff([*starts, len(stream)]))
    return result


def _blank(rows: Rows, detail: bool) -> RowScores:
    def nothing(part: Part) -> Detail:
        nan = np.full(part.cells.shape, np.nan)
        return Detail(nan, nan.copy(), nan.copy(), nan.astype(np.float32))

    zeros = np.zeros(len(rows), np.float32)
    return RowScores(
        score=zeros,
        threshold=zeros.copy(),
        anomaly=np.zeros(len(rows), np.uint8),
        reasons=dict(rows.reasons),
        details=[nothing(part) for part in rows.parts] if detail else [],
    )
