"""One fetch at a time, in a task that outlives a poll which it has no answer for.

To cancel it would leak the client's count of fetches (T4), and during a rebalance it waits longer than it was told to.
So it may be done long before anybody looks at it, and hold records that nobody wants any more: those of partitions that
were taken away meanwhile, or are to be read from elsewhere. Whoever has them then reads them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias

from aiokafka import TopicPartition

from detector.sources.kafka.records import Batch

Found: TypeAlias = Mapping[TopicPartition, Batch]

_GRACE_S = 0.05  # a fetch that ends with its timeout is not to be left for the next poll


class Fetch:
    """The fetch of a source.

    Args:
        get: Asks the client for records, for so many seconds.
        name: Of its tasks.
    """

    def __init__(self, get: Callable[[float], Coroutine[Any, Any, Found]], name: str) -> None:
        self._get, self._name = get, name
        self._task: asyncio.Task[Found] | None = None
        self._stale: set[TopicPartition] = set()
        """Partitions of which a fetch that is done holds records from before they were sent elsewhere."""

    @property
    def is_done(self) -> bool:
        """Whether there is something that nobody has looked at yet."""
        return self._task is not None and self._task.done()

    async def wait(self, timeout_s: float) -> bool:
        """Begin one unless one is under way, and wait for it; says whether there is something to take."""
        if self._task is None:
            self._task = asyncio.create_task(self._get(timeout_s), name=self._name)
        task = self._task
        await asyncio.wait({task}, timeout=timeout_s + _GRACE_S)
        return task.done() and self._task is task

    def take(self) -> Found:
        """What it found that is still wanted; raises what the client raised."""
        task, stale = self._task, self._stale
        assert task is not None, "wait first"
        self._task, self._stale = None, set()
        return {partition: batch for partition, batch in task.result().items() if partition not in stale}

    def moved(self, partition: TopicPartition) -> None:
        """The partition is to be read from elsewhere; one that is under way knows that already."""
        if self.is_done:
            self._stale.add(partition)

    def drop(self) -> None:
        """Its partitions are being taken away."""
        if self._task is not None and self._task.done():
            _look_at(self._task)
            self._task, self._stale = None, set()

    async def settle(self, within_s: float) -> None:
        """Wait until it ends by itself, which takes its poll's timeout."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=within_s)

    async def end(self) -> None:
        """Cancel it: for when the client that this would confuse is gone."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            _look_at(task)


def _look_at(task: asyncio.Task[Found]) -> None:
    """Look at a finished task's exception, so that asyncio does not complain that nobody did."""
    if not task.cancelled():
        task.exception()
