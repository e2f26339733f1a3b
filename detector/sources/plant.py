"""The synthetic plant as a source: the pumps of `detector.demo.plant`, as JSON records, paced or as fast as possible.

One shard. A position is a sample's place in its chunk plus the room for all chunks before it, so the same position
always means the same sample, and where the plant ends is known from the start. Seeking draws the plant anew up to
there: two million samples take a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice

import msgspec
import numpy as np

from detector.clock import Clock
from detector.demo.plant import CHANNELS, Chunk, Plant
from detector.records import NO_TIME, Records, Shard
from detector.settings import PlantSourceSettings
from detector.sources.base import Bounds, Revoked

_POLL_RECORDS = 4000  # as many as a Kafka source takes in one poll by default
_GLANCE_S = 0.05  # how often a paced plant looks whether something is due
_GENERATOR = 1  # raise it when the same seed begins to give other samples


class PlantSource:
    """Pumps instead of a broker; see `Source` for what each method promises."""

    def __init__(self, name: str, settings: PlantSourceSettings, clock: Clock) -> None:
        self.name, self._settings, self._clock = name, settings, clock
        self._plant = Plant(settings.streams, settings.seed)
        self._shard = Shard("plant", name, 0)
        self._is_assigned = self._is_playing = self._is_over = False
        self._drawing = asyncio.Lock()
        self._chunks: Iterator[Chunk] = iter(())
        self._chunk: Chunk | None = None
        self._first = 0  # position of the chunk's first sample
        self._next = 0  # place of the next sample within the chunk
        self._paced_from: tuple[float, int] | None = None  # monotonic seconds and the event time that was due then

    async def start(self) -> None:
        """Nothing to connect to."""

    @property
    def reclaim_s(self) -> float | None:
        """Never: each replica has a plant of its own."""
        return None

    def listen(self, revoked: Revoked) -> None:
        """The plant is never taken away."""

    async def assigned(self) -> list[Shard] | None:
        """The one shard, once."""
        gained = None if self._is_assigned else [self._shard]
        self._is_assigned = True
        return gained

    async def shards(self) -> list[Shard]:
        """The one."""
        return [self._shard]

    async def bounds(self, shard: Shard, near: int | None = None) -> Bounds:
        """From the first sample to the room for the last."""
        ticks = int(self._settings.hours * 3600.0 / self._plant.period_s)
        return Bounds(0, ticks * self._settings.streams)

    async def anchor(self, shard: Shard, position: int) -> str | None:
        """Which plant this is: another seed or size is another plant."""
        of = self._settings
        return f"plant-{_GENERATOR}-{of.seed}-{of.streams}-{of.hours:g}" if position else None

    async def partitions(self, shard: Shard) -> int | None:
        """There is one plant."""
        return None

    async def resume(self, shard: Shard, position: int) -> None:
        """Go to a position."""
        size = self._plant.chunk_samples
        async with self._drawing:  # a poll may be on its way to the next chunk
            skipped, self._next = divmod(position, size)
            self._chunks = islice(self._plant.samples(self._settings.hours), skipped, None)
            self._chunk = await asyncio.to_thread(next, self._chunks, None)
        self._first, self._is_over, self._paced_from = skipped * size, self._chunk is None, None
        self._is_playing = True

    async def pause(self, shard: Shard) -> None:
        """The plant's time stands still."""
        self._is_playing = False

    async def poll(self, timeout_s: float) -> list[Records]:
        """What has become due since the last poll."""
        async with self._drawing:
            if self._chunk is not None and self._next >= len(self._chunk.stream):
                self._chunk = await asyncio.to_thread(next, self._chunks, None)
                self._first, self._next = self._first + self._plant.chunk_samples, 0
                self._is_over = self._chunk is None
        due = self._due(self._chunk) if self._chunk is not None and self._is_playing else self._next
        if self._chunk is None or due == self._next:
            await asyncio.sleep(0.0 if self._is_over else min(timeout_s, _GLANCE_S))
            return []
        return [self._records(self._chunk, due)]

    def _due(self, chunk: Chunk) -> int:
        """Place of the first sample of the chunk whose time has not come yet."""
        last = min(self._next + _POLL_RECORDS, len(chunk.stream))
        if self._settings.speed is None:
            return last
        now_s = self._clock.monotonic_s()
        if self._paced_from is None:
            self._paced_from = (now_s, int(chunk.event_ns[self._next]))
        since_s, begin_ns = self._paced_from
        until_ns = begin_ns + round((now_s - since_s) * self._settings.speed * 1e9)
        return min(last, max(self._next, int(np.searchsorted(chunk.event_ns, until_ns, "right"))))

    def _records(self, chunk: Chunk, due: int) -> Records:
        rows = slice(self._next, due)
        names = [self._plant.names[stream] for stream in chunk.stream[rows].tolist()]
        times = (chunk.event_ns[rows] / 1e9).tolist()
        records = Records(
            shard=self._shard,
            values=[  # msgspec writes a NaN, which is a missing cell, as null
                msgspec.json.encode({"stream": name, "time": time, "values": dict(zip(CHANNELS, row, strict=True))})
                for name, time, row in zip(names, times, chunk.values[rows].tolist(), strict=True)
            ],
            keys=[name.encode() for name in names],
            positions=np.arange(self._first + self._next, self._first + due, dtype=np.int64),
            append_ns=np.full(due - self._next, NO_TIME, np.int64),
            next_position=self._first + due,
        )
        self._next = due
        return records

    @property
    def exhausted(self) -> bool:
        """True at the end of the plant's time."""
        return self._is_over

    async def commit(self, positions: dict[Shard, int]) -> None:
        """Nobody to tell."""

    async def stop(self) -> None:
        """Nothing to disconnect from."""
        self._chunks, self._chunk = iter(()), None
