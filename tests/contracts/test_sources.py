"""What every source promises (detector/sources/base.py), on real files and on a real Kafka broker."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detector.clock import SystemClock
from detector.errors import SourceError
from detector.records import Records, Shard
from detector.settings import FileSourceSettings, KafkaSourceSettings, RecordSettings, SourceSettings
from detector.sources import make_source
from detector.sources.base import Source
from detector.stages.decode import Decoder
from tests.kafka import topics

Row = tuple[str, float, float | None, float]
ROWS: list[Row] = [
    (f"pump{i % 3}", 1_700_000_000.0 + i * 0.5, None if i % 7 == 3 else i / 8, -1e-3 * i) for i in range(90)
]
"""Stream, time, two channels, of which the first is missing now and then."""


@dataclass
class Rig:
    """A source on something real, which the test may write to."""

    settings: SourceSettings
    name: str = "plant"
    is_live: bool = False
    opened: list[Source] = field(default_factory=list)

    async def append(self, rows: Sequence[Row]) -> None:
        raise AssertionError("only where is_live")

    async def replace(self) -> None:
        """Put something else, of the same size, where the records were."""
        raise AssertionError

    async def source(self) -> Source:
        """A source that was just started."""
        source = make_source(self.name, self.settings, SystemClock())
        self.opened.append(source)
        await source.start()
        return source


def as_json(row: Row) -> bytes:
    stream, time, a, b = row
    return json.dumps({"stream": stream, "time": time, "values": {"a": a, "b": b}}).encode()


class JsonLines(Rig):
    """A growing JSON Lines file."""

    path: Path

    async def append(self, rows: Sequence[Row]) -> None:
        with self.path.open("ab") as file:
            file.writelines(as_json(row) + b"\n" for row in rows)

    async def replace(self) -> None:
        self.path.write_bytes(self.path.read_bytes().replace(b"pump", b"fans"))


class Csv(JsonLines):
    """A growing CSV file."""

    async def append(self, rows: Sequence[Row]) -> None:
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows([("stream", "time", "a", "b")] * is_new + [*rows])


class Parquet(JsonLines):
    """A Parquet file of several row groups."""

    async def append(self, rows: Sequence[Row]) -> None:
        columns = dict(zip(("stream", "time", "a", "b"), zip(*rows, strict=True), strict=True))
        pq.write_table(pa.table(columns), self.path, row_group_size=20)

    async def replace(self) -> None:
        await self.append([(stream, time, a, b + 1) for stream, time, a, b in ROWS])


class Kafka(Rig):
    """A topic of one partition."""

    address: str

    async def append(self, rows: Sequence[Row]) -> None:
        await topics.produce(self.address, self.settings.topics[0], [as_json(row) for row in rows])

    async def replace(self) -> None:
        topic = self.settings.topics[0]
        await topics.delete_topic(self.address, topic)
        await topics.create_topic(self.address, name=topic)
        await topics.produce(self.address, topic, [as_json(row).replace(b"pump", b"fans") for row in ROWS])


FILES = {"jsonl": JsonLines, "csv": Csv, "parquet": Parquet}
KINDS = [*FILES, *(pytest.param(kind, marks=pytest.mark.system) for kind in ("kafka static", "kafka group"))]


@asynccontextmanager
async def build(kind: str, folder: Path, address: str | None) -> AsyncIterator[Rig]:
    if address is None:
        mode = "replay" if kind == "parquet" else "tail"
        rig: Rig = FILES[kind](FileSourceSettings(type="file", paths=[f"{folder}/plant.{kind}"], mode=mode))
        rig.path = folder / f"plant.{kind}"
        rig.is_live = mode == "tail"
    else:
        partitions = "0" if kind == "kafka static" else None
        topic = await topics.create_topic(address)
        rig = Kafka(
            KafkaSourceSettings(
                type="kafka",
                bootstrap_servers=address,
                topics=[topic],
                group=topic,
                partitions=partitions,
                poll_records=40,
            ),
            is_live=True,
        )
        rig.address = address
    await rig.append(ROWS)
    try:
        yield rig
    finally:
        for source in rig.opened:
            await source.stop()


@pytest.fixture(params=KINDS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """Each kind of source in turn, with ROWS in it."""
    address = request.getfixturevalue("kafka") if request.param.startswith("kafka") else None
    async with build(request.param, tmp_path, address) as made:
        yield made


async def first_shard(source: Source) -> Shard:
    """The one shard, as soon as it is assigned."""
    async with asyncio.timeout(60):
        while True:
            if gained := await source.assigned():
                (shard,) = gained
                return shard
            assert await source.poll(0.05) == []


async def take(source: Source, count: int) -> list[Records]:
    """Polls until `count` records came."""
    found: list[Records] = []
    async with asyncio.timeout(60):
        while sum(map(len, found)) < count:
            batches = await source.poll(0.2)
            assert len({records.shard for records in batches}) == len(batches), "one batch per shard and poll"
            found += batches
    return found


def rows_of(batches: Sequence[Records]) -> list[tuple[str, int, str]]:
    """What the records say, by the one decoder: stream, time in ns, cells."""
    rows = []
    for records in batches:
        samples, rejects = Decoder(RecordSettings()).decode(records)
        assert rejects == []
        assert samples.shapes == [("a", "b")]
        rows += zip(samples.streams, samples.event_ns.tolist(), map(str, samples.cells[0].tolist()), strict=True)
    return rows


def expected(rows: Sequence[Row]) -> list[tuple[str, int, str]]:
    return [(s, round(t * 2) * 500_000_000, str([float("nan") if a is None else a, b])) for s, t, a, b in rows]


async def test_a_gained_shard_is_silent_until_it_is_resumed(rig: Rig) -> None:
    """Nobody hands over records of a shard whose memory is not restored yet."""
    source = await rig.source()
    shard = await first_shard(source)
    assert await source.poll(0.3) == []
    await source.resume(shard, (await source.bounds(shard)).low)
    assert await take(source, 1)


async def test_everything_comes_once_and_in_order(rig: Rig) -> None:
    """From the low bound on all records come; positions rise strictly up to the high bound; all kinds read alike."""
    source = await rig.source()
    shard = await first_shard(source)
    bounds = await source.bounds(shard)
    await source.resume(shard, bounds.low)
    found = await take(source, len(ROWS))
    assert rows_of(found) == expected(ROWS)
    positions = [position for records in found for position in records.positions.tolist()]
    assert positions == sorted(set(positions))
    assert all(records.positions[-1] < records.next_position for records in found)
    assert found[-1].next_position == bounds.high
    assert {len(records.keys) == len(records.append_ns) == len(records) for records in found} == {True}


async def test_any_position_is_a_place_to_go_on(rig: Rig) -> None:
    """A new source that resumes at a record's position, or at a next position, goes on there exactly."""
    source = await rig.source()
    shard = await first_shard(source)
    await source.resume(shard, (await source.bounds(shard)).low)
    whole = await take(source, len(ROWS))
    await source.stop()
    positions = [position for records in whole for position in records.positions.tolist()]
    for place in (1, 37, len(ROWS) - 1):
        again = await rig.source()
        assert await first_shard(again) == shard
        await again.resume(shard, positions[place])
        assert rows_of(await take(again, len(ROWS) - place)) == expected(ROWS[place:])
        await again.resume(shard, positions[place])  # also in the midst of it
        assert rows_of(await take(again, len(ROWS) - place)) == expected(ROWS[place:])
        await again.stop()


async def test_after_the_high_bound_only_what_is_new_comes(rig: Rig) -> None:
    """`latest` begins behind all that stands there; a finite source is exhausted there instead."""
    source = await rig.source()
    shard = await first_shard(source)
    await source.resume(shard, (await source.bounds(shard)).high)
    assert await source.poll(0.2) == []
    assert source.exhausted is not rig.is_live
    if rig.is_live:
        await rig.append(ROWS[:2])
        assert rows_of(await take(source, 2)) == expected(ROWS[:2])


async def test_an_anchor_tells_whether_the_log_is_the_same(rig: Rig) -> None:
    """The same log gives the same anchor, remembered or read again; another log another one; nothing gives None."""
    source = await rig.source()
    shard = await first_shard(source)
    bounds = await source.bounds(shard)
    if rig.settings.type != "file" or rig.is_live:
        assert await source.anchor(shard, bounds.low) is None
    await source.resume(shard, bounds.low)
    position = (await take(source, len(ROWS)))[0].next_position
    anchor = await source.anchor(shard, position)
    assert anchor
    await source.stop()
    again = await rig.source()
    shard = await first_shard(again)
    assert await again.anchor(shard, position) == anchor
    await again.stop()
    await rig.replace()
    other = await rig.source()
    assert await other.anchor(await first_shard(other), position) not in (anchor, None)


async def test_it_says_how_many_partitions_its_topic_has(rig: Rig) -> None:
    """And that a file has none; of a topic that has grown, the new number after the next start."""
    source = await rig.source()
    assert await source.partitions(await first_shard(source)) == (1 if isinstance(rig, Kafka) else None)
    await source.stop()
    if isinstance(rig, Kafka) and rig.settings.partitions is not None:
        await topics.add_partitions(rig.address, rig.settings.topics[0], 3)
        again = await rig.source()
        assert await again.partitions(await first_shard(again)) == 3


async def test_a_poll_without_records_ends(rig: Rig) -> None:
    """An idle poll takes about its timeout and gives nothing."""
    source = await rig.source()
    shard = await first_shard(source)
    await source.resume(shard, (await source.bounds(shard)).high)
    async with asyncio.timeout(30):
        for _ in range(5):
            assert await source.poll(0.05) == []


async def test_a_commit_never_raises(rig: Rig) -> None:
    """Neither for what we own nor for what we do not."""
    source = await rig.source()
    shard = await first_shard(source)
    bounds = await source.bounds(shard)
    await source.resume(shard, bounds.low)
    await source.commit({shard: bounds.high, Shard("elsewhere", "other", 3): 5})
    await source.commit({})


async def test_stopping_is_safe_at_any_time(rig: Rig) -> None:
    """Twice, after a poll that was left behind, and before a start."""
    source = await rig.source()
    await source.poll(0.01)
    await source.stop()
    await source.stop()
    await make_source("plant", rig.settings, SystemClock()).stop()


async def test_a_source_that_is_not_there_is_an_error(rig: Rig) -> None:
    """A missing file or topic is named at the start, and the source can be stopped after that."""
    change = {"paths": ["nowhere/*.csv"]} if rig.settings.type == "file" else {"topics": ["nowhere"]}
    source = make_source("plant", rig.settings.model_copy(update=change), SystemClock())
    with pytest.raises(SourceError, match="nowhere"):
        await source.start()
    await source.stop()
