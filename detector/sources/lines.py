"""A text file as lines with their byte offsets, also while it grows and is rotated.

    position = generation << 40 | byte offset of the line's start

`read_lines` blocks on the disk: call it in a thread. A line that has no end yet is not handed over; at the end of a
finite file, and of one that was rotated away, what is left counts as a line. A file that was renamed or truncated under
us is first read to its end; then the generation rises and the file that now has the name is read from its start.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from detector.errors import SourceError
from detector.records import Int64

GENERATION_BIT = 40  # offsets below 1 TiB, 8 million generations
_OFFSET_MASK = (1 << GENERATION_BIT) - 1
_CHUNK_BYTES = 1 << 20
ANCHOR_BYTES = 4096


@dataclass(slots=True)
class Lines:
    """Some whole lines, without their ends."""

    lines: list[bytes]
    positions: Int64
    next_position: int


class LineFile:
    """Reads one path from front to back, over all its generations."""

    def __init__(self, path: Path, *, follow: bool, max_line_bytes: int) -> None:
        """Open it.

        Args:
            path: The file.
            follow: Wait for more at its end, and follow rotation; else its end is the end.
            max_line_bytes: Longer lines are cut to one byte more than that, so that whoever decodes can tell.

        Raises:
            SourceError: It cannot be read.
        """
        self.path, self._follow, self._keep_bytes = path, follow, max_line_bytes + 1
        self.generation = 0
        self._is_placed = False
        self.is_finished = False
        self._file: BinaryIO = _open(path)
        self._forget(0)

    def _forget(self, offset: int) -> None:
        """Stand at the start of the line at `offset`, with nothing read."""
        self._ready: list[bytes] = []
        self._starts: Int64 = np.empty(0, np.int64)
        self._end = offset  # of the lines that are ready
        self._rest, self._rest_bytes = b"", 0  # the line after them, as far as it is there; kept in part if too long
        self.is_finished = False

    def seek(self, position: int) -> None:
        """Go on at a position that was handed out; the file at hand is taken for its generation."""
        self._is_placed = True
        self.generation, offset = position >> GENERATION_BIT, position & _OFFSET_MASK
        self._file.seek(offset)
        self._forget(offset)

    def start(self, near: int) -> int:
        """The first position of the generation that `near` is in."""
        return near >> GENERATION_BIT << GENERATION_BIT

    def end(self, near: int) -> int:
        """The position after all that stands in the file now, which is taken for the generation of `near`."""
        return self.start(near) | os.fstat(self._file.fileno()).st_size

    def head(self, size: int) -> bytes:
        """The first bytes of the current generation."""
        return os.pread(self._file.fileno(), size, 0)

    def anchor(self, position: int) -> str | None:
        """Checksum of the 4 KiB before a position; None where there are none, or in a generation that is gone.

        Until the first `seek` the generation is unknown, and the file at hand is taken for the position's.
        """
        if self._is_placed and position >> GENERATION_BIT != self.generation:
            return None
        offset = position & _OFFSET_MASK
        start = max(0, offset - ANCHOR_BYTES)
        data = os.pread(self._file.fileno(), offset - start, start)
        if not data or len(data) < offset - start:
            return None
        return f"crc32:{zlib.crc32(data):08x}"

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def read_lines(self, limit: int) -> Lines | None:
        """The next lines, at most `limit`; None where there are none (yet)."""
        if not self._ready and not self._fill():
            return None
        lines, self._ready = self._ready[:limit], self._ready[limit:]
        starts, self._starts = self._starts[: len(lines)], self._starts[len(lines) :]
        next_offset = int(self._starts[0]) if len(self._starts) else self._end
        return Lines(lines, self._position(0) + starts, self._position(next_offset))

    def _position(self, offset: int) -> int:
        return self.generation << GENERATION_BIT | offset

    def _fill(self) -> bool:
        """Read until there are whole lines, or no more bytes; says whether there are lines."""
        while chunk := self._file.read(_CHUNK_BYTES):
            self._split(chunk)
            if self._ready:
                return True
        return self._at_end()

    def _split(self, chunk: bytes) -> None:
        parts = chunk.split(b"\n")
        sizes = [len(part) + 1 for part in parts]
        sizes[0] += self._rest_bytes
        parts[0] = self._rest + parts[0]
        rest, self._rest_bytes = parts.pop(), sizes.pop() - 1
        self._rest = rest[: self._keep_bytes]
        if parts:
            self._make_ready(parts, sizes)

    def _make_ready(self, parts: Sequence[bytes], sizes: Sequence[int]) -> None:
        ends = self._end + np.cumsum(np.array(sizes, np.int64))
        self._starts = np.concatenate([[self._end], ends[:-1]]).astype(np.int64)
        self._ready = [part.removesuffix(b"\r")[: self._keep_bytes] for part in parts]
        self._end = int(ends[-1])

    def _at_end(self) -> bool:
        if self._follow and not self._is_rotated():
            return False
        if self._follow and (late := self._file.read(_CHUNK_BYTES)):  # written before the rename
            self._split(late)
            return bool(self._ready)
        if self._rest_bytes:  # a last line without an end: nobody will write it
            self._make_ready([self._rest], [self._rest_bytes])
            self._rest, self._rest_bytes = b"", 0
            return True
        if self._follow:
            self._next_generation()
            return self._fill()
        self.is_finished = True
        return False

    def _is_rotated(self) -> bool:
        ours = os.fstat(self._file.fileno())
        if ours.st_size < self._file.tell():
            return True  # truncated in place
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False  # renamed, and the next one is not there yet
        return (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino)

    def _next_generation(self) -> None:
        following = _open(self.path)
        self._file.close()
        self._file, self.generation = following, self.generation + 1
        self._forget(0)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise SourceError(path, "cannot be read", got=error.strerror or error) from error
