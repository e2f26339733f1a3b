"""Which streams have their rows in the store instead of an arena, and in which cold segment.

A cold segment holds at most 4096 rows and is never changed: a row in it is live until its stream comes back, is
evicted anew or is forgotten, and dead from then on. This is the index over them, a dictionary and 8 bytes per row; the
rows themselves are somebody else's. Segments have numbers here, and names as soon as they are in the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.records import ArenaRows, Int64

COLD_ROWS = 4096
"""Most rows of a cold segment: what is read for one stream that comes back."""
_ROW_BITS = 12
_ROW_MASK = (1 << _ROW_BITS) - 1
_DEAD = np.iinfo(np.int64).max  # in place of a time; sorts after all of them
_IDLE_ENTRIES = 65_536  # names of dead rows that are borne before the dictionary is swept


class ColdStreams(NamedTuple):
    """What the index wants to know of a cold segment in the store."""

    name: str
    streams: list[str]
    heard_ns: Int64

    @classmethod
    def of(cls, name: str, arenas: Sequence[ArenaRows]) -> ColdStreams:
        """Of its rows."""
        streams = [stream for rows in arenas for stream in rows.streams]
        return cls(name, streams, np.concatenate([heard_ns(rows) for rows in arenas]))


class ColdIndex:
    """The cold streams of one shard."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}  # of live rows, and of some that were forgotten
        self._heard_ns: dict[int, Int64] = {}  # per segment and row, or _DEAD
        self._oldest_ns: dict[int, int] = {}  # a lower bound of the same
        self._live: dict[int, int] = {}
        self._count = self._next = 0
        self.names: dict[int, str] = {}
        """Of the segments that are in the store."""

    def __len__(self) -> int:
        """How many streams are cold."""
        return self._count

    def __contains__(self, stream: str) -> bool:
        return bool(self._count) and self._is_live(self._codes.get(stream))

    @property
    def live(self) -> Mapping[int, int]:
        """Live rows of each segment."""
        return self._live

    @property
    def oldest_ns(self) -> int:
        """No cold stream was last heard before this event time."""
        return min((self._oldest_ns[number] for number, live in self._live.items() if live), default=_DEAD)

    def add(self, streams: Sequence[str], heard_ns: Int64, is_live: NDArray[np.bool_] | None = None) -> int:
        """Note the rows of a new segment; rows that the same streams had before are dead. Returns the number."""
        number, self._next = self._next, self._next + 1
        heard_ns = np.array(heard_ns, np.int64)
        if is_live is not None:
            heard_ns[~is_live] = _DEAD
        names = [streams[row] for row in np.flatnonzero(heard_ns != _DEAD).tolist()]
        self.remove(names)
        self._heard_ns[number], self._live[number] = heard_ns, len(names)
        self._oldest_ns[number] = int(heard_ns.min(initial=_DEAD))
        first = number << _ROW_BITS
        self._codes.update(zip(names, (first + np.flatnonzero(heard_ns != _DEAD)).tolist(), strict=True))
        self._count += len(names)
        return number

    def remove(self, streams: Iterable[str]) -> None:
        """Those of the streams that are cold are so no longer."""
        for stream in streams:
            code = self._codes.pop(stream, None)
            if code is not None and self._is_live(code):
                number = code >> _ROW_BITS
                self._heard_ns[number][code & _ROW_MASK] = _DEAD
                self._live[number] -= 1
                self._count -= 1

    def places(self, streams: Iterable[str]) -> dict[int, list[int]]:
        """Where those of the streams that are cold have their rows: segment > rows."""
        found: dict[int, list[int]] = {}
        for stream in dict.fromkeys(streams) if self._count else ():
            code = self._codes.get(stream)
            if code is not None and self._is_live(code):
                found.setdefault(code >> _ROW_BITS, []).append(code & _ROW_MASK)
        return found

    def forget(self, before_ns: int) -> int:
        """Streams last heard before an event time are cold no longer; says how many."""
        forgotten = 0
        for number, oldest_ns in list(self._oldest_ns.items()):
            if oldest_ns < before_ns:
                heard_ns = self._heard_ns[number]
                old = heard_ns < before_ns
                heard_ns[old] = _DEAD
                self._oldest_ns[number] = int(heard_ns.min(initial=_DEAD))
                self._live[number] -= int(np.count_nonzero(old))
                forgotten += int(np.count_nonzero(old))
        self._count -= forgotten
        if len(self._codes) > 2 * self._count + _IDLE_ENTRIES:
            self._codes = {stream: code for stream, code in self._codes.items() if self._is_live(code)}
        return forgotten

    def live_rows(self, number: int) -> NDArray[np.intp]:
        """Which rows of a segment are live now."""
        return np.flatnonzero(self._heard_ns[number] != _DEAD)

    def move(self, streams: Sequence[str], places: Sequence[tuple[int, int]]) -> int:
        """Rows of several segments, each given by segment and row, now stand in a new one; returns its number.

        Those that died meanwhile are dead there, too.
        """
        heard_ns = np.array([self._heard_ns[number][row] for number, row in places], np.int64)
        codes = [number << _ROW_BITS | row for number, row in places]
        is_here = np.array([self._codes.get(stream) == code for stream, code in zip(streams, codes, strict=True)])
        return self.add(streams, heard_ns, is_here & (heard_ns != _DEAD))

    def drop(self, numbers: Iterable[int]) -> None:
        """Segments without a live row are no more."""
        for number in numbers:
            for part in (self._heard_ns, self._oldest_ns, self._live, self.names):
                part.pop(number, None)

    def _is_live(self, code: int | None) -> bool:
        if code is None:
            return False
        heard_ns = self._heard_ns.get(code >> _ROW_BITS)
        return heard_ns is not None and bool(heard_ns[code & _ROW_MASK] != _DEAD)


def heard_ns(rows: ArenaRows) -> Int64:
    """When each stream was last heard, in event time; of a sample not yet whole, too, as `Arena.heard_ns`."""
    last_ns = rows.arrays["last_ns"].astype(np.int64, copy=False)
    return np.maximum(last_ns, rows.arrays["join_ns"].astype(np.int64)) if "join_ns" in rows.arrays else last_ns
