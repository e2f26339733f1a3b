"""Writes that are under way: what a disk was told to do it does, whether or not the process that told it still lives.

A crash in a test is a cancellation, and a thread that writes or deletes goes on: without this its file would appear or
vanish some time later, under the eyes of whoever looks at what the crash has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Underway:
    """The writes, claims and deletions of one store."""

    def __init__(self) -> None:
        self._writes: set[asyncio.Task[Any]] = set()

    async def carry_out(self, write: Coroutine[Any, Any, T]) -> T:
        """Write; the write is carried out even if the caller is cancelled meanwhile."""
        task = asyncio.create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)

    async def settled(self) -> None:
        """Wait until nothing is being written: after a crash, that is what a later reader finds."""
        await asyncio.gather(*self._writes, return_exceptions=True)
