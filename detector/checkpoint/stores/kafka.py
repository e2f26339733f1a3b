"""Checkpoints in a Kafka topic: needs no disk, so that a replica can start anywhere.

Given the `KafkaCheckpointSettings`. A shard's blobs lie in the partition with its number modulo the partitions that the
topic had at its birth (the first record of partition 0 says so: partitions may be added, nothing moves). What the
records mean is in kafka_ledger.py, what the topic must be in kafka_topic.py, the client in kafka_log.py.

A restore reads what it needs, not the garbage that compaction has not removed yet: before each claim and each manifest
goes an index of the partition. `names` looks for the newest one from the log's end backwards, in growing steps, and
knows all up to the end of the log as it is at the call: so it sees all that anybody was told is there, which the check
of the fence depends on. Later calls read on from where the last one ended. Blobs on the way are leapt over, which is
safe: where two chunks of one write lie as far apart as their numbers, nothing else fits between them. `read` then
fetches exactly the offsets of a blob.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import chain
from typing import TypeAlias

from detector.checkpoint.format import Block
from detector.checkpoint.stores.kafka_ledger import (
    Blob,
    Entry,
    Ledger,
    Record,
    birth,
    claim,
    count,
    cut,
    is_index,
    ledger_of,
    packed,
    partitions_at_birth,
    tombstones,
    understood,
    unpacked,
)
from detector.checkpoint.stores.kafka_log import LogReader, LogRecord, LogWriter
from detector.checkpoint.stores.kafka_topic import ready_topic
from detector.checkpoint.stores.shard_names import in_order
from detector.errors import CheckpointError, ConfigurationError, CorruptCheckpointError
from detector.kafka.client import require_c_extension
from detector.records import Shard
from detector.settings import KafkaCheckpointSettings

_ROOM_BYTES = 4096  # of a batch, for its own header and a chunk's key and header
_FIRST_STEP = 1  # records looked at for an index, from the end; each further step is four times as long
_LEAP = 4  # chunks worth a leap: to look where it ends costs about one
_INDEXED = ("fence-", "manifest-")

_Found: TypeAlias = tuple[int, Entry]
"""Where it stands, and what."""


class KafkaStore:
    """The `kafka` store."""

    def __init__(self, settings: KafkaCheckpointSettings) -> None:
        self._settings = settings
        self._name = f"checkpoint topic {settings.topic}"
        self._partitions = 0
        self._chunk_bytes = 0
        self._writer = LogWriter(settings, 0)
        self._tail = LogReader(settings)
        """For what is asked at every checkpoint."""
        self._blobs = LogReader(settings)
        """For what only a restore asks, so that no other shard waits for it."""
        self._ledgers: dict[int, Ledger] = {}
        """By partition."""

    async def start(self) -> None:
        """Find or create the topic, and learn by how many partitions its shards are spread.

        Raises:
            ConfigurationError: The topic is not fit, or may not be created; the hint is the command that helps.
            CheckpointError: No broker answers.
        """
        require_c_extension()
        topic = await ready_topic(self._settings, self._name)
        self._writer = LogWriter(self._settings, topic.max_bytes)
        self._chunk_bytes = topic.max_bytes - _ROOM_BYTES
        self._ledgers = {}
        self._partitions = await self._at_birth() or await self._give_birth(topic.partitions)

    async def stop(self) -> None:
        """Disconnect."""
        await self._writer.stop()
        await self._tail.stop()
        await self._blobs.stop()

    async def shards(self) -> list[Shard]:
        """Shards that have anything here."""
        known = [await self._known(partition, self._name) for partition in range(self._partitions)]
        return in_order(shard for ledger in known for shard in ledger.blobs)

    def where(self, shard: Shard) -> str:
        """The topic and the partition."""
        return f"topic {self._settings.topic} partition {self._partition(shard)}"

    async def names(self, shard: Shard) -> list[str]:
        """What all acknowledged records say is there, now."""
        return (await self._known_to(shard)).names(shard)

    async def read(self, shard: Shard, name: str) -> bytes:
        """The whole of one."""
        blob = self._ledgers.get(self._partition(shard), Ledger()).blob(shard, name)
        if blob is None or not blob.is_whole:
            blob = (await self._known_to(shard)).blob(shard, name)
        if blob is None or not blob.is_whole:
            got = "nothing" if blob is None else "a part of it"
            raise CorruptCheckpointError(self._where(shard), f"read {name}", got=got)
        chunks = await self._chunks(shard, name, blob)
        return await asyncio.to_thread(b"".join, chunks)

    async def write(self, shard: Shard, name: str, blocks: Sequence[Block]) -> None:
        """Write one, chunk by chunk; it is there with its last chunk."""
        size = self._chunk_bytes - len(name) - len(shard.topic.encode())
        of, write = count(blocks, size), uuid.uuid4().hex[:16]

        async def records() -> AsyncGenerator[Record, None]:
            for index in await self._index(shard, name):
                yield index
            for number, chunk in enumerate(cut(blocks, size)):
                yield await asyncio.to_thread(packed, shard, name, number, write, of, chunk)

        await self._append(shard, records(), f"write {name}")

    async def create(self, shard: Shard, name: str) -> bool:
        """Append a claim; then see whether it is the first of its name in the log."""
        if (await self._known_to(shard)).blob(shard, name) is not None:
            return False
        write = uuid.uuid4().hex[:16]
        records = [*await self._index(shard, name), claim(shard, name, write)]
        await self._append(shard, _each(records), f"create {name}")
        blob = (await self._known_to(shard)).blob(shard, name)
        return blob is not None and blob.write == write

    async def delete(self, shard: Shard, names: Sequence[str]) -> None:
        """Append tombstones; the broker's cleaner does the rest."""
        ledger = await self._known_to(shard)
        found = {name: ledger.blob(shard, name) for name in {name.removesuffix(".tmp") for name in names}}
        gone = [tombstones(shard, name, blob) for name, blob in sorted(found.items()) if blob is not None]
        if gone:
            await self._append(shard, _each(chain.from_iterable(gone)), "delete")

    # What is known

    async def _known_to(self, shard: Shard) -> Ledger:
        """What is known of the shard's partition, up to the end of its log."""
        return await self._known(self._partition(shard), self._where(shard))

    async def _known(self, partition: int, where: str) -> Ledger:
        async with self._tail.turn(where):
            low, high = await self._tail.bounds(partition, where)
            ledger = self._ledgers.get(partition)
            if ledger is None or ledger.until > high:  # the topic was created anew, or its log cut
                ledger = await self._from_the_end(partition, low, high, where)
                self._ledgers[partition] = ledger
            entries, _ = await self._scan(partition, max(low, ledger.until), high, where)
            for offset, entry in entries:
                ledger.apply(offset, entry)
            ledger.until = max(ledger.until, high)
            return ledger

    async def _from_the_end(self, partition: int, low: int, high: int, where: str) -> Ledger:
        """The newest index, and all that stands behind it and was looked at on the way."""
        step, start, later, newest = _FIRST_STEP, high, list[_Found](), None
        while start > low and newest is None:
            entries, newest = await self._scan(partition, max(low, start - step), start, where)
            start, step = max(low, start - step), step * 4
            if newest is None and entries and (whole := await self._from_its_beginning(partition, *entries[0], where)):
                entries[:1] = whole
                start = entries[0][0]
            later[:0] = entries
        ledger = Ledger(until=low) if newest is None else ledger_of(newest)
        if ledger.until < start:
            before, _ = await self._scan(partition, max(low, ledger.until), start, where)
            later[:0] = before
        for offset, entry in later:
            if offset >= ledger.until:
                ledger.apply(offset, entry)
        return ledger

    async def _scan(self, partition: int, start: int, end: int, where: str) -> tuple[list[_Found], bytes | None]:
        """What [start, end) says of blobs, many chunks in one piece by the first and the last; and its newest index."""
        entries: list[_Found] = []
        index = None
        while start < end:
            found, after = await self._tail.fetch(partition, start, end, where)
            start = after
            for record in found:
                if is_index(record.key):
                    index = record.value
                entry = _entry(record)
                if entry is None:
                    continue
                entries.append((record.offset, entry))
                ahead = 0 if entry.header is None else entry.header.of - 1 - entry.chunk
                if ahead < _LEAP or not after <= (last := record.offset + ahead) < end:
                    continue
                if (landed := await self._chunk_at(partition, last, entry, where)) is not None:
                    entries.append((last, replace(landed, after=entry.chunk)))
                    start = last + 1
                    break
        return entries, index

    async def _from_its_beginning(self, partition: int, offset: int, entry: Entry, where: str) -> list[_Found]:
        """A chunk and, from before it, the first of the same blob, where all between are there; else nothing."""
        if entry.header is None or entry.chunk < _LEAP:
            return []
        first = await self._chunk_at(partition, offset - entry.chunk, entry, where)
        return [] if first is None else [(offset - entry.chunk, first), (offset, replace(entry, after=0))]

    async def _chunk_at(self, partition: int, offset: int, entry: Entry, where: str) -> Entry | None:
        """The first or last chunk of the same write; None where another record is at that offset."""
        found, _ = await self._tail.fetch(partition, max(0, offset), offset + 1, where)
        there = _entry(found[0]) if found else None
        if there is None or there.header is None or entry.header is None or there.header.write != entry.header.write:
            return None
        return there if there.chunk in (0, there.header.of - 1) else None

    # Blobs

    async def _chunks(self, shard: Shard, name: str, blob: Blob) -> list[Block]:
        """All chunks of a blob, unpacked in a thread while the next are on their way."""
        where, partition, start = self._where(shard), self._partition(shard), blob.first
        unpacking: list[asyncio.Task[dict[int, Block]]] = []
        async with self._blobs.turn(where):
            while start <= blob.last:
                found, start = await self._blobs.fetch(partition, start, blob.last + 1, where, ahead=True)
                unpacking.append(asyncio.create_task(asyncio.to_thread(_unpack, found, shard, name, blob.write)))
        chunks: dict[int, Block] = {}
        for done in await asyncio.gather(*unpacking, return_exceptions=True):
            if isinstance(done, BaseException):
                raise CorruptCheckpointError(where, f"read {name}", got=done) from done
            chunks |= done
        if len(chunks) != blob.of:
            raise CorruptCheckpointError(where, f"read {name}", expected=f"{blob.of} chunks", got=len(chunks))
        return [chunks[number] for number in range(blob.of)]

    async def _append(self, shard: Shard, records: AsyncGenerator[Record, None], what: str) -> None:
        """Append; where nobody else wrote meanwhile, the ledger knows it without reading it again."""
        appended: list[Entry | None] = []

        async def noted() -> AsyncGenerator[Record, None]:
            async with aclosing(records):
                async for record in records:
                    appended.append(record.entry)
                    yield record

        offsets = await self._writer.append(self._partition(shard), noted(), self._where(shard), what)
        ledger = self._ledgers.get(self._partition(shard))
        if ledger is not None and offsets == list(range(ledger.until, ledger.until + len(offsets))):
            for offset, entry in zip(offsets, appended, strict=True):
                if entry is not None:
                    ledger.apply(offset, entry)

    async def _index(self, shard: Shard, name: str) -> list[Record]:
        """What goes before this name: an index, if it is worth one and fits."""
        if not name.startswith(_INDEXED):
            return []
        index = (self._ledgers.get(self._partition(shard)) or await self._known_to(shard)).index()
        return [index] if len(index.value or b"") <= self._chunk_bytes else []

    # Places

    def _partition(self, shard: Shard) -> int:
        return shard.partition % max(1, self._partitions)

    def _where(self, shard: Shard) -> str:
        return f"{self._name}, partition {self._partition(shard)}, shard {shard}"

    async def _at_birth(self) -> int | None:
        """What the first record of the topic says."""
        async with self._tail.turn(self._name):
            low, high = await self._tail.bounds(0, self._name)
            if low == high:
                return None
            found, _ = await self._tail.fetch(0, low, high, self._name)
        partitions = partitions_at_birth((record.key, record.value) for record in found)
        if partitions is None:
            raise ConfigurationError(
                self._name,
                "its first record",
                expected="how many partitions a state topic of Tidewarden had at its birth",
                got=f"something else at offset {low} of partition 0",
                hint="set checkpoint.topic to a topic that nobody else writes to",
            )
        return partitions

    async def _give_birth(self, partitions: int) -> int:
        await self._writer.append(0, _each([birth(partitions, uuid.uuid4().hex)]), self._name, "write the first record")
        found = await self._at_birth()  # another replica may have been faster
        if found is None:
            raise CheckpointError(self._name, "the first record is gone")
        return found


def _entry(record: LogRecord) -> Entry | None:
    return understood(record.key, record.value, record.headers)


def _unpack(records: Iterable[LogRecord], shard: Shard, name: str, write: str) -> dict[int, Block]:
    """Chunks of that write by their number."""
    chunks: dict[int, Block] = {}
    for record in records:
        entry = _entry(record)
        if entry is not None and entry.header is not None and entry.header.write == write and entry.name == name:
            chunks[entry.chunk] = unpacked(entry.header, record.value or b"")
    return chunks


async def _each(records: Iterable[Record]) -> AsyncGenerator[Record, None]:
    for record in records:
        yield record
