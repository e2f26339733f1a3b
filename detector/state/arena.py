"""An arena: all memory of the streams that share a detector and a channel set, as parallel arrays, one row a stream.

    state   (capacity, S) float32     the model's memory, opaque
    decide  (capacity,) structured    what `decide` remembers
    band    (capacity, 2, C) float64  the forecast band that an open anomaly started from
    last_ns (capacity,) int64         event time of the last accepted sample, or NO_TIME
    samples (capacity,) int64         accepted samples so far
    dirty   (capacity,) bool          touched since the last snapshot

Rows are never freed, and a new one is a copy of the bundle's initial row, laid out when its chunk is. Growing
goes through `realloc`, which on Linux moves pages rather than bytes: no second copy exists while an arena grows.
That is why no view of these arrays may outlive the call that made it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detector.errors import CorruptCheckpointError
from detector.records import NO_TIME, ArenaRows, Float32, Float64, Int64

Structured: TypeAlias = NDArray[Any]
"""Rows of `decide`'s columns, shape (n,)."""

_GROWTH = 16  # grows by a sixteenth, so that at most 6 % of an arena lies idle,
_LEAST_BYTES = 65_536  # but by at least so many bytes of state


class Arena:
    """Rows of one (detector, channel set)."""

    def __init__(
        self,
        detector: str,
        bundle_sha256: str,
        channels: tuple[str, ...],
        initial_state: Float32,
        initial_decide: Structured,
    ) -> None:
        self.detector, self.bundle_sha256, self.channels = detector, bundle_sha256, channels
        self._initial_state, self._initial_decide = _float32(initial_state), initial_decide[:1].copy()
        self.state: Float32 = np.empty((0, len(initial_state)), np.float32)
        self.decide: Structured = np.empty(0, initial_decide.dtype)
        self.band: Float64 = np.empty((0, 2, len(channels)), np.float64)
        self.last_ns: Int64 = np.empty(0, np.int64)
        self.samples: Int64 = np.empty(0, np.int64)
        self.dirty: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.open: set[int] = set()
        """Slots with an open anomaly."""
        self.streams: list[str] = []
        """The stream of each row."""
        self.labels: list[dict[str, str]] = []
        """The labels that each stream had at first sight."""
        self._pending: NDArray[np.intp] = np.empty(0, np.intp)

    def __len__(self) -> int:
        return len(self.streams)

    def create(self, stream: str, labels: dict[str, str]) -> int:
        """Add a stream with the initial row and return its slot."""
        slot = len(self.streams)
        self._reserve(slot + 1)
        self.streams.append(stream)
        self.labels.append(labels)
        return slot

    def write(self, slots: Int64, rows: ArenaRows) -> None:
        """Put saved rows into `slots`; they are clean, for they came from a checkpoint."""
        columns = self._columns()
        if rows.arrays.keys() != columns.keys():
            raise CorruptCheckpointError(
                f"detector {self.detector}", "columns", expected=sorted(columns), got=sorted(rows.arrays)
            )
        for name, have in columns.items():
            saved = rows.arrays[name]
            if saved.dtype != have.dtype or saved.shape[1:] != have.shape[1:] or len(saved) != len(slots):
                raise CorruptCheckpointError(
                    f"detector {self.detector}",
                    f"rows of `{name}`",
                    expected=f"{len(slots)} x {have.dtype}{list(have.shape[1:])}",
                    got=f"{len(saved)} x {saved.dtype}{list(saved.shape[1:])}",
                )
            put_rows(have, slots, saved)
        for slot, labels in zip(slots.tolist(), rows.labels, strict=True):
            self.labels[slot] = labels
        self.dirty[slots] = False

    def snapshot(self, *, full: bool) -> ArenaRows:
        """Copy what changed since the last snapshot that was kept, or everything."""
        self.dropped()
        dirty = np.flatnonzero(self.dirty[: len(self)])
        self.dirty[dirty] = False
        self._pending = dirty
        return self._copy(np.arange(len(self)) if full else dirty)

    def kept(self) -> None:
        """The last snapshot is durable."""
        self._pending = self._pending[:0]

    def dropped(self) -> None:
        """The last snapshot was not kept: what it took is dirty again."""
        self.dirty[self._pending] = True
        self.kept()

    def _columns(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint keeps."""
        return {
            "state": self.state,
            "decide": self.decide,
            "band": self.band,
            "last_ns": self.last_ns,
            "samples": self.samples,
        }

    def _copy(self, slots: NDArray[np.intp]) -> ArenaRows:
        at = slots.tolist()
        return ArenaRows(
            detector=self.detector,
            bundle_sha256=self.bundle_sha256,
            channels=self.channels,
            streams=[self.streams[slot] for slot in at],
            labels=[self.labels[slot] for slot in at],
            arrays={name: column.take(slots, axis=0) for name, column in self._columns().items()},
        )

    def _reserve(self, rows: int) -> None:
        old = len(self.state)
        if rows <= old:
            return
        step = max(old // _GROWTH, _LEAST_BYTES // max(self._initial_state.nbytes, 1), 1)
        new = max(rows, old + step)
        for array in (*self._columns().values(), self.dirty):
            # refcheck=False: a debugger or profiler that looks at the frame must not make growing fail.
            array.resize((new, *array.shape[1:]), refcheck=False)
        self.state[old:] = self._initial_state
        self.decide[old:] = self._initial_decide
        self.band[old:] = 0.0
        self.last_ns[old:] = NO_TIME
        self.samples[old:] = 0
        self.dirty[old:] = False


def put_rows(column: NDArray[Any], slots: NDArray[np.intp], rows: NDArray[Any]) -> None:
    """Write whole rows to `slots`; structured ones as bytes: NumPy assigns them field by field, twenty times slower."""
    if column.dtype.names:
        as_bytes = np.dtype((np.void, column.dtype.itemsize))
        column, rows = column.view(as_bytes), rows.view(as_bytes)
    column[slots] = rows


def _float32(row: Float32) -> Float32:
    if row.dtype != np.float32:
        raise TypeError(f"initial row: expected float32, got {row.dtype}")
    return row.copy()
