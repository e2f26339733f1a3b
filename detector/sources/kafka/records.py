"""What the client read of a partition, as the pipeline takes it, and how a record is known again."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from aiokafka import ConsumerRecord

from detector.records import NO_TIME, Header, Int64, Records, Shard

Batch: TypeAlias = Sequence[ConsumerRecord[bytes, bytes]]
"""Records of one partition, at least one, in the order of their offsets."""


def as_records(shard: Shard, batch: Batch) -> Records:
    """A batch as a poll."""
    return Records(
        shard=shard,
        values=[record.value for record in batch],
        keys=[record.key for record in batch],
        positions=_offsets(batch),
        append_ns=_append_ns(batch),
        next_position=batch[-1].offset + 1,
        headers_of=lambda i: _headers(batch[i]),
    )


def _offsets(batch: Batch) -> Int64:
    """Offsets of a batch; nearly always there is none missing, and then none needs to be looked at."""
    first, last = batch[0].offset, batch[-1].offset
    if last - first == len(batch) - 1:
        return np.arange(first, last + 1, dtype=np.int64)
    return np.array([record.offset for record in batch], np.int64)


def _append_ns(batch: Batch) -> Int64:
    timestamps_ms = np.array([record.timestamp for record in batch], np.int64)
    return np.where(timestamps_ms < 0, NO_TIME, timestamps_ms * 1_000_000)


def _headers(record: ConsumerRecord[bytes, bytes]) -> Sequence[Header]:
    return tuple(record.headers)


def fingerprint(record: ConsumerRecord[bytes, bytes]) -> str:
    """CRC-32 and timestamp: another record at the same offset has another one."""
    crc = zlib.crc32(record.value or b"", zlib.crc32(record.key or b""))
    return f"crc32:{crc:08x}@{record.timestamp}"
