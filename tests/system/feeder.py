"""Appends a Kafka site's feeds at a steady pace until told to stop, so that records come in at every kill."""

from __future__ import annotations

import asyncio
import time

from aiokafka import AIOKafkaProducer

from tests.system.feed import CALM
from tests.system.site import KafkaSite


class Feeder:
    """`async with`: the records before the first fault at once, the others at `per_s`, until `finish`."""

    def __init__(self, site: KafkaSite, per_s: float) -> None:
        self._site, self._per_s = site, per_s
        self._producer = AIOKafkaProducer(
            bootstrap_servers=site.address,
            enable_idempotence=True,  # the broker may go away, and what came twice would be no record of the feed
            request_timeout_ms=300_000,
            linger_ms=5,
        )
        self._pending: list[asyncio.Future[object]] = []
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    async def __aenter__(self) -> Feeder:
        await self._producer.start()
        for source, feed in self._site.feeds.items():
            await self._append(source, feed.take_ticks(CALM))
        self._task = asyncio.create_task(self._go_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()
        await self._producer.stop()

    async def finish(self) -> None:
        """Append no more, and wait until all of it is acknowledged."""
        await self._end()
        await asyncio.gather(*self._pending)

    async def _end(self) -> None:
        self._is_over = True
        if self._task is not None:
            await self._task

    async def _go_on(self) -> None:
        started_s, done = time.monotonic(), 0
        while not self._is_over:
            due = int((time.monotonic() - started_s) * self._per_s) - done
            for source, feed in self._site.feeds.items():
                await self._append(source, feed.take(due))
            done += due
            await asyncio.sleep(0.02)

    async def _append(self, source: str, records: list[tuple[int, bytes]]) -> None:
        topic = self._site.topics[source]
        sent = [await self._producer.send(topic, value, partition=partition) for partition, value in records]
        self._pending = [each for each in self._pending if not each.done()] + sent
