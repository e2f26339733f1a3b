"""Results as lines of a JSON Lines file.

Given `FileSinkSettings`, it appends; `flush` puts everything on the disk itself. A line that a crash has torn is cut
off at the next start: what it said was never acknowledged. Positions are byte offsets. One process at a time may write
to a file, or one would cut off the other's lines.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from detector.errors import SinkError
from detector.records import Alert, Scores, Shard
from detector.settings import FileSinkSettings
from detector.sinks.base import DeadLetter, Tail
from detector.sinks.encode import alert_id, encode_alert, encode_dead_letter, encode_scores

_BLOCK_BYTES = 65_536  # looked at at once when searching for the last whole line


class FileSink:
    """The `Sink` over a local file."""

    guarantee = "at least once: on disk before the checkpoint; alerts found there after a restart are not repeated"

    def __init__(self, name: str, settings: FileSinkSettings) -> None:
        self.name = name
        self._path: Path = settings.path
        self._file: int | None = None
        self._size = 0
        """Bytes of whole lines."""
        self._writing = asyncio.Lock()

    async def start(self) -> None:
        """Open or create the file, and cut off a torn last line.

        Raises:
            SinkError: It cannot be written, or somebody else writes to it.
        """
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._size = _end_of_whole_lines(self._file)
            os.ftruncate(self._file, self._size)
            _sync_folder(self._path.parent)
        except BlockingIOError as error:
            self._close()
            raise SinkError(self._path, "another process, or another sink, writes to this file") from error
        except OSError as error:
            self._close()
            raise SinkError(self._path, "cannot be written", got=error.strerror or error) from error

    async def deliver_alerts(self, shard: Shard, alerts: Sequence[Alert]) -> None:
        """Append a line for each alert."""
        await self._append([encode_alert(alert) for alert in alerts])

    async def deliver_scores(self, shard: Shard, scores: Sequence[Scores]) -> None:
        """Append a line for each score."""
        await self._append([line for each in scores for line in encode_scores(shard, each)])

    async def deliver_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Append a line for each dead letter."""
        await self._append([encode_dead_letter(letter) for letter in letters])

    async def _append(self, lines: list[bytes]) -> None:
        async with self._writing:
            await asyncio.to_thread(self._write, b"".join(line + b"\n" for line in lines))

    def _write(self, data: bytes) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor(), rest) :]
        except OSError as error:
            with suppress(OSError):  # else the next start cuts off the half delivery
                os.ftruncate(self._descriptor(), self._size)
            raise SinkError(self._path, "cannot be written", got=error.strerror or error) from error
        self._size += len(data)

    async def flush(self) -> None:
        """Return when every line is on the disk."""
        async with self._writing:
            await asyncio.to_thread(self._sync)

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor())
        except OSError as error:
            raise SinkError(self._path, "cannot be made durable", got=error.strerror or error) from error

    async def alert_mark(self, shard: Shard) -> int:
        """The end of the file."""
        return self._size

    async def alert_tail(self, shard: Shard, mark: int) -> Tail:
        """Ids of the shard's alerts from byte `mark` on; from the beginning if the file is shorter than that."""
        ids = await asyncio.to_thread(lambda: frozenset(self._ids(shard, mark if mark <= self._size else 0)))
        return Tail(ids, self._size)

    def _ids(self, shard: Shard, mark: int) -> Iterator[str]:
        with self._path.open("rb") as lines:
            lines.seek(mark)
            yield from (found for line in lines if (found := alert_id(line, shard)) is not None)

    async def stop(self) -> None:
        """Sync and close."""
        if self._file is not None:
            try:
                await self.flush()
            finally:
                self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _descriptor(self) -> int:
        if self._file is None:
            raise SinkError(self._path, "is not open", expected="start() before")
        return self._file


def _end_of_whole_lines(file: int) -> int:
    """One past the last line break."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        last = os.pread(file, end - start, start).rfind(b"\n")
        if last >= 0:
            return start + last + 1
        end = start
    return 0


def _sync_folder(folder: Path) -> None:
    """Without this a power cut may take away the file's name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
