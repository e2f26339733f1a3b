"""What the records of a state topic mean, without I/O: blobs in chunks, claims, tombstones, and indices of them.

A blob is cut into chunks, each a record of its own:

    key     JSON [cluster, topic, partition, name, chunk]; no two blobs share one, as names are never used again
    header  `tidewarden`, JSON: the write it belongs to, of how many chunks, how it is packed, how long it is unpacked
    value   the chunk, packed; empty for a claim, null for a tombstone

A blob is there when all its chunks are; until then, and while it is being deleted, it shows as `<name>.tmp`. Of several
claims of one name the first in the log is the claim. Tombstones come in the order of chunks, and the last ends it.

An **index** says what of all shards the partition's log held before an offset: true whoever wrote it, and for ever,
because the log only grows. Who knows one reads on from its offset, and needs to look at nothing before it but the blobs
themselves. Compaction keeps the newest of a partition; each one before it is garbage.

A `Ledger` is what somebody knows of a partition: an index, and what was applied since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import cramjam
import msgspec

from detector.checkpoint.format import Block
from detector.checkpoint.stores.shard_names import identity, shard_of
from detector.records import Shard

HEADER = "tidewarden"
_INDEX = b'["index"]'

# Measured on rows of the shipped bundle, one core, packed to unpacked: level -1 0.89 at 1.0 GB/s, level 1 0.85 at 0.6,
# level 3 0.84 at 0.3. On rows without any pattern level -1 loses least: 1.6 GB/s against 0.24, for 8 % more bytes.
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
    shards: dict[str, dict[str, Blob]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of a blob, understood."""

    shard: Shard
    name: str
    chunk: int
    header: Chunk | None
    """None for a tombstone."""
    after: int
    """The chunks of the blob after this one, up to `chunk`, lie before it in the log, one by one."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record to be appended."""

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]
    entry: Entry | None = None
    """What it means; None for an index and for the birth of the topic."""


@dataclass(slots=True)
class Ledger:
    """What is known of a partition."""

    until: int = 0
    """Everything below this offset is in it."""
    blobs: dict[Shard, dict[str, Blob]] = field(default_factory=dict)

    def names(self, shard: Shard) -> list[str]:
        """What the shard has, unfinished things under another name."""
        return [name if blob.is_whole else f"{name}.tmp" for name, blob in self.blobs.get(shard, {}).items()]

    def blob(self, shard: Shard, name: str) -> Blob | None:
        """One of them, whole or not."""
        return self.blobs.get(shard, {}).get(name)

    def apply(self, offset: int, entry: Entry) -> None:
        """Take note of a record; those already known change nothing when they come again in order."""
        self.until = max(self.until, offset + 1)
        blobs = self.blobs.setdefault(entry.shard, {})
        if entry.header is None:
            _entomb(blobs, entry)
        elif not entry.header.is_claim:
            _add(blobs, offset, entry, entry.header)
        elif entry.name not in blobs:
            blobs[entry.name] = Blob(write=entry.header.write, of=1, first=offset, last=offset)
        if not blobs:
            del self.blobs[entry.shard]

    def index(self) -> Record:
        """The ledger as a record."""
        shards = {identity(shard).decode(): blobs for shard, blobs in self.blobs.items()}
        text = msgspec.json.encode(_Index(self.until, shards))
        return Record(_INDEX, bytes(cramjam.zstd.compress(text, _LEVEL)), [])


def _add(blobs: dict[str, Blob], offset: int, entry: Entry, header: Chunk) -> None:
    blob = blobs.get(entry.name)
    if blob is None or blob.write != header.write:
        seen = 0 if entry.after == -1 else -1  # its beginning was compacted away: it is being deleted
        blobs[entry.name] = blob = Blob(write=header.write, of=header.of, first=offset, last=offset, seen=seen)
    blob.seen = max(blob.seen, entry.chunk + 1) if entry.after < blob.seen else -1
    blob.last = max(blob.last, offset)


def _entomb(blobs: dict[str, Blob], entry: Entry) -> None:
    blob = blobs.get(entry.name)
    if blob is not None and entry.chunk == blob.of - 1:
        del blobs[entry.name]
    elif blob is not None:
        blob.seen = -1


def is_index(key: bytes | None) -> bool:
    """Whether a record is an index."""
    return key == _INDEX


def ledger_of(index: bytes) -> Ledger:
    """The ledger that an index holds."""
    found = msgspec.json.decode(bytes(cramjam.zstd.decompress(index)), type=_Index)
    shards = {shard_of(text.encode()): blobs for text, blobs in found.shards.items()}
    return Ledger(found.until, {shard: blobs for shard, blobs in shards.items() if shard is not None})


def understood(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> Entry | None:
    """What a record says of a blob; None for what is none of ours."""
    try:
        cluster, topic, partition, name, chunk = msgspec.json.decode(key or b"", type=tuple[str, str, int, str, int])
        header = None if value is None else msgspec.json.decode(dict(headers).get(HEADER, b""), type=Chunk)
    except msgspec.MsgspecError:
        return None
    return Entry(Shard(cluster, topic, partition), name, chunk, header, after=chunk - 1)


def _record(entry: Entry, value: bytes | None) -> Record:
    shard, header = entry.shard, entry.header
    key = msgspec.json.encode([shard.cluster, shard.topic, shard.partition, entry.name, entry.chunk])
    return Record(key, value, [] if header is None else [(HEADER, msgspec.json.encode(header))], entry)


def claim(shard: Shard, name: str, write: str) -> Record:
    """A claim as a record."""
    return _record(Entry(shard, name, 0, Chunk(write=write, of=1, bytes=0, is_claim=True), after=-1), b"")


def tombstones(shard: Shard, name: str, blob: Blob) -> Iterator[Record]:
    """What deletes a blob, whichever of its chunks are there."""
    return (_record(Entry(shard, name, chunk, None, after=chunk - 1), None) for chunk in range(blob.of))


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
