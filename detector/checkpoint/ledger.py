"""What the records of a state topic mean, without I/O: blobs in chunks, claims, tombstones, and indices of them.

A blob is cut into chunks, each a record of its own:

    key     JSON [cluster, topic, partition, name, chunk]; no two blobs share one, as names are never used again
    header  `tidewarden`, JSON: the write it belongs to, of how many chunks, how it is packed, how long it is unpacked
    value   the chunk, packed; empty for a claim, null for a tombstone

A blob is there when all its chunks are; until then, and while it is being deleted, it shows as `<name>.tmp`. Of several
claims of one name the first in the log is the claim. Tombstones come in the order of chunks, and the last ends it.

An **index** (name "") says what of a shard the log held before an offset: true whoever wrote it, and for ever, because
the log only grows. Who knows one reads on from its offset, and needs to look at nothing before it but the blobs
themselves. Compaction keeps the newest; each one before it is garbage.

A `Ledger` is what somebody knows of a shard: an index, and what was applied since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import cramjam
import msgspec

from detector.checkpoint.format import Block
from detector.records import Shard

HEADER = "tidewarden"
_INDEX = ""

# On rows of float32 levels 1 to 3 give 8 % at 0.25 GB/s, this one nothing at 1.6 GB/s; on rows with unused columns, on
# times and on names it is within a tenth of them, at twice to six times the speed.
_LEVEL = -1
_WORTHWHILE = 0.95  # packed to unpacked; above it a chunk is kept as it is


class Chunk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The header of a chunk."""

    write: str
    """Tells apart two attempts to write the same."""
    of: int
    packing: str = "raw"
    bytes: int
    """Unpacked."""
    is_claim: bool = False


class Blob(msgspec.Struct, kw_only=True):
    """A blob as far as it is known."""

    write: str
    of: int
    first: int
    """Offset of its first chunk."""
    last: int
    """Offset of the last that was seen."""
    seen: int = 1
    """Chunks that came, without a gap; -1 where one is gone."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it is there."""
        return self.seen == self.of


class _Index(msgspec.Struct):
    until: int
    blobs: dict[str, Blob]


@dataclass(frozen=True, slots=True)
class Entry:
    """A record, understood."""

    shard: Shard
    name: str
    chunk: int
    header: Chunk | None
    """None for a tombstone and for an index."""
    index: bytes | None = None
    after: int = -1
    """The chunks of the blob after this one, up to `chunk`, lie before it in the log, one by one."""

    @property
    def is_index(self) -> bool:
        """Whether it is an index of its shard."""
        return self.index is not None


@dataclass(frozen=True, slots=True)
class Record:
    """A record to be appended."""

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]
    entry: Entry | None = None
    """What it means; None for the birth of the topic."""


@dataclass(slots=True)
class Ledger:
    """What is known of a shard."""

    until: int = 0
    """Everything of the shard below this offset is in it."""
    blobs: dict[str, Blob] = field(default_factory=dict)

    def names(self) -> list[str]:
        """What is there, unfinished things under another name."""
        return [name if blob.is_whole else f"{name}.tmp" for name, blob in self.blobs.items()]

    def apply(self, offset: int, entry: Entry) -> None:
        """Take note of a record of the shard; those already known change nothing when they come again in order."""
        self.until = max(self.until, offset + 1)
        if entry.is_index:
            return
        if entry.header is None:
            self._entomb(entry)
        elif not entry.header.is_claim:
            self._chunk(offset, entry, entry.header)
        elif entry.name not in self.blobs:
            self.blobs[entry.name] = Blob(write=entry.header.write, of=1, first=offset, last=offset)

    def _chunk(self, offset: int, entry: Entry, header: Chunk) -> None:
        blob = self.blobs.get(entry.name)
        if entry.chunk == 0 or blob is None or blob.write != header.write:
            seen = 1 if entry.chunk == 0 else -1  # its beginning was compacted away: it is being deleted
            self.blobs[entry.name] = Blob(write=header.write, of=header.of, first=offset, last=offset, seen=seen)
            return
        blob.seen = entry.chunk + 1 if entry.after + 1 == blob.seen else -1
        blob.last = offset

    def _entomb(self, entry: Entry) -> None:
        blob = self.blobs.get(entry.name)
        if blob is not None and entry.chunk == blob.of - 1:
            del self.blobs[entry.name]
        elif blob is not None:
            blob.seen = -1

    def index(self, shard: Shard) -> Record:
        """The ledger as a record."""
        text = msgspec.json.encode(_Index(self.until, self.blobs))
        value = bytes(cramjam.zstd.compress(text, _LEVEL))
        return _record(Entry(shard, _INDEX, 0, None, index=value), value)


def _record(entry: Entry, value: bytes | None) -> Record:
    shard, header = entry.shard, entry.header
    key = msgspec.json.encode([shard.cluster, shard.topic, shard.partition, entry.name, entry.chunk])
    return Record(key, value, [] if header is None else [(HEADER, msgspec.json.encode(header))], entry)


def ledger_of(index: bytes) -> Ledger:
    """The ledger that an index holds."""
    found = msgspec.json.decode(bytes(cramjam.zstd.decompress(index)), type=_Index)
    return Ledger(found.until, found.blobs)


def understood(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> Entry | None:
    """What a record is; None for what is not ours."""
    try:
        cluster, topic, partition, name, chunk = msgspec.json.decode(key or b"", type=tuple[str, str, int, str, int])
        shard = Shard(cluster, topic, partition)
        if name == _INDEX:
            return None if value is None else Entry(shard, name, chunk, None, index=value)
        header = None if value is None else msgspec.json.decode(dict(headers).get(HEADER, b""), type=Chunk)
    except msgspec.MsgspecError:
        return None
    return Entry(shard, name, chunk, header, after=chunk - 1)


def claim(shard: Shard, name: str, write: str) -> Record:
    """A claim as a record."""
    return _record(Entry(shard, name, 0, Chunk(write=write, of=1, bytes=0, is_claim=True)), b"")


def tombstones(shard: Shard, name: str, blob: Blob) -> Iterator[Record]:
    """What deletes a blob, whichever of its chunks are there."""
    return (_record(Entry(shard, name, chunk, None), None) for chunk in range(blob.of))


def cut(blocks: Iterable[Block], size: int) -> Iterator[list[Block]]:
    """Blocks as chunks of `size` bytes, the last one shorter; at least one. Nothing is copied."""
    chunk: list[Block] = []
    room = size
    for block in blocks:
        rest = memoryview(block)
        while len(rest) > room:
            yield [*chunk, rest[:room]]
            chunk, rest, room = [], rest[room:], size
        chunk.append(rest)
        room -= len(rest)
    yield chunk


def count(blocks: Iterable[Block], size: int) -> int:
    """How many chunks `cut` makes of them."""
    return max(1, -(-sum(map(len, blocks)) // size))


def packed(shard: Shard, name: str, number: int, write: str, of: int, chunk: Sequence[Block]) -> Record:
    """A chunk as a record."""
    plain = b"".join(chunk)
    value, packing = bytes(cramjam.zstd.compress(plain, _LEVEL)), "zstd"
    if len(value) > _WORTHWHILE * len(plain):
        value, packing = plain, "raw"
    header = Chunk(write=write, of=of, packing=packing, bytes=len(plain))
    return _record(Entry(shard, name, number, header, after=number - 1), value)


def unpacked(header: Chunk, value: bytes) -> Block:
    """A chunk as it was.

    Raises:
        ValueError: It is not what its header says.
    """
    plain: Block = value
    if header.packing != "raw":
        try:
            plain = memoryview(cramjam.zstd.decompress(value, output_len=header.bytes))
        except cramjam.DecompressionError as error:
            raise ValueError(f"expected {header.packing}, got {error}") from error
    if len(plain) != header.bytes:
        raise ValueError(f"expected {header.bytes} bytes, got {len(plain)}")
    return plain


def birth(partitions: int, token: str) -> Record:
    """The first record of a state topic: by how many partitions its shards are spread. Its key is its own for ever."""
    return Record(msgspec.json.encode(["tidewarden", token]), msgspec.json.encode({"partitions": partitions}), [])


def partitions_at_birth(records: Iterable[tuple[bytes | None, bytes | None]]) -> int | None:
    """What the first birth among keys and values says; None where there is none."""
    for key, value in records:
        with suppress(msgspec.MsgspecError, KeyError):
            msgspec.json.decode(key or b"", type=tuple[str, str])
            return msgspec.json.decode(value or b"", type=dict[str, int])["partitions"]
    return None
