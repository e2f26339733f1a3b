"""What stands on an output: each record with its place, read without a trace.

Only a stretch of a topic of scores is read. Whoever makes a checkpoint has every score below its position
acknowledged, and a daemon runs ahead of its last checkpoint by minutes at most (`replay_bound_s`): so what belongs
to a range lies between the times of the checkpoint before it and of the one that closed it, and a good margin.
Alerts are few: from the checkpoint's mark on all of them are read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from detector.checkpoint.format import Manifest
from detector.errors import CannotVerifyError, SinkError
from detector.kafka.client import describe_cluster, log_bounds, offsets_at, read_span, topic_partition
from detector.records import Shard
from detector.settings import FileSinkSettings, KafkaSinkSettings, SinkSettings
from detector.verification.compare import Kind

_MARGIN = timedelta(hours=1)  # replay_bound_s is minutes; also covers clocks that are a little apart


@dataclass(frozen=True, slots=True)
class Output:
    """A sink whose records can be read back."""

    kind: Kind
    name: str
    settings: KafkaSinkSettings | FileSinkSettings

    def __str__(self) -> str:
        place = f"topic {self.settings.topic}" if isinstance(self.settings, KafkaSinkSettings) else self.settings.path
        return f"{self.kind} sink {self.name!r} ({place})"


def readable(kind: Kind, name: str, settings: SinkSettings) -> Output | None:
    """The output, or None where nobody can read it back."""
    return Output(kind, name, settings) if isinstance(settings, KafkaSinkSettings | FileSinkSettings) else None


async def read(
    output: Output, shard: Shard, before: Manifest, after: Manifest
) -> AsyncGenerator[tuple[bytes | None, str], None]:
    """Every record that may belong to the range between two checkpoints, with its place in words.

    Raises:
        CannotVerifyError: The output is not there.
    """
    if isinstance(output.settings, FileSinkSettings):
        for line in _lines(output.settings.path):
            yield line
        return
    async with aclosing(_records(output, output.settings, shard, before, after)) as records:
        async for record in records:
            yield record


def _lines(path: Path) -> Iterator[tuple[bytes, str]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):  # else it is still being written
                    yield line[:-1], f"line {number}"
    except OSError as error:
        raise CannotVerifyError(path, "cannot be read", got=error.strerror or error) from error


async def _records(
    output: Output, settings: KafkaSinkSettings, shard: Shard, before: Manifest, after: Manifest
) -> AsyncGenerator[tuple[bytes | None, str], None]:
    where = str(output)
    topics = (await describe_cluster(settings, where, SinkError)).topics
    if settings.topic not in topics:
        raise CannotVerifyError(where, f"topic {settings.topic!r} is not there")
    partition = topic_partition(settings.topic, shard.partition % topics[settings.topic])
    low, high = (await log_bounds(settings, [partition], where, SinkError))[partition]
    if output.kind == "scores":
        earliest_ms, latest_ms = window_ms(before, after)
        first, last = await offsets_at(settings, partition, [earliest_ms, latest_ms], where, SinkError)
        start, end = (high if first is None else first), (high if last is None else last)
    else:
        mark = before.alert_marks.get(output.name, low)
        start, end = mark if low <= mark <= high else low, high
    async with aclosing(read_span(settings, partition, start, end, where, SinkError)) as batches:
        async for batch in batches:
            for record in batch:
                yield record.value, f"partition {partition.partition} offset {record.offset}"


def window_ms(before: Manifest, after: Manifest) -> tuple[int, int]:
    """From when to when scores of the range were sent, in Unix milliseconds."""
    earliest = datetime.fromisoformat(before.created) - _MARGIN
    latest = datetime.fromisoformat(after.created) + _MARGIN
    return max(0, round(earliest.timestamp() * 1000)), round(latest.timestamp() * 1000)
