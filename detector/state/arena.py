"""An arena: all memory of the streams that share a detector and a channel set, as parallel arrays, one row a stream.

    state   (capacity, S) float32     the model's memory, opaque
    decide  (capacity,) structured    what `decide` remembers
    band    (capacity, 2, C) float64  the forecast band that an open anomaly started from
    last_ns (capacity,) int64         event time of the last accepted sample, or NO_TIME

for narrow records also what has arrived of the last sample, which is closed once all has:

    join_ns      (capacity,) int64     its event time, or NO_TIME before the first
    join_values  (capacity, C) float64 NaN where missing or not arrived
    join_arrived (capacity, C) uint8   1 where a value or a null has arrived; everywhere before the first sample

and beside the rows, in memory only:

    dirty   (capacity,) bool          changed since the last snapshot
    touched (capacity,) int64         the poll in which the stream was last heard: who leaves first when it gets crowded
    held    (capacity,) bool          there is a stream in the slot
    rules   (capacity,) int32         which of the operator's rules its stream falls under; engine/freezing.py's number
    frozen  (capacity,) bool          its last sample taught it nothing, by one of those rules

A new row is a copy of the bundle's initial row, laid out when its chunk is, or when the stream before it left. Growing
goes through `realloc`, which on Linux moves pages rather than bytes: no second copy exists while an arena grows.
That is why no view of these arrays may outlive the call that made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detector.errors import CorruptCheckpointError
from detector.records import NO_TIME, ArenaRows, Bytes, Float32, Float64, Int64

Structured: TypeAlias = NDArray[Any]
"""Rows of `decide`'s columns, shape (n,)."""

NOT_ASKED = -1
"""In `rules`: nobody has looked yet."""

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
        *,
        is_narrow: bool = False,
    ) -> None:
        self.detector, self.bundle_sha256, self.channels = detector, bundle_sha256, channels
        count = len(channels)
        self.state: Float32 = np.empty((0, len(initial_state)), np.float32)
        self.decide: Structured = np.empty(0, initial_decide.dtype)
        self.band: Float64 = np.empty((0, 2, count), np.float64)
        self.last_ns: Int64 = np.empty(0, np.int64)
        self.join_ns: Int64 = np.empty(0, np.int64)
        self.join_values: Float64 = np.empty((0, count), np.float64)
        self.join_arrived: Bytes = np.empty((0, count), np.uint8)
        self.dirty: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.touched: Int64 = np.empty(0, np.int64)
        self.held: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.rules: NDArray[np.int32] = np.empty(0, np.int32)
        self.frozen: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.open: set[int] = set()
        """Slots with an open anomaly."""
        self.streams: list[str] = []
        """The stream of each slot; what stands in a free one means nothing."""
        self.labels: list[dict[str, str]] = []
        """The labels that each stream had at first sight."""
        self.is_narrow = is_narrow
        """Whether it has the columns of the join."""
        self._blank = _blank_row(_float32(initial_state), initial_decide[:1].copy())
        self._free: list[int] = []
        self._gone: dict[str, None] = {}  # streams that left since the last snapshot, in order
        self._pending: NDArray[np.intp] = np.empty(0, np.intp)
        self._pending_gone: dict[str, None] = {}
        self._name_bytes = 0

    def __len__(self) -> int:
        """How many streams have a row."""
        return len(self.streams) - len(self._free)

    # Streams come and go ----------------------------------------------------------------------------------------------

    def create(self, stream: str, labels: dict[str, str]) -> int:
        """Add a stream with the initial row and return its slot."""
        self._name_bytes += len(stream)
        if self._free:
            slot = self._free.pop()
            self.streams[slot], self.labels[slot] = stream, labels
        else:
            slot = len(self.streams)
            self._reserve(slot + 1)
            self.streams.append(stream)
            self.labels.append(labels)
        self.held[slot] = True
        return slot

    def extend(self, streams: Sequence[str], labels: Sequence[dict[str, str]]) -> Int64:
        """Add many streams at once and return their slots, whose rows the caller is about to write."""
        reused = [self.create(*each) for each in zip(streams[: len(self._free)], labels, strict=False)]
        first, count = len(self.streams), len(streams) - len(reused)
        self._reserve(first + count, written=count)
        self.streams += streams[len(reused) :]
        self.labels += labels[len(reused) :]
        self._name_bytes += sum(map(len, streams[len(reused) :]))
        self.held[first : first + count] = True
        return np.concatenate([np.array(reused, np.int64), np.arange(first, first + count)])

    def free(self, slots: NDArray[np.intp], *, is_told: bool = False) -> None:
        """Let streams go: their rows are initial ones again.

        The next snapshot says that they are gone, unless a checkpoint said so before.
        """
        for name, column in self._columns().items():
            column[slots] = self._blank[name]
        self.held[slots] = self.dirty[slots] = self.frozen[slots] = False
        self.rules[slots] = NOT_ASKED
        at = slots.tolist()
        self.open.difference_update(at)
        for slot in at:
            if not is_told:
                self._gone[self.streams[slot]] = None
            self._name_bytes -= len(self.streams[slot])
            self.streams[slot], self.labels[slot] = "", {}
        self._free += at

    def heard_ns(self) -> Int64:
        """When the stream of each slot was last heard, in event time; of a sample not yet whole, too."""
        heard = self.last_ns[: len(self.streams)]
        return np.maximum(heard, self.join_ns[: len(self.streams)]) if self.is_narrow else heard

    # Rows to and from checkpoints -------------------------------------------------------------------------------------

    def write(self, slots: Int64, rows: ArenaRows) -> None:
        """Put saved rows into `slots`; they are clean, for they came from a checkpoint."""
        columns, arrays = self._columns(), self._with_join(rows.arrays)
        if arrays.keys() != columns.keys():
            raise CorruptCheckpointError(
                f"detector {self.detector}", "columns", expected=sorted(columns), got=sorted(arrays)
            )
        is_block = len(slots) > 0 and bool((np.diff(slots) == 1).all())  # a restore of a million rows is one
        at = slice(int(slots[0]), int(slots[-1]) + 1) if is_block else slots
        for name, have in columns.items():
            saved = arrays[name]
            if saved.dtype != have.dtype or saved.shape[1:] != have.shape[1:] or len(saved) != len(slots):
                raise CorruptCheckpointError(
                    f"detector {self.detector}",
                    f"rows of `{name}`",
                    expected=f"{len(slots)} x {have.dtype}{list(have.shape[1:])}",
                    got=f"{len(saved)} x {saved.dtype}{list(saved.shape[1:])}",
                )
            put_rows(have, at, saved)
        if isinstance(at, slice):
            self.labels[at] = rows.labels
        else:
            for slot, labels in zip(slots.tolist(), rows.labels, strict=True):
                self.labels[slot] = labels
        self.dirty[slots] = False

    def copy(self, slots: NDArray[np.intp]) -> ArenaRows:
        """The rows of `slots`, as a checkpoint keeps them."""
        at = slots.tolist()
        return ArenaRows(
            detector=self.detector,
            bundle_sha256=self.bundle_sha256,
            channels=self.channels,
            streams=[self.streams[slot] for slot in at],
            labels=[self.labels[slot] for slot in at],
            arrays={name: column.take(slots, axis=0) for name, column in self._columns().items()},
        )

    def _with_join(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Saved columns as ours, also where the records were wide then and are narrow now, or the other way round."""
        if self.is_narrow and "join_ns" not in arrays and "last_ns" in arrays:
            shape = len(arrays["last_ns"]), len(self.channels)
            closed = {"join_ns": arrays["last_ns"], "join_values": np.full(shape, np.nan)}
            return {**arrays, **closed, "join_arrived": np.ones(shape, np.uint8)}
        return {name: array for name, array in arrays.items() if self.is_narrow or not name.startswith("join_")}

    def snapshot(self, *, full: bool) -> ArenaRows:
        """Copy what changed since the last snapshot that was kept, or everything."""
        self.dropped()
        used = len(self.streams)
        dirty = np.flatnonzero(self.dirty[:used])
        self.dirty[dirty] = False
        self._pending, self._pending_gone, self._gone = dirty, self._gone, {}
        rows = self.copy(np.flatnonzero(self.held[:used]) if full else dirty)
        rows.gone = [] if full else list(self._pending_gone)
        return rows

    def kept(self) -> None:
        """The last snapshot is durable."""
        self._pending, self._pending_gone = self._pending[:0], {}

    def dropped(self) -> None:
        """The last snapshot was not kept: what it took is dirty again, and who was gone is to be told again.

        A slot may have another stream by now, or none: that one's row is written once more, and no row is written.
        """
        self.dirty[self._pending] = self.held[self._pending]
        self._gone = self._pending_gone | self._gone
        self.kept()

    @property
    def saved_bytes(self) -> int:
        """About how many bytes all rows take in a segment."""
        return len(self) * self._row_bytes + self._name_bytes

    @property
    def changed_bytes(self) -> int:
        """About how many bytes the next snapshot takes."""
        used = len(self.streams)
        changed = int(np.count_nonzero(self.dirty[:used])) + len(self._pending)
        return changed * (self._row_bytes + self._name_bytes // max(len(self), 1))

    @property
    def _row_bytes(self) -> int:
        return sum(column.itemsize * int(np.prod(column.shape[1:])) for column in self._columns().values())

    def _columns(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint keeps."""
        columns = {"state": self.state, "decide": self.decide, "band": self.band, "last_ns": self.last_ns}
        if self.is_narrow:
            columns |= {"join_ns": self.join_ns, "join_values": self.join_values, "join_arrived": self.join_arrived}
        return columns

    def _reserve(self, rows: int, written: int = 0) -> None:
        """Make room for so many rows: initial ones, but for the last `written`, which the caller writes."""
        old = len(self.state)
        if rows > old:
            step = max(old // _GROWTH, _LEAST_BYTES // max(self._blank["state"].nbytes, 1), 1)
            new = max(rows, old + step)
            beside = (self.dirty, self.touched, self.held, self.rules, self.frozen)
            for array in (*self._columns().values(), *beside):
                # refcheck=False: a debugger or profiler that looks at the frame must not make growing fail.
                array.resize((new, *array.shape[1:]), refcheck=False)
            for name, column in self._columns().items():
                column[rows if written else old :] = self._blank[name]
            self.dirty[old:] = self.held[old:] = self.frozen[old:] = False
            self.touched[old:] = 0
            self.rules[old:] = NOT_ASKED


def put_rows(column: NDArray[Any], slots: NDArray[np.intp] | slice, rows: NDArray[Any]) -> None:
    """Write whole rows to `slots`; structured ones as bytes: NumPy assigns them field by field, twenty times slower."""
    if column.dtype.names:
        as_bytes = np.dtype((np.void, column.dtype.itemsize))
        column, rows = column.view(as_bytes), rows.view(as_bytes)
    column[slots] = rows


def _blank_row(initial_state: Float32, initial_decide: Structured) -> dict[str, NDArray[Any]]:
    """What each column holds of a stream that was never heard."""
    blank: dict[str, Any] = {"band": 0.0, "last_ns": NO_TIME, "join_ns": NO_TIME, "join_values": np.nan}
    blank |= {"join_arrived": 1, "state": initial_state, "decide": initial_decide}
    return {name: np.asarray(value) for name, value in blank.items()}


def _float32(row: Float32) -> Float32:
    if row.dtype != np.float32:
        raise TypeError(f"initial row: expected float32, got {row.dtype}")
    return row.copy()
