"""Computes a range of the log again, from a checkpoint, with the engine that serves; commits nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from detector.engine import Engine
from detector.errors import SourceError
from detector.kafka.client import read_span, topic_partition
from detector.records import Outcome, Records, Shard
from detector.settings import KafkaSourceSettings
from detector.sources.kafka import as_records
from detector.verification.compare import Expected

Progress = Callable[[int], None]
"""Told up to which offset the replay has come."""


async def replay(
    engine: Engine,
    settings: KafkaSourceSettings,
    shard: Shard,
    *,
    position: int,
    span: tuple[int, int],
    progress: Progress = lambda _: None,
) -> Expected:
    """Carry an engine from its checkpoint's position through the range, and keep what the range gives.

    Results never depend on where polls begin, so that cutting one at the start of the range changes nothing.
    """
    start, end = span
    expected = Expected()
    async for _ in _outcomes(engine, settings, shard, position, start, progress):
        pass  # the way to the range: only the memory counts
    async for outcome in _outcomes(engine, settings, shard, start, end, progress):
        for scores in outcome.scores:
            expected.add_scores(shard, scores)
        for alert in outcome.alerts:
            expected.add_alert(alert)
    return expected


async def _outcomes(
    engine: Engine, settings: KafkaSourceSettings, shard: Shard, start: int, end: int, progress: Progress
) -> AsyncGenerator[Outcome, None]:
    if start >= end:
        return
    async with aclosing(_log(settings, shard, start, end)) as polls:
        async for records in polls:
            yield await asyncio.to_thread(engine.advance, records)
            progress(records.next_position)


async def _log(settings: KafkaSourceSettings, shard: Shard, start: int, end: int) -> AsyncGenerator[Records, None]:
    """Records of [start, end), read without a group."""
    partition = topic_partition(shard.topic, shard.partition)
    async with aclosing(read_span(settings, partition, start, end, "verify", SourceError)) as batches:
        async for batch in batches:
            if batch:
                yield as_records(shard, batch)
