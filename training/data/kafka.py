"""History from Kafka: what topics hold, read by the daemon's own client and decoded as the daemon decodes it.

Bounded: each partition is read to where it ended when reading began. Without a group, and nothing is committed, so that
no daemon notices. Narrow records are joined to samples by the daemon's own join, partition by partition.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any

import numpy as np

from detector.errors import InputError, SourceError
from detector.kafka.client import describe_cluster, log_bounds, offsets_at, read_span, topic_partition
from detector.records import Float64, Int64, Reason, Records, Reject, Samples, Shard
from detector.scoring.narrow import LongRows, join_rows
from detector.settings import KafkaSourceSettings
from detector.sources.kafka import as_records
from detector.sources.kafka.partitions import fixed_partitions
from detector.stages.decode import Decoder, screen
from training.data.gather import Gathered
from training.data.series import Watch
from training.settings import KafkaData
from training.settings.sources import span_of

_WHERE = "data.kafka"
_ROWS = 200_000  # samples decoded before they are told apart by stream


def read_kafka(
    settings: KafkaData,
    channels: Sequence[str] | None,
    gathered: Gathered,
    rejects: Counter[str],
    now: datetime,
    watch: Watch = iter,
) -> None:
    """Read the topics' history, and gather its samples.

    Args:
        settings: Which broker, topics and span.
        channels: Those wanted, in order; None takes those of a stream's first sample.
        gathered: Takes the samples.
        rejects: Counts what could not be decoded, by reason.
        now: The end of a span that names none.
        watch: Shows progress over the partitions.

    Raises:
        ConfigurationError: the broker does not trust us, or we it.
        SourceError: no broker answers, or a topic or partition is not there.
        InputError: there is no record in the span, or none can be decoded.
    """
    asyncio.run(_read(settings, _Decoded(settings, channels, gathered, rejects), now, watch))


async def _read(settings: KafkaData, decoded: _Decoded, now: datetime, watch: Watch) -> None:
    source = settings.source()
    topics = (await describe_cluster(source, _WHERE, SourceError)).topics
    numbers = fixed_partitions(source, topics, _WHERE) or {topic: range(topics[topic]) for topic in settings.topics}
    partitions = [topic_partition(topic, number) for topic in numbers for number in numbers[topic]]
    bounds = await log_bounds(source, partitions, _WHERE, SourceError)
    for partition in watch(partitions):
        start, end = await _span(settings, source, partition, bounds[partition], now)
        async with aclosing(read_span(source, partition, start, end, _WHERE, SourceError)) as batches:
            async for batch in batches:
                if batch:
                    decoded.take(as_records(Shard("", partition.topic, partition.partition), batch))
        decoded.flush()
    decoded.check(f"{sum(high - low for low, high in bounds.values()):,} offsets in {len(partitions)} partitions")


async def _span(
    settings: KafkaData, source: KafkaSourceSettings, partition: Any, bounds: tuple[int, int], now: datetime
) -> tuple[int, int]:
    """Offsets from and to which a partition is read."""
    if settings.last is None and settings.start is None and settings.end is None:
        return bounds
    times_ms = [int(at.timestamp() * 1000) for at in span_of(settings.start, settings.end, settings.last, now)]
    low, high = bounds
    start, end = (
        high if offset is None else offset
        for offset in await offsets_at(source, partition, times_ms, _WHERE, SourceError)
    )
    return max(low, start), min(high, end)


class _Decoded:
    """Records become samples, and samples rows of their streams."""

    def __init__(
        self, settings: KafkaData, channels: Sequence[str] | None, gathered: Gathered, rejects: Counter[str]
    ) -> None:
        self._settings, self._gathered, self._rejects = settings, gathered, rejects
        self._decoder = Decoder(settings.record)
        self._declared = None if channels is None else tuple(channels)
        self._channels: dict[str, tuple[str, ...]] = {}
        """Of each stream."""
        self._read, self._first_fault = 0, ""
        self._clear()

    def _clear(self) -> None:
        self._streams: list[str] = []
        self._event_ns: list[Int64] = []
        self._shape_of: list[Int64] = []
        self._shapes: dict[tuple[str, ...], int] = {}
        self._cells: dict[int, list[Float64]] = defaultdict(list)
        self._narrow: list[str] = []

    def take(self, records: Records) -> None:
        """Decode a batch."""
        samples, broken = self._decoder.decode(records)
        samples, strange = screen(samples, self._settings.record.future_s)
        self._read += len(records)
        for reject in (*broken, *strange):
            self._refuse(reject, records)
        self._streams += samples.streams
        self._event_ns.append(samples.event_ns)
        self._keep_cells(samples)
        if len(self._streams) >= _ROWS and samples.channel_of is None:
            self.flush()

    def _refuse(self, reject: Reject, records: Records) -> None:
        self._rejects[reject.reason.label] += 1
        if not self._first_fault:
            detail = f": {reject.detail}" if reject.detail else ""
            self._first_fault = f"{reject.reason.label} at {records.shard}, offset {reject.position}{detail}"

    def _keep_cells(self, samples: Samples) -> None:
        if samples.channel_of is not None:
            names = samples.shapes[0]
            self._narrow += [names[channel] for channel in samples.channel_of.tolist()]
            self._cells[0].append(samples.cells[0])
            return
        numbers = [self._shapes.setdefault(names, len(self._shapes)) for names in samples.shapes]
        self._shape_of.append(np.array(numbers, np.int64)[samples.shape_of])
        for number, cells in zip(numbers, samples.cells, strict=True):
            self._cells[number].append(cells)

    def flush(self) -> None:
        """Hand over what was decoded; the end of a partition, for samples that wait for more of their channels."""
        if self._streams:
            event_ns = np.concatenate(self._event_ns)
            cells = {number: np.concatenate(parts) for number, parts in self._cells.items()}
            if self._narrow:
                self._flush_narrow(event_ns, cells[0][:, 0])
            else:
                self._flush_wide(event_ns, cells)
        self._clear()

    def _flush_wide(self, event_ns: Int64, cells: dict[int, Float64]) -> None:
        shapes, shape_of = list(self._shapes), np.concatenate(self._shape_of)
        row_of = np.empty(len(shape_of), np.int64)  # within the cells of its shape
        for number in cells:
            row_of[shape_of == number] = np.arange(len(cells[number]))
        for stream, rows in _by_stream(self._streams):
            channels = self._channels.setdefault(stream, self._declared or shapes[shape_of[rows[0]]])
            values = np.full((len(rows), len(channels)), np.nan)
            for number in np.unique(shape_of[rows]).tolist():
                of_shape, names = shape_of[rows] == number, shapes[number]
                for column, name in enumerate(channels):
                    if name in names:
                        values[of_shape, column] = cells[number][row_of[rows[of_shape]], names.index(name)]
            self._gathered.add(stream, channels, event_ns[rows], values)

    def _flush_narrow(self, event_ns: Int64, value: Float64) -> None:
        names, stream = np.unique(np.array(self._streams, object), return_inverse=True)
        joined = join_rows(LongRows(stream, event_ns, self._narrow, value, {}), self._declared)
        self._rejects.update({reason.label: count for reason, count in joined.refused.items()})
        for number, rows in _by_stream(joined.stream):
            values, channels = joined.values[rows], joined.channels
            if self._declared is None:
                seen = ~np.isnan(values).all(axis=0)
                values, channels = values[:, seen], tuple(np.array(channels, object)[seen])
            self._gathered.add(names[number], channels, joined.event_ns[rows], values)

    def check(self, there: str) -> None:
        """See that something came of it."""
        topics = ", ".join(self._settings.topics)
        if not self._read:
            expected, hint = "records in the span that is asked for", "a longer `last`, or an earlier `start`"
            raise InputError(f"{_WHERE}: topic {topics}", "nothing to read", expected=expected, got=there, hint=hint)
        undecodable = {reason.label for reason in Reason if reason.is_dead_letter}
        if sum(self._rejects[label] for label in undecodable) >= self._read and self._first_fault:
            raise InputError(
                f"{_WHERE}: topic {topics}",
                f"none of {self._read:,} records can be read",
                expected="records as data.kafka.record says",
                got=self._first_fault,
                hint="take the section `record` from the daemon's configuration",
            )


def _by_stream(streams: Any) -> list[tuple[Any, Int64]]:
    """Each stream with its rows, in their order."""
    keys, of = np.unique(np.array(streams, object), return_inverse=True)
    order = np.argsort(of, kind="stable")
    return list(zip(keys, np.split(order, np.cumsum(np.bincount(of))[:-1]), strict=True))
