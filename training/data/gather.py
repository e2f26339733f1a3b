"""Rows of many streams on their way to be series.

    gathered = Gathered(rejects, Room(folder, 512 << 20))
    gathered.add("pump-1", ("flow",), time_ns, values)     # piece by piece, each stream's in the order in which it came
    series = gathered.series()

What the daemon would refuse is left out and counted as it comes. Rows stay in memory while they are few; as soon as
they are more than there is room for, all that came so far goes to disk, and so on: a stream then lies there in as many
extents as times the room was full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detector.errors import InputError
from detector.records import NO_TIME, Float64, Int64, Reason
from training.data.disk import Disk, Extent, Stored
from training.data.series import Series, refusals


@dataclass(slots=True)
class Room:
    """How much history may stay in memory, of all sources together; what does not goes to one file."""

    folder: Path
    """Where the rest goes."""
    left_bytes: int
    disk: Disk | None = None


@dataclass(slots=True)
class _Stream:
    """What came of one stream so far."""

    channels: tuple[str, ...]
    last_ns: int = NO_TIME
    time_ns: list[Int64] = field(default_factory=list)
    values: list[Float64] = field(default_factory=list)
    stored: list[tuple[Extent, Extent]] = field(default_factory=list)
    """Times and values on disk."""

    def joined(self) -> tuple[Int64, Float64]:
        """What is in memory, in one piece; it is forgotten here."""
        time_ns, values = np.concatenate(self.time_ns), np.concatenate(self.values)
        self.time_ns.clear()
        self.values.clear()
        return time_ns, values


class Gathered:
    """Streams by their keys.

    Args:
        rejects: Counts what is left out, by reason.
        room: How much may stay in memory; None puts no limit.
    """

    def __init__(self, rejects: Counter[str], room: Room | None = None) -> None:
        self._rejects, self._room = rejects, room
        self._streams: dict[str, _Stream] = {}
        self._held_bytes = 0

    def add(self, stream: str, channels: Sequence[str], time_ns: Int64, values: Float64) -> None:
        """Take more rows of a stream.

        Args:
            stream: Its key.
            channels: Names of the C channels, the same for all its rows.
            time_ns: (n,) event times as they come, below 0 where one could not be read.
            values: (n, C) raw units, NaN where missing.

        Raises:
            InputError: its channels were others before.
        """
        known = self._streams.setdefault(stream, _Stream(tuple(channels)))
        if known.channels != tuple(channels):
            raise InputError(
                f"stream {stream}", "its files differ in channels", expected=known.channels, got=tuple(channels)
            )
        readable = time_ns >= 0
        self._rejects[Reason.BAD_TIME.label] += int(np.sum(~readable))
        time_ns, values = time_ns[readable], values[readable]
        refused = refusals(time_ns, values, known.last_ns)
        for reason, which in refused.items():
            self._rejects[reason.label] += int(np.sum(which))
        kept = ~np.any(list(refused.values()), axis=0)
        if kept.any():
            known.last_ns = int(time_ns[kept][-1])
            known.time_ns.append(time_ns[kept])
            known.values.append(values[kept])
            self._held_bytes += known.time_ns[-1].nbytes + known.values[-1].nbytes
            if self._room is not None and self._held_bytes > self._room.left_bytes:
                self._store(self._room)

    def _store(self, room: Room) -> None:
        """Put everything on disk that is in memory."""
        room.disk = room.disk or Disk(room.folder)
        for stream in self._streams.values():
            if stream.time_ns:
                time_ns, values = stream.joined()
                stream.stored.append((room.disk.append(time_ns), room.disk.append(values)))
        self._held_bytes = 0

    def series(self) -> list[Series]:
        """All streams of which something was kept, each before the cut; hands them over, and knows of none then."""
        disk = self._room.disk if self._room is not None else None
        if self._room is not None and any(stream.stored for stream in self._streams.values()):
            self._store(self._room)
        elif self._room is not None:
            self._room.left_bytes -= self._held_bytes
        streams, self._streams, self._held_bytes = self._streams, {}, 0
        return [_series(name, of, disk) for name, of in streams.items() if of.time_ns or of.stored]


def _series(name: str, of: _Stream, disk: Disk | None) -> Series:
    if disk is None or not of.stored:
        time_ns, values = of.joined()
        return Series(name, of.channels, time_ns, values, len(time_ns))
    times, cells = zip(*of.stored, strict=True)
    stored = Stored(disk, times, (), np.int64)
    return Series(name, of.channels, stored, Stored(disk, cells, (len(of.channels),), np.float64), len(stored))
