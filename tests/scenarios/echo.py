"""An engine simple enough to see through, and the records that it reads."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.records import (
    NO_TIME,
    Alert,
    ArenaRows,
    Outcome,
    Reason,
    Records,
    Reject,
    Scores,
    Shard,
    Snapshot,
    SourcePosition,
)
from detector.state.cold import ColdIndex

SHARD = Shard("cluster", "sensors", 0)
SHA256 = "ab" * 32


@dataclass(frozen=True)
class S:
    """One record: a stream and a number; None makes it a broken one."""

    value: int | None
    stream: str = "pump"


def s(value: int | None, stream: str = "pump") -> S:
    """A record of a feed."""
    return S(value, stream)


def plain_feed(count: int, streams: int = 5, seed: int = 1) -> list[S]:
    """Records of several streams; every seventh is broken, some repeat values that fire."""
    numbers = random.Random(seed)
    return [s(None if i % 7 == 6 else numbers.randrange(100), f"pump-{i % streams}") for i in range(count)]


class EchoEngine:
    """An engine whose memory is a checksum over all that a stream sent, so that a lost or doubled record shows."""

    is_narrow = False
    is_crowded = False
    saved_bytes = 0

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.cold = ColdIndex()
        self.position, self.rows, self.highest = 0, {}, NO_TIME
        self._dirty: set[str] = set()
        self._pending: set[str] = set()
        self._snapshots = 0

    @property
    def changed_bytes(self) -> int:
        """So much now and then that a base is written."""
        return 1 << 30 if self._snapshots % 4 == 3 else 0

    @property
    def streams(self) -> int:
        """How many streams have memory."""
        return len(self.rows)

    @property
    def open_anomalies(self) -> int:
        """None stays open."""
        return 0

    @property
    def frozen_streams(self) -> int:
        """None is."""
        return 0

    def advance(self, records: Records) -> Outcome:
        """Fold each value into its stream's checksum; one above 80 fires."""
        outcome = Outcome(records.shard, records.next_position)
        scored: list[tuple[int, str, int, int]] = []
        for i, (key, value, position) in enumerate(zip(records.keys, records.values, records.positions, strict=True)):
            if value == b"broken":
                outcome.rejects.append(Reject(i, int(position), Reason.MALFORMED))
                continue
            stream = key.decode()
            self.rows[stream] = zlib.crc32(value, self.rows.get(stream, 0))
            self._dirty.add(stream)
            self.highest = max(self.highest, int(position))
            scored.append((i, stream, int(position), self.rows[stream]))
            if int(value) > 80:
                outcome.alerts.append(alert(int(position), stream, float(self.rows[stream]), shard=self.shard))
        outcome.scores.append(_scores(scored))
        self.position = records.next_position
        return outcome

    def flush(self) -> Outcome:
        """Nothing is waited for."""
        return Outcome(self.shard, self.position)

    def evict(self) -> dict[int, list[ArenaRows]]:
        """None is too many."""
        return {}

    def snapshot(self, *, full: bool = False) -> Snapshot:
        """The rows that changed."""
        self.dropped()
        self._snapshots += 1
        self._pending, self._dirty = self._dirty, set()
        return Snapshot(
            self.shard, self.position, self.highest, [self._rows(self.rows if full else self._pending)], full
        )

    def kept(self) -> None:
        """Durable."""
        self._pending = set()

    def dropped(self) -> None:
        """Not durable."""
        self._dirty |= self._pending
        self._pending = set()

    def restore(
        self,
        next_position: int,
        highest_event_ns: int,
        arenas: Sequence[ArenaRows],
        last_position: int | None = None,
        **_: Any,
    ) -> None:
        """Start from a checkpoint."""
        self.rows = {}
        self.extend(next_position, highest_event_ns, arenas, last_position)

    def extend(
        self,
        next_position: int,
        highest_event_ns: int,
        arenas: Sequence[ArenaRows],
        last_position: int | None = None,
        **_: Any,
    ) -> None:
        """Go on from a later one."""
        self.position, self.highest = next_position, highest_event_ns
        for rows in arenas:
            self.rows |= dict(zip(rows.streams, rows.arrays["state"][:, 0].tolist(), strict=True))

    def _rows(self, streams: Any) -> ArenaRows:
        names = [stream for stream in self.rows if stream in streams]
        state = np.array([[self.rows[name]] for name in names], np.int64).reshape(-1, 1)
        return ArenaRows("echo", SHA256, ("value",), names, [{} for _ in names], {"state": state})


def alert(position: int, stream: str, score: float, sequence: int = 0, shard: Shard = SHARD) -> Alert:
    """An alert that a record gives; its id depends on the shard and the position alone."""
    return Alert(
        id=f"id-{shard.partition}-{position}-{sequence}",
        anomaly_id=f"id-{shard.partition}-{position}",
        sequence=sequence,
        event="open",
        status="firing",
        reason="threshold",
        stream=stream,
        labels={},
        detector="echo",
        bundle="echo@1",
        time="2026-11-21T00:00:00Z",
        started_at="2026-11-21T00:00:00Z",
        detected_at="2026-11-21T00:00:00Z",
        ended_at=None,
        score=score,
        peak_score=score,
        threshold=4.0,
        channels=[],
        source=SourcePosition(cluster="cluster", topic="sensors", partition=shard.partition, offset=position),
    )


def records(items: Sequence[S], start: int, shard: Shard = SHARD) -> Records:
    """A poll."""
    count = len(items)
    return Records(
        shard=shard,
        values=[b"broken" if item.value is None else str(item.value).encode() for item in items],
        keys=[item.stream.encode() for item in items],
        positions=np.arange(start, start + count, dtype=np.int64),
        append_ns=np.full(count, NO_TIME, np.int64),
        next_position=start + count,
    )


def _scores(rows: Sequence[tuple[int, str, int, int]]) -> Scores:
    return Scores(
        detector="echo",
        channels=("value",),
        index=np.array([row[0] for row in rows], np.int64),
        streams=[row[1] for row in rows],
        event_ns=np.array([row[2] for row in rows], np.int64),
        positions=np.array([row[2] for row in rows], np.int64),
        score=np.array([row[3] for row in rows], np.float32),
        threshold=np.full(len(rows), 4, np.float32),
        anomaly=np.zeros(len(rows), np.uint8),
    )
