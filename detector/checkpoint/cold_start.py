"""What a cold start gives up: the streams whose memory is lost, told one by one before it happens.

`tidewarden run --cold` starts a shard without memory where its checkpoint cannot be used: it belongs to another topic,
bundle or version, or every manifest is damaged. The old files stay until the new memory has two checkpoints of its
own. What is wrong with them may make them hard to read, so here everything is read that still can be.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from detector.checkpoint.base import Store, manifests_newest_first
from detector.checkpoint.format import Manifest, Segment, decode_manifest, decode_segment
from detector.errors import CheckpointError, CorruptCheckpointError
from detector.records import NO_TIME, ArenaRows, Shard
from detector.stages.decide import open_slots

_MOST_LINES = 1000  # streams named per shard

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LostStream:
    """A stream whose memory is given up."""

    detector: str
    last_ns: int
    """Event time of its last sample, or NO_TIME."""
    has_open_anomaly: bool


@dataclass(slots=True)
class LostMemory:
    """All that a cold start gives up."""

    reason: CheckpointError
    """Why the checkpoint cannot be used."""
    where: str
    """Where its files lie."""
    position: int | None = None
    """Up to where they know the shard; None where no manifest can be read."""
    streams: dict[str, LostStream] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    """Files that cannot be read, with streams that cannot be named."""


async def lost_memory(store: Store, shard: Shard, reason: CheckpointError) -> LostMemory:
    """Read what can still be read of a checkpoint that cannot be used."""
    lost = LostMemory(reason, store.where(shard))
    manifest = await _newest(store, shard)
    if manifest is not None:
        lost.position = manifest.position
        cold: Sequence[Segment | str] = manifest.cold
        warm: Sequence[Segment | str] = manifest.segments
    else:
        names = sorted(name for name in await store.names(shard) if name.endswith(".rows"))
        cold = [name for name in names if name.startswith("cold-")]
        warm = [name for name in names if name.startswith("segment-")]
    lost.streams |= await _streams(store, shard, cold, lost.unread)
    lost.streams |= await _streams(store, shard, warm, lost.unread)  # a row in there is the later one
    return lost


def tell(lost: LostMemory, shard: Shard) -> None:
    """Say per stream what is lost, those with an open anomaly first and the longest unheard last; then in sum."""
    latest = sorted(lost.streams.items(), key=lambda item: (not item[1].has_open_anomaly, -item[1].last_ns, item[0]))
    for stream, each in latest[:_MOST_LINES]:
        _log.warning(
            "a stream's memory is given up",
            shard=str(shard),
            stream=stream,
            detector=each.detector,
            last_heard=_text(each.last_ns),
            open_anomaly=each.has_open_anomaly,
        )
    _log.warning(
        "starting without memory, as --cold says",
        shard=str(shard),
        reason=str(lost.reason),
        streams=len(lost.streams),
        not_named=max(0, len(lost.streams) - _MOST_LINES),
        open_anomalies=sum(each.has_open_anomaly for each in lost.streams.values()),
        position=lost.position,
        unread=lost.unread,
        old_checkpoint=lost.where,
        hint="its files stay there until this shard has made two checkpoints; copy them away to keep them",
    )


async def _newest(store: Store, shard: Shard) -> Manifest | None:
    """The newest manifest that can be read, with or without its rows."""
    for name in manifests_newest_first(await store.names(shard)):
        try:
            return decode_manifest(await store.read(shard, name), name)
        except CorruptCheckpointError:
            continue
    return None


async def _streams(
    store: Store, shard: Shard, segments: Sequence[Segment | str], unread: list[str]
) -> dict[str, LostStream]:
    """The streams of those segments that can be read; a checksum is looked at where there is one."""
    found: dict[str, LostStream] = {}
    for each in segments:
        name = each if isinstance(each, str) else each.name
        try:
            data = await store.read(shard, name)
            known = each if isinstance(each, Segment) else _taken_as_it_is(name, data)
            for rows in decode_segment(data, known, name):
                for stream in rows.gone:
                    found.pop(stream, None)
                found |= _streams_of(rows)
        except (CorruptCheckpointError, msgspec.MsgspecError, LookupError, TypeError, ValueError):
            unread.append(name)
    return found


def _taken_as_it_is(name: str, data: bytes) -> Segment:
    return Segment(name=name, crc32=zlib.crc32(data), bytes=len(data), rows=0)


def _streams_of(rows: ArenaRows) -> dict[str, LostStream]:
    decide: Any = rows.arrays.get("decide")
    has_phase = decide is not None and "phase" in (decide.dtype.names or ())
    is_open = set(open_slots(decide).tolist()) if has_phase else set()
    last_ns = rows.arrays["last_ns"].tolist() if "last_ns" in rows.arrays else [NO_TIME] * len(rows.streams)
    return {
        stream: LostStream(rows.detector, last, at in is_open)
        for at, (stream, last) in enumerate(zip(rows.streams, last_ns, strict=True))
    }


def _text(time_ns: int) -> str | None:
    return None if time_ns == NO_TIME else datetime.fromtimestamp(time_ns // 10**9, UTC).isoformat()
