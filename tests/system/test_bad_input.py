"""A storm of bad input: each broken record is told by its right reason, once; each good one is scored; nothing grows.

A real broker, the daemon as a process, JSON and MessagePack, wide and narrow. What must come out is what the storm
itself counted while it made the records (`storm.py`); the daemon's own metrics must say the same.

    make bad-input      a million records of each kind; with the tests, 30,000
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from detector.records import Reason
from tests.kafka.topics import create_topic, produce, read_all
from tests.system.conftest import say
from tests.system.processes import Daemon
from tests.system.storm import CHANNELS, LONGEST, PARTITIONS, PERIOD_S, START_S, Blow, Storm

pytestmark = pytest.mark.system

RECORDS = int(os.environ.get("RECORDS", 30_000))
_ROOT = Path(__file__).parents[2]
_AT_ONCE = 20_000  # records appended together
_GROWTH_BYTES = 24 << 20  # that the second half of a run may add: buffers that find their size, not records
_PATIENCE_S = 30.0 + RECORDS / 1000


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def configuration(folder: Path, address: str, topics: dict[str, str], encoding: str, is_narrow: bool) -> Path:
    """Everything on, and everything complete."""
    client = {"type": "kafka", "bootstrap_servers": address}
    record = {"format": encoding, "unknown_channels": "reject", "max_record_bytes": LONGEST}
    record |= {"channel": "channel"} if is_narrow else {}
    settings = {
        "sources": {
            "plant": client | {"topics": [topics["in"]], "partitions": f"0-{PARTITIONS - 1}", "record": record}
        },
        "detectors": {
            "pumps": {
                "bundle": str(_ROOT / "tests/golden/tiny-any.onnx"),
                "channels": list(CHANNELS),
                "match": {"stream": "(?s)pump.*"},
            }
        },
        "sinks": {
            "scores": {"all": client | {"topic": topics["scores"]}},
            "scores_mode": "complete",
            "dead_letters": {"broken": client | {"topic": topics["letters"]}},
        },
        "checkpoint": {"path": str(folder / "state"), "every_s": 2},
        "http": {"port": 0},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


class Watched:
    """A daemon whose metrics and memory are looked at while it works."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.rss: list[tuple[float, int]] = []
        """Share of the records that were read, and bytes."""

    async def until_read(self, count: int) -> None:
        """Wait until so many records are read; a partition that is stuck is not waited for long."""
        last, since_s = -1, time.monotonic()
        while (read := sum(self.metric("records_total").values())) < count:
            assert self.daemon.is_alive, self.daemon.log()
            last, since_s = (read, time.monotonic()) if read != last else (last, since_s)
            assert time.monotonic() - since_s < _PATIENCE_S, f"stuck after {read} of {count}:\n{self.daemon.log()}"
            self.rss.append((read / count, _rss_bytes(self.daemon.pid)))
            await asyncio.sleep(0.1)

    def metric(self, name: str, label: str = "partition") -> Counter[str]:
        """A counter's samples by one label."""
        url = self._url()
        if url is None:
            return Counter()
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found: Counter[str] = Counter()
        for line in lines:
            if line.startswith(f"tidewarden_{name}{{"):
                labels, _, value = line.partition("{")[2].rpartition("} ")
                found[labels.split(f'{label}="')[1].split('"')[0]] += int(float(value))
        return found

    def _url(self) -> str | None:
        for line in self.daemon.log().splitlines():
            if "serving status and metrics" in line:
                return str(json.loads(line)["url"])
        return None

    def mean_rss(self, start: float, end: float) -> float:
        """Over a part of the run; where that went by between two looks, at the nearest one."""
        nearest = min(self.rss, key=lambda look: abs(look[0] - (start + end) / 2))
        return statistics.mean([rss for share, rss in self.rss if start <= share <= end] or [nearest[1]])


async def append(address: str, topic: str, blows: Iterator[Blow]) -> int:
    """Put the storm on the topic; returns how many records it had."""
    count = 0
    while some := list(itertools.islice(blows, _AT_ONCE)):
        for partition in range(PARTITIONS):
            mine = [blow for blow in some if blow.partition == partition]
            await produce(
                address,
                topic,
                [blow.value for blow in mine],
                partition=partition,
                keys=[blow.key for blow in mine],
                timestamps_ms=[blow.timestamp_ms for blow in mine],
            )
        count += len(some)
    return count


@pytest.mark.timeout(300 + RECORDS // 200)
@pytest.mark.parametrize("is_narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_a_storm_of_bad_input_costs_no_good_record(
    kafka: str, tmp_path: Path, seed: int, encoding: str, is_narrow: bool
) -> None:
    """Exact dead letters per reason, every good sample scored once, no partition stuck, and memory that stays flat."""
    # Its records are years old by their own time: the broker would delete them while they are read.
    large = {"max.message.bytes": str(4 << 20), "retention.ms": "-1"}
    topics = {name: await create_topic(kafka, PARTITIONS, large) for name in ("in", "scores", "letters")}
    storm = Storm(seed, encoding=encoding, is_narrow=is_narrow)
    count = await append(kafka, topics["in"], storm.records(RECORDS))
    assert count == RECORDS
    assert 0.3 < storm.expected.total() / RECORDS < 0.36, "a third of the storm is broken"
    watched = Watched(Daemon(configuration(tmp_path, kafka, topics, encoding, is_narrow), tmp_path / "log"))
    try:
        await watched.until_read(RECORDS)
        rejects = watched.metric("rejects_total", "reason")
        await watched.daemon.drain()
    finally:
        watched.daemon.end()
    assert rejects == storm.expected
    is_letter = {reason.label: reason.is_dead_letter for reason in Reason}
    assert await letters_on(kafka, topics["letters"]) == Counter(
        {label: broken for label, broken in storm.expected.items() if is_letter[label]}
    )
    assert await ticks_on(kafka, topics["scores"]) == storm.good
    tell_and_bound_memory(watched, f"{encoding}, {'narrow' if is_narrow else 'wide'}", storm)


async def letters_on(address: str, topic: str) -> Counter[str]:
    """Dead letters by their reason, each record once."""
    found: dict[tuple[bytes, bytes], str] = {}
    for records in (await read_all(address, topic, wait_s=_PATIENCE_S)).values():
        for record in records:
            headers = dict(record.headers)
            place = headers["tidewarden-partition"], headers["tidewarden-offset"]
            assert place not in found, "a dead letter came twice"
            found[place] = headers["tidewarden-reason"].decode()
    return Counter(found.values())


async def ticks_on(address: str, topic: str) -> dict[str, list[int]]:
    """Per stream how many samples were scored, and the sum of their ticks."""
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    seen: set[tuple[str, int]] = set()
    for records in (await read_all(address, topic, wait_s=_PATIENCE_S)).values():
        for record in records:
            score: dict[str, Any] = json.loads(record.value)
            tick = (score["time_ns"] // 10**9 - START_S) // PERIOD_S
            assert (score["stream"], tick) not in seen, "a sample was scored twice"
            seen.add((score["stream"], tick))
            found[score["stream"]][0] += 1
            found[score["stream"]][1] += tick
    return found


def tell_and_bound_memory(watched: Watched, what: str, storm: Storm) -> None:
    """Print start, middle and end; the second half may not have grown by more than buffers do."""
    start, middle, end = watched.rss[0][1], watched.mean_rss(0.4, 0.6), watched.mean_rss(0.9, 1.0)
    told = " > ".join(f"{rss / 2**20:.1f}" for rss in (start, middle, end))
    say(f"{what}: {RECORDS} records, {storm.expected.total()} broken, RSS {told} MiB")
    say(f"  {dict(sorted(storm.expected.items()))}")
    assert end - middle < _GROWTH_BYTES, f"memory grows: {told} MiB"
