"""Training reads history from a real Prometheus and from a real Kafka; what is wrong is told with what to do."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from pydantic import ValidationError

pytest.importorskip("torch")

from detector.errors import ConfigurationError, InputError, SourceError
from tests.kafka.topics import create_topic, produce
from tests.system.test_prometheus import program, running_in
from training.data.gather import Gathered
from training.data.kafka import read_kafka
from training.data.prometheus import read_prometheus
from training.data.series import Series
from training.settings import KafkaData, PrometheusData

pytestmark = pytest.mark.system

START, MINUTES = 1_767_225_600, 4320  # 2026-01-01T00:00Z, three days
DAYS = {"start": "2026-01-01", "end": "2026-01-03T23:59Z"}
NOW = datetime(2026, 1, 4, tzinfo=UTC)
S = 1_000_000_000


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with three days of two machines: `load`, and `busy` by mode; of one the second day is missing."""
    folder = tmp_path_factory.mktemp("prometheus")
    lines = ["# TYPE load gauge"]
    for machine, minute in ((m, t) for m in "ab" for t in range(MINUTES)):
        if machine == "a" or minute // 1440 != 1:
            lines.append(f'load{{instance="{machine}"}} {minute} {START + 60 * minute}')
    lines += ["# TYPE also gauge", f'also{{instance="a"}} 1 {START}', "# TYPE busy gauge"]
    for mode, minute in ((m, t) for m in ("user", "idle") for t in range(MINUTES)):
        lines.append(f'busy{{instance="a",mode="{mode}"}} {len(mode) * minute} {START + 60 * minute}')
    (folder / "history.txt").write_text("\n".join([*lines, "# EOF\n"]))
    command = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", "history.txt", "data"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    (folder / "prometheus.yml").write_text("{}")
    with running_in(folder) as address:
        yield address


def asked(url: str, rejects: Counter[str] | None = None, **more: Any) -> dict[str, Series]:
    """The streams of a range query."""
    gathered = Gathered(Counter() if rejects is None else rejects)
    read_prometheus(PrometheusData(url=url, **({"queries": {"load": "load"}} | DAYS | more)), gathered, NOW)
    return {one.stream: one for one in gathered.series()}


def test_a_range_is_asked_for_in_parts(prometheus: str) -> None:
    """17,280 points, more than Prometheus answers at once; every one comes once, in order and at its time."""
    found = asked(prometheus, step="15s", end="2026-01-03T23:59:59Z")['{instance="a"}']
    np.testing.assert_array_equal(found.time_ns, (START + 15 * np.arange(17_280)) * S)
    np.testing.assert_array_equal(found.values[:, 0], np.arange(17_280) // 4)


def test_each_query_is_a_channel(prometheus: str) -> None:
    """What has the same labels in several queries is one stream; `last` reaches back from `end`."""
    queries = {"load": "load", "twice": "sum by (instance) (load) * 2", "busy": "sum by (instance) (busy)"}
    found = asked(prometheus, queries=queries, start=None, last="2d", end="2026-01-03T00:00Z")
    one = found['{instance="a"}']
    assert one.channels == ("load", "twice", "busy")
    assert one.values[0].tolist() == [0, 0, 0]
    assert one.values[-1].tolist() == [2880, 5760, 8 * 2880]
    assert found['{instance="b"}'].channels == ("load", "twice")


def test_a_label_may_tell_channels_apart(prometheus: str) -> None:
    """With `channel: mode` a machine is a stream, and its modes are channels."""
    (found,) = asked(prometheus, queries={"busy": "busy"}, channel="mode").values()
    assert (found.stream, found.channels) == ('{instance="a"}', ("idle", "user"))
    several = asked(prometheus, queries={"busy": "busy", "more": "busy + 1"}, channel="mode")
    assert several['{instance="a"}'].channels == ("busy.idle", "busy.user", "more.idle", "more.user")


def test_a_gap_stays_a_gap(prometheus: str) -> None:
    """Where Prometheus has nothing there is no sample, but for the five minutes that it looks back."""
    elapsed = asked(prometheus)['{instance="b"}'].elapsed_s
    assert Counter(elapsed[1:].tolist()).most_common(1)[0][0] == pytest.approx(60)
    assert elapsed.max() == pytest.approx(86_400 - 240)


def test_what_is_not_finite_is_left_out(prometheus: str) -> None:
    """NaN counts as missing, infinity as what the daemon refuses; both are counted."""
    rejects: Counter[str] = Counter()
    found = asked(prometheus, rejects, queries={"ratio": "(load - 100) / (load > 50 and load < 200 or load * 0)"})
    assert np.isfinite(found['{instance="a"}'].values).all()
    assert rejects["not_finite"] > 1000
    nothing: Counter[str] = Counter()
    assert asked(prometheus, nothing, queries={"none": "load * NaN"}) == {}
    assert nothing["nothing_observed"] > 4000


WRONG = {
    "nothing": ({"queries": {"cpu": "no_such_metric"}}, ["queries.cpu", "returned nothing", "2026-01-01T00:00Z to"]),
    "no PromQL": ({"queries": {"cpu": "sum("}}, ["queries.cpu: refused", "parse error", "HTTP 400", "correct the"]),
    "two alike": (
        {"queries": {"both": '{__name__=~"load|also"}'}},
        ["one series for channel", "aggregate"],
    ),
    "url": ({"url": "http://127.0.0.1:9"}, ["cannot be asked", "http://127.0.0.1:9/api/v1/query_range", "reachable"]),
    "path": ({"path": "/elsewhere"}, ["refused", "HTTP 404", "correct the url"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_query_that_fails_is_told(prometheus: str, name: str) -> None:
    """The message names the query, what was expected, what came and what to do."""
    more, words = WRONG[name]
    url = more.get("url", prometheus) + more.get("path", "")
    with pytest.raises(InputError) as caught:
        asked(url, **{key: value for key, value in more.items() if key not in ("url", "path")})
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_header_comes_from_the_environment(prometheus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration names a variable, never the secret; one that is not set is told before anything is asked."""
    monkeypatch.setenv("PROM_TOKEN", "Bearer abc")
    assert asked(prometheus, authorization="PROM_TOKEN")
    monkeypatch.delenv("PROM_TOKEN")
    with pytest.raises(ConfigurationError, match=r"authorization: expected .* variable PROM_TOKEN, got nothing"):
        asked(prometheus, authorization="PROM_TOKEN")


@pytest.mark.parametrize(
    ("span", "told"),
    [({}, "expected last"), ({"last": "1d", "start": "2026-01-01"}, "got both"), ({"last": "1 fortnight"}, "30d")],
)
def test_a_span_must_be_named(span: dict[str, str], told: str) -> None:
    """How far back is said once, and in words that are known."""
    with pytest.raises(ValidationError, match=told):
        PrometheusData(url="http://x", queries={"a": "a"}, **span)


# Kafka


def record(stream: str, second: int, values: dict[str, float | None]) -> bytes:
    return json.dumps({"stream": stream, "time": second, "values": values}).encode()


def read(address: str, topic: str, channels: Sequence[str] | None = None, **more: Any) -> tuple[dict[str, Series], Any]:
    """The streams of a topic, and what was left out."""
    rejects: Counter[str] = Counter()
    gathered = Gathered(rejects)
    settings = KafkaData(bootstrap_servers=address, topics=[topic], **more)
    read_kafka(settings, channels, gathered, rejects, datetime.now(UTC))
    return {one.stream: one for one in gathered.series()}, +rejects


async def test_a_topics_history_is_what_the_daemon_would_accept(kafka: str) -> None:
    """Every partition to its end; what is broken, late or strange is left out and counted by the daemon's reasons."""
    topic = await create_topic(kafka, 2)
    rows = [record("x", t, {"a": t, "b": None if t % 2 else 1.0}) for t in range(100)]
    await produce(kafka, topic, [*rows[:50], b"{broken", record("x", 20, {"a": 1}), *rows[50:]], partition=0)
    await produce(kafka, topic, [record("y", t, {"c": -t}) for t in range(10)], partition=1)
    found, rejects = await asyncio.to_thread(read, kafka, topic)
    assert {name: (one.channels, len(one)) for name, one in found.items()} == {
        "x": (("a", "b"), 100),
        "y": (("c",), 10),
    }
    np.testing.assert_array_equal(found["x"].values[:, 0], np.arange(100))
    assert np.isnan(found["x"].values[1::2, 1]).all()
    assert rejects == {"malformed": 1, "late": 1}
    only, _ = await asyncio.to_thread(read, kafka, topic, ["b", "a"], partitions="0")
    assert [one.channels for one in only.values()] == [("b", "a")]


async def test_a_span_is_by_the_records_own_time(kafka: str) -> None:
    """`start` and `end` choose among what the topic keeps; so does `last`, from now."""
    topic = await create_topic(kafka)
    stamps = [(START + 60 * t) * 1000 for t in range(100)]
    await produce(kafka, topic, [record("x", t, {"a": t}) for t in range(100)], timestamps_ms=stamps)
    found, _ = await asyncio.to_thread(read, kafka, topic, start="2026-01-01T00:10Z", end="2026-01-01T00:20Z")
    assert found["x"].values[:, 0].tolist() == list(range(10, 20))
    with pytest.raises(InputError, match=r"nothing to read: expected records in the span.*100 offsets.*longer"):
        await asyncio.to_thread(read, kafka, topic, last="1h")


async def test_narrow_and_packed_records_are_read_too(kafka: str) -> None:
    """By the same settings as the daemon's: one channel's value each, joined into samples, here in MessagePack."""
    topic = await create_topic(kafka)
    narrow = [
        msgspec.msgpack.encode({"id": s, "t": t, "tag": c, "v": t + len(c)})
        for t in range(20)
        for s, c in (("x", "flow"), ("x", "level"), ("y", "flow"))
    ]
    await produce(kafka, topic, narrow)
    shape = {"format": "msgpack", "stream": "id", "time": "t", "channel": "tag", "value": "v"}
    found, rejects = await asyncio.to_thread(read, kafka, topic, record=shape)
    assert {name: (one.channels, len(one)) for name, one in found.items()} == {
        "x": (("flow", "level"), 20),
        "y": (("flow",), 20),
    }
    assert found["x"].values[3].tolist() == [7, 8]
    assert rejects == {}
    with pytest.raises(InputError, match=r"none of 60 records can be read.*offset 0.*section `record`"):
        await asyncio.to_thread(read, kafka, topic)


async def test_a_topic_that_is_not_there_is_named(kafka: str) -> None:
    """With the nearest one that is."""
    topic = await create_topic(kafka)
    with pytest.raises(SourceError, match=f"topic '{topic}s' is not there .*did you mean '{topic}'"):
        await asyncio.to_thread(read, kafka, f"{topic}s")
