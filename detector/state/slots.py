"""Where each stream's row is: stream -> (arena, slot), packed into one integer so that a lookup is one dictionary hit.

Given the streams of a poll it gives back an array of codes, -1 for a stream that has no row yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat

import numpy as np

from detector.records import Int64

_SLOT_BITS = 32
_SLOT_MASK = (1 << _SLOT_BITS) - 1
_UNKNOWN = -1


class Slots:
    """The streams of one shard and the places of their rows."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._codes)

    def __contains__(self, stream: str) -> bool:
        return stream in self._codes

    def add(self, stream: str, arena: int, slot: int) -> int:
        """Give `stream` a place and return its code."""
        code = arena << _SLOT_BITS | slot
        self._codes[stream] = code
        return code

    def add_all(self, streams: Sequence[str], arena: int, slots: Int64) -> None:
        """Give many streams their places at once."""
        self._codes.update(zip(streams, (arena << _SLOT_BITS | slots).tolist(), strict=True))

    def remove(self, streams: Iterable[str]) -> None:
        """Take their places from streams that have one."""
        for stream in streams:
            del self._codes[stream]

    def code(self, stream: str) -> int:
        """The code of one stream, -1 where it has none."""
        return self._codes.get(stream, _UNKNOWN)

    def codes(self, streams: Sequence[str]) -> Int64:
        """The code of each stream, shape (n,), -1 where it has none."""
        return np.fromiter(map(self._codes.get, streams, repeat(_UNKNOWN)), np.int64, len(streams))


def arena_of(codes: Int64) -> Int64:
    """Which arena each code points into."""
    return codes >> _SLOT_BITS


def slot_of(codes: Int64) -> Int64:
    """Which row of its arena each code points to."""
    return codes & _SLOT_MASK
