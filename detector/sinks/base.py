"""What a sink promises to the pipeline.

Three kinds of things leave the daemon: alerts, scores and dead letters. A sink accepts a batch at once and confirms
it later: `flush` returns when all that was handed over before the call is acknowledged. The checkpoint protocol rests
on exactly that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from detector.records import Alert, Header, Reason, Scores, Shard


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A rejected record, kept with its reason."""

    shard: Shard
    position: int
    append_ns: int
    reason: Reason
    detail: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


@dataclass(frozen=True, slots=True)
class Tail:
    """What stands on an alerts topic after a mark: the ids of one shard's alerts."""

    ids: frozenset[str]
    mark: int
    """The end of what was read; the next mark."""


class Sink(Protocol):
    """An edge that results go to. A sink implements the deliveries it is configured for."""

    name: str
    guarantee: str
    """In words for people: what is promised about loss and repetition."""

    async def start(self) -> None:
        """Connect and check that the outside is fit for its promise. Raises SinkError or ConfigurationError."""
        ...

    async def deliver_alerts(self, shard: Shard, alerts: Sequence[Alert]) -> None:
        """Accept alerts in order; waits only while the bounded buffer is full. Raises SinkError."""
        ...

    async def deliver_scores(self, shard: Shard, scores: Sequence[Scores]) -> None:
        """Accept scores; the same contract."""
        ...

    async def deliver_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Accept dead letters; the same contract."""
        ...

    async def flush(self) -> None:
        """Return when all that was accepted before this call is acknowledged. Raises SinkError if any was not."""
        ...

    async def alert_mark(self, shard: Shard) -> int | None:
        """The position on the output after the shard's last acknowledged alert; None where a sink has no positions."""
        ...

    async def alert_tail(self, shard: Shard, mark: int) -> Tail:
        """Read the ids of the shard's alerts from `mark` to the end as it is now."""
        ...

    async def stop(self) -> None:
        """Flush within a bound and disconnect; safe to call twice."""
        ...
