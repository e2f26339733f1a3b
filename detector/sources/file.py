"""Samples from files: each a shard, replayed to its end or followed as it grows.

Given `FileSourceSettings` and a clock, it hands over `Records`. The disk is read in a thread. A replay goes as fast as
possible, or at a multiple of real speed by the records' own event times. A file that is rotated while nobody watches
is not noticed here, but by the checkpoint's anchor.
"""

from __future__ import annotations

import asyncio
import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detector.clock import Clock
from detector.errors import SourceError
from detector.records import NO_TIME, Header, Int64, Records, Shard
from detector.settings import FileSourceSettings
from detector.sources.base import Bounds, Revoked
from detector.sources.tables import Chunk, Tape, open_tape
from detector.stages.decode import Decoder

_POLL_RECORDS = 4000  # over all files of one poll


@dataclass(slots=True)
class _Reel:
    """A file that is being played."""

    shard: Shard
    tape: Tape
    is_playing: bool = False
    held: Records | None = None
    """Records that were read, but are not due yet at the speed asked for."""


class FileSource:
    """The `Source` over files."""

    def __init__(self, name: str, settings: FileSourceSettings, clock: Clock) -> None:
        self.name = name
        self._settings = settings
        self._reels: dict[Shard, _Reel] = {}
        self._gained: list[Shard] | None = None
        self._reading = asyncio.Lock()
        self._pace = None if settings.speed is None else _Pace(settings, settings.speed, clock)

    async def start(self) -> None:
        """Open the files.

        Raises:
            ConfigurationError: A file's kind is unknown, a column is not there, or pyarrow is not installed.
            SourceError: No file is there, or one cannot be read.
        """
        for path in await asyncio.to_thread(_found, self.name, self._settings.paths):
            shard = Shard(f"file:{self.name}", path, 0)
            tape = await asyncio.to_thread(open_tape, Path(path), self._settings)
            self._reels[shard] = _Reel(shard, tape)
        self._gained = list(self._reels)

    @property
    def reclaim_s(self) -> float | None:
        """Never: files are not moved between replicas."""
        return None

    def listen(self, revoked: Revoked) -> None:
        """Files are never taken away."""

    async def assigned(self) -> list[Shard] | None:
        """All files the first time."""
        gained, self._gained = self._gained, None
        return gained

    async def shards(self) -> list[Shard]:
        """The files."""
        return list(self._reels)

    async def bounds(self, shard: Shard, near: int | None = None) -> Bounds:
        """Start and end of the file, in the generation of `near`."""
        tape = self._reels[shard].tape
        return Bounds(tape.start(near or 0), await asyncio.to_thread(tape.end, near or 0))

    async def anchor(self, shard: Shard, position: int) -> str | None:
        """Checksum of the 4 KiB before `position`."""
        return await asyncio.to_thread(self._reels[shard].tape.anchor, position)

    async def partitions(self, shard: Shard) -> int | None:
        """Files have none."""
        return None

    async def resume(self, shard: Shard, position: int) -> None:
        """Play from `position` on."""
        reel = self._reels[shard]
        async with self._reading:  # a poll may be in the middle of the same file
            await asyncio.to_thread(reel.tape.seek, position)
        reel.is_playing, reel.held = True, None

    async def pause(self, shard: Shard) -> None:
        """Leave the file where it is."""
        self._reels[shard].is_playing = False

    async def poll(self, timeout_s: float) -> list[Records]:
        """Records of the next files in turn, or [] after `timeout_s`; at once where all was handed over."""
        async with self._reading:
            found = await asyncio.to_thread(lambda: list(self._play()))
        if not found and not self.exhausted:
            await asyncio.sleep(timeout_s if self._pace is None else min(timeout_s, self._pace.until_next_s()))
        return found

    def _play(self) -> Iterator[Records]:
        room = _POLL_RECORDS
        for reel in list(self._reels.values()):
            if room <= 0:
                return
            records = self._read(reel, room) if reel.is_playing else None
            if records is not None:
                self._reels[reel.shard] = self._reels.pop(reel.shard)  # the others come first next time
                room -= len(records)
                yield records

    def _read(self, reel: _Reel, limit: int) -> Records | None:
        if reel.held is None:
            chunk = reel.tape.read(limit)
            reel.held = _records(reel.shard, chunk) if chunk is not None and chunk.values else None
        if reel.held is None or self._pace is None:
            records, reel.held = reel.held, None
            return records
        records, reel.held = self._pace.split(reel.held)
        return records

    @property
    def exhausted(self) -> bool:
        """Whether a replay is over."""
        return self._settings.mode == "replay" and all(
            reel.is_playing and reel.tape.is_finished and reel.held is None for reel in self._reels.values()
        )

    async def commit(self, positions: dict[Shard, int]) -> None:
        """Files do not want to know."""

    async def stop(self) -> None:
        """Close the files."""
        reels, self._reels = self._reels, {}
        for reel in reels.values():
            reel.tape.close()


def _found(name: str, patterns: Sequence[str]) -> list[str]:
    paths = sorted(
        {path for pattern in patterns for path in glob.glob(pattern, recursive=True) if Path(path).is_file()}
    )
    if not paths:
        raise SourceError(f"file source {name!r}", "no file is there", expected=", ".join(patterns))
    return paths


def _records(shard: Shard, chunk: Chunk) -> Records:
    lines = chunk.originals
    headers: Sequence[Header] = ()
    return Records(
        shard=shard,
        values=chunk.values,
        keys=[Path(shard.topic).stem.encode()] * len(chunk.values),
        positions=chunk.positions,
        append_ns=np.full(len(chunk.values), NO_TIME),
        next_position=chunk.next_position,
        headers_of=lambda i: headers if lines is None else (("tidewarden-line", lines[i]),),
    )


class _Pace:
    """Says which records are due, `speed` times as fast as they were measured."""

    def __init__(self, settings: FileSourceSettings, speed: float, clock: Clock) -> None:
        self._decoder = Decoder(settings.record)
        self._speed, self._clock = speed, clock
        self._origin: tuple[int, float] | None = None  # event time in ns and seconds of our clock that belong together
        self._next_ns: int | None = None

    def split(self, records: Records) -> tuple[Records | None, Records | None]:
        """Part a batch into what is due and what is not; what has no readable time goes with what stands before it."""
        event_ns = self._event_ns(records)
        if self._origin is None and event_ns[-1] != NO_TIME:
            self._origin = int(event_ns[event_ns != NO_TIME][0]), self._clock.monotonic_s()
        due = int(np.searchsorted(event_ns, self._now_ns(), side="right"))
        if due < len(records):
            self._next_ns = min(self._next_ns or int(event_ns[due]), int(event_ns[due]))
        return _part(records, 0, due), _part(records, due, len(records))

    def _event_ns(self, records: Records) -> Int64:
        """(n,) The highest event time so far."""
        samples, _ = self._decoder.decode(records)
        event_ns = np.full(len(records), NO_TIME)
        event_ns[samples.index] = samples.event_ns
        return np.maximum.accumulate(event_ns)

    def _now_ns(self) -> int:
        """The event time that it would be now."""
        if self._origin is None:
            return NO_TIME
        first_ns, began_s = self._origin
        return first_ns + round((self._clock.monotonic_s() - began_s) * self._speed * 1e9)

    def until_next_s(self) -> float:
        """Seconds until the next record is due; forgets which it was."""
        next_ns, self._next_ns = self._next_ns, None
        return 0.05 if next_ns is None else max(0.0, (next_ns - self._now_ns()) / self._speed / 1e9)


def _part(records: Records, first: int, end: int) -> Records | None:
    if first >= end:
        return None
    if first == 0 and end == len(records):
        return records
    next_position = records.next_position if end == len(records) else int(records.positions[end])
    return replace(
        records,
        values=records.values[first:end],
        keys=records.keys[first:end],
        positions=records.positions[first:end],
        append_ns=records.append_ns[first:end],
        next_position=next_position,
        headers_of=lambda i: records.headers_of(first + i),
    )
