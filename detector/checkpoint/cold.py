"""Rows of evicted streams: into cold segments at a checkpoint, and back when their streams are heard again.

    step 1 of a checkpoint   `take`: rows that are too many leave the engine; which segments the manifest is to name
    step 3                   `write`: what left since the last manifest, at most 4096 rows a segment
    step 5                   `kept`: the manifest names them
    before each poll         `bring_back`: the rows of cold streams that it brings samples of

Between steps 1 and 5 rows that left are still in memory (`pending`), and stay there where a checkpoint fails: nothing
leaves memory before it is durable. The manifest names what was cold at step 1. A stream that comes back later has its
row here and in that segment; the next manifest has it among the hot rows, which count before cold ones. So a crash
anywhere finds every row once: with the manifest's position, as it was there.

Segments without a live row leave the manifest. Where many are less than half full, the emptiest are joined into one,
one such at a checkpoint, so that neither dead rows nor small segments pile up.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from detector.checkpoint.base import Store, cold_name
from detector.checkpoint.format import Manifest, Segment, merge
from detector.checkpoint.lineage import Carry, Identity
from detector.checkpoint.segments import read_segment, write_segment
from detector.errors import CorruptCheckpointError
from detector.records import ArenaRows, Records
from detector.state.cold import COLD_ROWS, ColdIndex, ColdStreams

_MOST_SPARSE = 16  # segments less than half full that are borne, and joined at once
_RECENT = 8  # decoded segments that are kept, about 4 MB each, for streams that come back together


class EvictingMemory(Protocol):
    """The side of an engine that sees rows leave and come back; always called on the engine's own thread."""

    cold: ColdIndex

    def evict(self) -> dict[int, list[ArenaRows]]:
        """Take out the rows that are too many, as the cold segments to come: number > rows."""
        ...

    def wanted(self, records: Records) -> dict[int, list[int]]:
        """Which cold rows these records need: segment > rows."""
        ...

    def bring_back(self, arenas: Sequence[ArenaRows]) -> None:
        """Take back rows of streams that are cold; of others in between, none."""
        ...


@dataclass(slots=True)
class ColdTaken:
    """What step 1 of a checkpoint found of cold rows, and what came of it."""

    evicted: int
    """Rows that left the engine."""
    staying: list[int]
    """Segments in the store that the manifest goes on to name."""
    pending: dict[int, list[ArenaRows]]
    """Segments to be written."""
    sparse: dict[int, list[int]]
    """Segments to be joined, with their live rows."""
    written: dict[int, Segment] = field(default_factory=dict)
    joined: _Joined | None = None


@dataclass(frozen=True, slots=True)
class _Joined:
    """Rows of several segments in one, and where each was."""

    segment: Segment
    streams: list[str]
    places: list[tuple[int, int]]


class ColdRows:
    """The cold rows of one shard."""

    def __init__(
        self, manifest: Manifest, memory: EvictingMemory, engine_thread: Executor, store: Store, identity: Identity
    ) -> None:
        self._memory, self._engine_thread = memory, engine_thread
        self._store, self._shard = store, manifest.shard
        layouts = {(each.detector, each.bundle_sha256): each.layout for each in manifest.bundles}
        self._carry = Carry(layouts, identity)
        numbers = {name: number for number, name in memory.cold.names.items()}
        self._segments = {numbers[segment.name]: segment for segment in manifest.cold}
        self._former: dict[int, Segment] = {}  # of the manifest before: a read under way may still want them
        self._pending: dict[int, list[ArenaRows]] = {}
        self._recent: OrderedDict[int, list[ArenaRows]] = OrderedDict()

    def __len__(self) -> int:
        """How many streams are cold."""
        return len(self._memory.cold)

    # For checkpoints --------------------------------------------------------------------------------------------------

    def take(self) -> ColdTaken:
        """Let rows go that are too many, and see which segments have live rows; on the engine's thread."""
        evicted = self._memory.evict()
        index = self._memory.cold
        self._pending = {number: rows for number, rows in (self._pending | evicted).items() if index.live[number]}
        live = {number: index.live[number] for number in sorted(self._segments) if index.live[number]}
        sparse = to_join(live)
        return ColdTaken(
            evicted=sum(len(rows.streams) for arenas in evicted.values() for rows in arenas),
            staying=[number for number in live if number not in sparse],
            pending=dict(self._pending),
            sparse={number: index.live_rows(number).tolist() for number in sparse},
        )

    async def write(self, taken: ColdTaken, fence: int, epoch: int) -> list[Segment]:
        """Make durable what was taken; returns all cold segments that the manifest is to name, oldest first."""
        if taken.sparse:
            try:
                taken.joined = await self._join(taken.sparse, cold_name(fence, epoch, 0))
            except CorruptCheckpointError:  # said when its rows are needed; until then it stays as it is
                taken.staying = sorted([*taken.staying, *taken.sparse])
        for place, (number, arenas) in enumerate(taken.pending.items(), start=1):
            name = cold_name(fence, epoch, place)
            taken.written[number] = await write_segment(self._store, self._shard, name, arenas)
        joined = [taken.joined.segment] if taken.joined else []
        return [*(self._segments[number] for number in taken.staying), *joined, *taken.written.values()]

    def kept(self, taken: ColdTaken) -> None:
        """The manifest is durable; on the engine's thread."""
        index = self._memory.cold
        segments = {number: self._segments[number] for number in taken.staying} | taken.written
        if taken.joined:
            segments[index.move(taken.joined.streams, taken.joined.places)] = taken.joined.segment
        index.names.update({number: segment.name for number, segment in segments.items()})
        index.drop([number for number in index.live if number not in segments and number not in self._pending])
        self._former, self._segments = self._segments, segments
        self._pending = {number: rows for number, rows in self._pending.items() if number not in taken.written}

    # Back again -------------------------------------------------------------------------------------------------------

    async def bring_back(self, records: Records) -> None:
        """Give the engine the rows of cold streams that these records bring samples of; nothing where none is cold.

        Raises:
            CorruptCheckpointError: A segment cannot be read: going on would be silent loss of memory.
        """
        if not self._memory.cold:
            return
        loop = asyncio.get_running_loop()
        wanted = await loop.run_in_executor(self._engine_thread, self._memory.wanted, records)
        if wanted:
            rows = [rows for number, at in wanted.items() for rows in pick(await self._rows(number), at)]
            await loop.run_in_executor(self._engine_thread, self._memory.bring_back, rows)

    async def bring_back_begun(self) -> None:
        """Give the engine the cold rows of narrow records with a sample not yet whole: their source has ended."""
        index, seen = self._memory.cold, set[int]()
        while coming := [number for number, live in index.live.items() if live and number not in seen]:
            number = coming[0]
            seen.add(number)
            arenas = await self._rows(number)
            if not index.live.get(number):
                continue  # a checkpoint joined it with others meanwhile: its rows come under their number
            live = pick(arenas, index.live_rows(number).tolist())  # a dead one would undo what came after it
            rows = [begun for one in live if len((begun := _begun(one)).streams)]
            await asyncio.get_running_loop().run_in_executor(self._engine_thread, self._memory.bring_back, rows)

    async def _rows(self, number: int) -> list[ArenaRows]:
        """All rows of a segment, by bundles that run."""
        if (pending := self._pending.get(number)) is not None:
            return pending
        if (recent := self._recent.get(number)) is None:
            segment = self._segments.get(number) or self._former[number]
            recent = [self._carry(rows) for rows in await read_segment(self._store, self._shard, segment)]
            self._recent[number] = recent
        self._recent.move_to_end(number)
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return recent

    async def _join(self, sparse: Mapping[int, Sequence[int]], name: str) -> _Joined:
        """Write live rows of several segments as one."""
        parts: list[ArenaRows] = []
        place: dict[str, tuple[int, int]] = {}
        for number, at in sparse.items():
            parts += pick(await self._rows(number), at)
            streams = [stream for rows in await self._rows(number) for stream in rows.streams]
            place |= {streams[row]: (number, row) for row in at}
        arenas = merge(parts)
        streams = [stream for rows in arenas for stream in rows.streams]
        segment = await write_segment(self._store, self._shard, name, arenas)
        return _Joined(segment, streams, [place[stream] for stream in streams])


def to_join(live: Mapping[int, int]) -> list[int]:
    """Which segments, given their live rows, are joined into one: the emptiest, where many are less than half full."""
    sparse = sorted((rows, number) for number, rows in live.items() if 2 * rows < COLD_ROWS)
    chosen: list[int] = []
    if len(sparse) >= _MOST_SPARSE:
        total = 0
        for rows, number in sparse[:_MOST_SPARSE]:
            total += rows
            if total <= COLD_ROWS:
                chosen.append(number)
    return chosen


def pick(arenas: Sequence[ArenaRows], at: Sequence[int]) -> list[ArenaRows]:
    """The rows `at` of a segment, counted through its arenas."""
    chosen, first = [], 0
    for rows in arenas:
        here = [row - first for row in at if first <= row < first + len(rows.streams)]
        if here:
            chosen.append(rows.take(here))
        first += len(rows.streams)
    return chosen


def _begun(rows: ArenaRows) -> ArenaRows:
    """Those with a sample not yet whole; none where records were wide when the rows left."""
    if "join_arrived" not in rows.arrays:
        return rows.take([])
    arrived = rows.arrays["join_arrived"].astype(np.bool_)
    return rows.take(np.flatnonzero(~arrived.all(axis=1)).tolist())


async def read_cold_streams(store: Store, manifest: Manifest, known: Collection[str] = ()) -> list[ColdStreams]:
    """Who is in the cold segments that a manifest names, oldest first, but for those whose names are known.

    Raises:
        CorruptCheckpointError: One is missing or damaged: the checkpoint is not whole.
    """
    return [
        ColdStreams.of(segment.name, await read_segment(store, manifest.shard, segment))
        for segment in manifest.cold
        if segment.name not in known
    ]
