"""Segments through a store: rows in, their entry in the manifest out, and back; bytes are worked on in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from detector.checkpoint.base import Store
from detector.checkpoint.format import Block, Segment, decode_segment, encode_segment, segment_of
from detector.records import ArenaRows, Shard

_READ_AT_ONCE = 4  # segments in flight: while one is read, another is checked and decoded


async def write_segment(store: Store, shard: Shard, name: str, arenas: Sequence[ArenaRows]) -> Segment:
    """Make rows durable under a name; returns how a manifest names them."""

    def encoded() -> tuple[list[Block], Segment]:
        blocks = encode_segment(arenas)
        return blocks, segment_of(name, blocks, sum(len(rows.streams) for rows in arenas))

    blocks, segment = await asyncio.to_thread(encoded)
    await store.write(shard, name, blocks)
    return segment


async def read_segment(store: Store, shard: Shard, segment: Segment) -> list[ArenaRows]:
    """The rows of one segment.

    Raises:
        CorruptCheckpointError: It is missing, or not what the manifest says it is.
    """
    data = await store.read(shard, segment.name)
    return await asyncio.to_thread(decode_segment, data, segment, f"{shard}/{segment.name}")


async def read_segments(store: Store, shard: Shard, segments: Sequence[Segment]) -> list[ArenaRows]:
    """The rows of several, in their order: whoever takes them in turn has the last row of each stream."""
    gate = asyncio.Semaphore(_READ_AT_ONCE)

    async def read(segment: Segment) -> list[ArenaRows]:
        async with gate:
            return await read_segment(store, shard, segment)

    found = await asyncio.gather(*(read(segment) for segment in segments), return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [rows for arenas in found if not isinstance(arenas, BaseException) for rows in arenas]
