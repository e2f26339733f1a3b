"""Results on standard output: one JSON document per line, for a pipe or for eyes. Nothing is remembered."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from detector.errors import SinkError
from detector.records import Alert, Scores, Shard
from detector.sinks.base import DeadLetter, Tail
from detector.sinks.encode import encode_alert, encode_dead_letter, encode_scores


class StdoutSink:
    """The `Sink` over standard output."""

    guarantee = "at most once: nothing is remembered"

    def __init__(self, name: str) -> None:
        self.name = name
        self._writing = asyncio.Lock()

    async def start(self) -> None:
        """Nothing to open."""

    async def deliver_alerts(self, shard: Shard, alerts: Sequence[Alert]) -> None:
        """Print a line for each alert."""
        await self._print([encode_alert(alert) for alert in alerts])

    async def deliver_scores(self, shard: Shard, scores: Sequence[Scores]) -> None:
        """Print a line for each score."""
        await self._print([line for each in scores for line in encode_scores(shard, each)])

    async def deliver_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Print a line for each dead letter."""
        await self._print([encode_dead_letter(letter) for letter in letters])

    async def _print(self, lines: list[bytes]) -> None:
        async with self._writing:  # a reader at the other end of a pipe may be slow: wait in a thread
            await asyncio.to_thread(_write, b"".join(line + b"\n" for line in lines).decode())

    async def flush(self) -> None:
        """Everything was printed at once."""

    async def alert_mark(self, shard: Shard) -> None:
        """Standard output has no positions."""
        return

    async def alert_tail(self, shard: Shard, mark: int) -> Tail:
        """Nothing that was printed can be read again."""
        return Tail(frozenset(), mark)

    async def stop(self) -> None:
        """Nothing to close."""


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError) as error:  # ValueError: it was closed
        raise SinkError("standard output", "cannot be written", got=error) from error
