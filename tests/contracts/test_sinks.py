"""What every sink promises (detector/sinks/base.py), on real files and on a real Kafka broker."""

from __future__ import annotations

import json
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from detector.errors import ConfigurationError, SinkError
from detector.records import Alert, ChannelReading, Reason, Scores, Shard, SourcePosition
from detector.settings import FileSinkSettings, KafkaSinkSettings, SinkSettings, StdoutSinkSettings
from detector.sinks import make_sink
from detector.sinks.base import DeadLetter, Sink
from tests.kafka import topics

SHARD = Shard("cluster", "plant", 5)
OTHER = Shard("cluster", "plant", 2)  # shares an output partition with SHARD where there are 3


def alert(number: int, shard: Shard = SHARD, stream: str = "pump-é") -> Alert:
    """An alert of which only the number and where it came from matter."""
    time = "2026-11-21T12:00:00.25Z"
    return Alert(
        id=f"id{number}",
        anomaly_id=f"anomaly{number}",
        sequence=0,
        event="open",
        status="firing",
        reason="threshold",
        stream=stream,
        labels={"site": "north"},
        detector="default",
        bundle="tiny@1",
        time=time,
        started_at=time,
        detected_at=time,
        ended_at=None,
        score=7.1,
        peak_score=7.1,
        threshold=5.0,
        channels=[ChannelReading(channel="flow", observed=None, expected=0.1, lower=-1e-7, upper=1e300, blame=1.0)],
        source=SourcePosition(cluster=shard.cluster, topic=shard.topic, partition=shard.partition, offset=number),
    )


def scores(count: int, *, detail: bool = False) -> Scores:
    """Scores of `count` samples of two channels."""
    numbers = np.arange(count)
    cells = np.stack([numbers / 3, np.full(count, np.nan)], axis=1) if detail else None
    return Scores(
        detector="default",
        channels=("flow", "heat"),
        index=numbers,
        streams=[f"pump{i % 3}" for i in range(count)],
        event_ns=1_700_000_000_123_456_789 + numbers * 1_000_000_000,
        positions=numbers * 2,
        score=(numbers / 10).astype(np.float32),
        threshold=np.full(count, 4.5, np.float32),
        anomaly=(numbers % 2).astype(np.uint8),
        expected=cells,
        lower=cells,
        upper=cells,
        blame=None if cells is None else cells.astype(np.float32),
    )


def letter(value: bytes | None = b"\xff broken", key: bytes | None = b"k\xfe") -> DeadLetter:
    """A record that was refused."""
    headers = [("trace", b"\x00\x01"), ("trace", b"again")]
    return DeadLetter(SHARD, 77, 1_700_000_000_000_000_000, Reason.MALFORMED, "détail", key, value, headers)


@dataclass
class Rig:
    """A sink on something real that can be read back."""

    settings: SinkSettings
    read: Callable[[], object]
    """All documents on the output, each a JSON text; awaited where it is Kafka's."""
    remembers: bool = True
    opened: list[Sink] = field(default_factory=list)

    async def sink(self) -> Sink:
        """A sink that was just started."""
        sink = make_sink("out", self.settings)
        self.opened.append(sink)
        await sink.start()
        return sink

    async def documents(self) -> list[dict]:
        """What the output says, parsed."""
        found = self.read()
        return [json.loads(line) for line in (found if isinstance(found, list) else await found)]


@asynccontextmanager
async def build(kind: str, folder: Path, address: str | None, printed: Callable[[], str]) -> AsyncIterator[Rig]:
    if kind == "file":
        path = folder / "out" / "alerts.jsonl"
        rig = Rig(FileSinkSettings(type="file", path=path), lambda: path.read_text().splitlines())
    elif kind == "stdout":
        lines: list[str] = []

        def read_printed() -> list[str]:
            lines.extend(printed().splitlines())
            return lines

        rig = Rig(StdoutSinkSettings(type="stdout"), read_printed, remembers=False)
    else:
        assert address is not None
        topic = await topics.create_topic(address, 3)

        async def read_topic() -> list[bytes]:
            return [record.value for record in (await topics.read_all(address, topic))[2]]

        rig = Rig(KafkaSinkSettings(type="kafka", bootstrap_servers=address, topic=topic), read_topic)
    try:
        yield rig
    finally:
        for sink in rig.opened:
            await sink.stop()


@pytest.fixture(params=["file", "stdout", pytest.param("kafka", marks=pytest.mark.system)])
async def rig(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Rig]:
    """Each kind of sink in turn, on an empty output."""
    address = request.getfixturevalue("kafka") if request.param == "kafka" else None
    async with build(request.param, tmp_path, address, lambda: capsys.readouterr().out) as made:
        yield made


async def test_what_was_flushed_is_there_in_order(rig: Rig) -> None:
    """After a flush every alert stands on the output, once, in the order of its delivery, with all its fields."""
    sink = await rig.sink()
    await sink.deliver_alerts(SHARD, [alert(0), alert(1)])
    await sink.deliver_alerts(SHARD, [alert(2)])
    await sink.flush()
    found = await rig.documents()
    assert [document["id"] for document in found] == ["id0", "id1", "id2"]
    assert found[0]["stream"] == "pump-é"
    assert found[0]["channels"][0]["upper"] == 1e300
    assert sink.guarantee.startswith("at ")


async def test_a_tail_holds_the_ids_behind_the_mark(rig: Rig) -> None:
    """After a restart exactly the shard's alerts behind the mark are found; a sink without memory finds none."""
    sink = await rig.sink()
    await sink.deliver_alerts(SHARD, [alert(0)])
    await sink.flush()
    mark = await sink.alert_mark(SHARD)
    await sink.deliver_alerts(SHARD, [alert(1), alert(2)])
    await sink.deliver_alerts(OTHER, [alert(9, OTHER)])
    await sink.flush()
    await sink.stop()
    again = await rig.sink()
    if not rig.remembers:
        assert mark is None
        assert (await again.alert_tail(SHARD, 0)).ids == frozenset()
        return
    tail = await again.alert_tail(SHARD, mark)
    assert tail.ids == {"id1", "id2"}
    assert (await again.alert_tail(SHARD, tail.mark)).ids == frozenset()
    assert (await again.alert_tail(OTHER, mark)).ids == {"id9"}
    assert (await again.alert_tail(SHARD, 0)).ids == {"id0", "id1", "id2"}
    assert (await again.alert_tail(SHARD, 10**9)).ids == {"id0", "id1", "id2"}, "an output that was made anew"


async def test_a_mark_lies_before_everything_delivered_after_it(rig: Rig) -> None:
    """A mark that is taken before any alert, or between delivery and flush, misses nothing that comes later."""
    sink = await rig.sink()
    if not rig.remembers:
        assert await sink.alert_mark(SHARD) is None
        return
    marks = [await sink.alert_mark(SHARD)]
    for number in range(3):
        await sink.deliver_alerts(SHARD, [alert(number)])
        marks.append(await sink.alert_mark(SHARD))
    await sink.flush()
    for number, mark in enumerate(marks):
        tail = await sink.alert_tail(SHARD, mark)
        assert tail.ids >= {f"id{later}" for later in range(number, 3)}
    assert marks == sorted(marks)


async def test_scores_say_which_sample_and_how_strange(rig: Rig) -> None:
    """A score carries its sample's source position, its time exactly, and its float32 without loss."""
    sink = await rig.sink()
    given = scores(7)
    await sink.deliver_scores(SHARD, [given, scores(1, detail=True)])
    await sink.flush()
    *plain, detailed = await rig.documents()
    assert [d["stream"] for d in plain] == given.streams
    assert [d["time_ns"] for d in plain] == given.event_ns.tolist()
    assert [np.float32(d["score"]) for d in plain] == given.score.tolist()
    assert [d["anomaly"] for d in plain] == given.anomaly.tolist()
    assert plain[3]["source"] == {"cluster": "cluster", "topic": "plant", "partition": 5, "offset": 6}
    assert plain[0]["time"] == "2023-11-14T22:13:20.123456789Z"
    assert "channels" not in plain[0]
    assert detailed["channels"][0] == {"channel": "flow", "expected": 0.0, "lower": 0.0, "upper": 0.0, "blame": 0.0}
    assert detailed["channels"][1]["expected"] is None, "JSON has no NaN"


async def test_stopping_and_starting_again_loses_nothing(rig: Rig) -> None:
    """A sink can be stopped twice and started anew on what stands there."""
    sink = await rig.sink()
    await sink.deliver_alerts(SHARD, [alert(0)])
    await sink.stop()
    await sink.stop()
    again = await rig.sink()
    await again.deliver_alerts(SHARD, [alert(1)])
    await again.flush()
    assert [d["id"] for d in await rig.documents()] == ["id0", "id1"]
    await make_sink("never started", rig.settings).stop()


# Files


async def test_a_file_keeps_broken_bytes_exactly(tmp_path: Path) -> None:
    """Text stays text, other bytes are base64, and what is absent is null."""
    sink = make_sink("dead", FileSinkSettings(type="file", path=tmp_path / "dead.jsonl"))
    await sink.start()
    await sink.deliver_dead_letters([letter(), letter(value=b'{"t": ', key=None), letter(value=None)])
    await sink.stop()
    first, second, third = map(json.loads, (tmp_path / "dead.jsonl").read_text().splitlines())
    assert (first["key_base64"], first["value_base64"]) == ("a/4=", "/yBicm9rZW4=")
    assert (second["key"], second["value"], third["value"]) == (None, '{"t": ', None)
    assert (first["reason"], first["detail"], first["topic"], first["offset"]) == ("malformed", "détail", "plant", 77)
    assert first["headers"][1] == {"name": "trace", "value": "again"}


@pytest.mark.parametrize("torn", [b'{"id": "half', b"x" * 200_000])
async def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    """What a crash left without a line end was never acknowledged, and would spoil the line after it."""
    path = tmp_path / "alerts.jsonl"
    settings = FileSinkSettings(type="file", path=path)
    for number in (0, 1):
        sink = make_sink("out", settings)
        await sink.start()
        await sink.deliver_alerts(SHARD, [alert(number)])
        await sink.stop()
        with path.open("ab") as file:
            file.write(torn)
    sink = make_sink("out", settings)
    await sink.start()
    assert (await sink.alert_tail(SHARD, 0)).ids == {"id0", "id1"}
    await sink.stop()
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["id0", "id1"]


async def test_a_file_has_one_writer(tmp_path: Path) -> None:
    """A second one is refused, since it would cut off what the first is writing; afterwards it may."""
    settings = FileSinkSettings(type="file", path=tmp_path / "alerts.jsonl")
    first, second = make_sink("one", settings), make_sink("two", settings)
    await first.start()
    with pytest.raises(SinkError, match="writes to this file"):
        await second.start()
    await first.stop()
    await second.start()
    await second.stop()


async def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A delivery that does not fit is an error and is taken back; afterwards the sink goes on."""
    path = tmp_path / "alerts.jsonl"
    sink = make_sink("out", FileSinkSettings(type="file", path=path))
    await sink.start()
    await sink.deliver_alerts(SHARD, [alert(0)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 1000, before[1]))
    try:
        with pytest.raises(SinkError, match=r"alerts\.jsonl: cannot be written"):
            await sink.deliver_alerts(SHARD, [alert(number) for number in range(1, 9)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await sink.deliver_alerts(SHARD, [alert(9)])
    await sink.stop()
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["id0", "id9"]


async def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """The message names the path."""
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match=r"alerts\.jsonl"):
        await make_sink("out", FileSinkSettings(type="file", path=tmp_path / "file" / "alerts.jsonl")).start()


# Kafka


MakeSink = Callable[..., Awaitable[Sink]]


@pytest.fixture
async def kafka_sink(kafka: str) -> AsyncIterator[MakeSink]:
    """Makes sinks that are not started yet, each on a topic of its own; stops them afterwards."""
    made: list[Sink] = []

    async def make(partitions: int = 1, configs: dict[str, str] | None = None) -> Sink:
        topic = await topics.create_topic(kafka, partitions, configs)
        made.append(make_sink("out", KafkaSinkSettings(type="kafka", bootstrap_servers=kafka, topic=topic)))
        return made[-1]

    yield make
    for sink in made:
        await sink.stop()


@pytest.mark.system
async def test_key_is_the_stream_and_partition_the_input_partition(kafka: str, kafka_sink: MakeSink) -> None:
    """One tail of one partition holds all alerts of a shard, in order."""
    sink = await kafka_sink(3)
    await sink.start()
    for shard in (SHARD, OTHER, Shard("cluster", "plant", 3)):
        await sink.deliver_alerts(shard, [alert(shard.partition, shard)])
        await sink.deliver_scores(shard, [scores(1)])
    await sink.stop()
    found = await topics.read_all(kafka, sink._settings.topic)
    assert [record.key for record in found[2]] == ["pump-é".encode(), b"pump0"] * 2
    assert [len(records) for records in found.values()] == [2, 0, 4]


@pytest.mark.system
async def test_a_dead_letter_keeps_its_bytes_key_and_headers(kafka: str, kafka_sink: MakeSink) -> None:
    """Nothing of the original is changed, also where there is neither key nor value; our headers come behind."""
    sink = await kafka_sink()
    await sink.start()
    letters = [letter(), letter(value=None), letter(value=None, key=None), letter(value=b"")]
    await sink.deliver_dead_letters(letters)
    await sink.stop()
    found = (await topics.read_all(kafka, sink._settings.topic))[0]
    assert [(record.key, record.value) for record in found] == [(each.key, each.value) for each in letters]
    assert list(found[0].headers) == [
        ("trace", b"\x00\x01"),
        ("trace", b"again"),
        ("tidewarden-reason", b"malformed"),
        ("tidewarden-detail", "détail".encode()),
        ("tidewarden-topic", b"plant"),
        ("tidewarden-partition", b"5"),
        ("tidewarden-offset", b"77"),
    ]


@pytest.mark.system
@pytest.mark.parametrize("limit", [1_048_588, 5000])
async def test_a_dead_letter_larger_than_the_topic_allows_is_cut(kafka: str, kafka_sink: MakeSink, limit: int) -> None:
    """It would be refused for ever, and its partition stand still; a header says how long it was."""
    sink = await kafka_sink(configs={"max.message.bytes": str(limit)})
    await sink.start()
    value = bytes(range(256)) * 5000
    await sink.deliver_dead_letters([letter(value=b"short"), letter(value=value), letter(value=b"short")])
    await sink.stop()
    short, cut, last = (await topics.read_all(kafka, sink._settings.topic))[0]
    assert (short.value, last.value) == (b"short", b"short")
    assert limit - 1000 < len(cut.value) < limit
    assert value.startswith(cut.value)
    assert cut.headers[-1] == ("tidewarden-cut-from-bytes", b"1280000")


@pytest.mark.system
@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
async def test_a_compacted_topic_is_refused(kafka_sink: MakeSink, policy: str) -> None:
    """Compaction would keep a stream's last alert only."""
    sink = await kafka_sink(configs={"cleanup.policy": policy})
    with pytest.raises(ConfigurationError, match=r"cleanup\.policy.*expected delete, got compact"):
        await sink.start()
    await sink.stop()


@pytest.mark.system
async def test_a_topic_that_is_not_there_is_an_error(kafka: str) -> None:
    """It is named; nothing creates it."""
    settings = KafkaSinkSettings(type="kafka", bootstrap_servers=kafka, topic=topics.new_name("missing"))
    with pytest.raises(SinkError, match="missing-"):
        await make_sink("out", settings).start()
    assert await topics.partition_count(kafka, settings.topic) == 0


@pytest.mark.system
async def test_others_on_the_topic_do_not_disturb_a_tail(kafka: str, kafka_sink: MakeSink) -> None:
    """What is no alert is passed over."""
    sink = await kafka_sink()
    await sink.start()
    junk = [b"junk", b"", b"\xff", b'{"id": 5}', b'{"id": "x", "source": {}}', None]
    await topics.produce(kafka, sink._settings.topic, junk, keys=[b"k"] * len(junk))
    await sink.deliver_alerts(SHARD, [alert(1)])
    await sink.flush()
    assert (await sink.alert_tail(SHARD, 0)).ids == {"id1"}
    await sink.stop()
