"""The file source: several files, and replay at a speed. What every source promises is in tests/contracts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector.clock import ManualClock
from detector.records import Records
from detector.settings import FileSourceSettings
from detector.sources.file import FileSource


def write(path: Path, times: list[float | str]) -> None:
    path.write_text("".join(json.dumps({"stream": "a", "time": time, "values": {"x": 1}}) + "\n" for time in times))


async def started(folder: Path, clock: ManualClock | None = None, **more: object) -> FileSource:
    settings = FileSourceSettings(type="file", paths=[f"{folder}/*.jsonl"], **more)
    source = FileSource("plant", settings, clock or ManualClock())
    await source.start()
    for shard in await source.assigned() or ():
        await source.resume(shard, 0)
    return source


def times_of(batches: list[Records]) -> list[float]:
    return [json.loads(value or b"")["time"] for records in batches for value in records.values]


async def test_files_take_turns(tmp_path: Path) -> None:
    """A large file does not keep the others waiting, and a poll stays bounded."""
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", list(range(9000)))
    source = await started(tmp_path)
    polls = []
    while not source.exhausted:
        polls.append(await source.poll(0.01))
    shards = [[Path(records.shard.topic).name for records in batches] for batches in polls if batches]
    assert shards[:4] == [["a.jsonl"], ["b.jsonl"], ["a.jsonl"], ["b.jsonl"]]
    assert max(sum(map(len, batches)) for batches in polls) <= 4000
    assert sum(len(records) for batches in polls for records in batches) == 18_000
    await source.stop()


async def test_a_replay_is_over_when_the_last_file_is(tmp_path: Path) -> None:
    """Also when files are empty; not before all are resumed."""
    write(tmp_path / "a.jsonl", [1.0])
    write(tmp_path / "b.jsonl", [])
    settings = FileSourceSettings(type="file", paths=[f"{tmp_path}/*.jsonl"])
    source = FileSource("plant", settings, ManualClock())
    await source.start()
    first, second = await source.assigned() or ()
    assert first.cluster == "file:plant"
    await source.resume(first, 0)
    for _ in range(3):
        await source.poll(0.01)
    assert not source.exhausted
    await source.resume(second, 0)
    for _ in range(2):
        await source.poll(0.01)
    assert source.exhausted
    await source.stop()


async def test_a_replay_keeps_the_pace_of_event_time(tmp_path: Path) -> None:
    """At 10 times real speed 10 s of samples are due per second; what cannot be read goes with what precedes it."""
    write(tmp_path / "a.jsonl", [100.0, 101.0, "broken", 109.0, 108.0, 130.0])
    clock = ManualClock()
    source = await started(tmp_path, clock, speed=10.0)
    assert times_of(await source.poll(0.01)) == [100.0]
    clock.advance(0.11)
    found = await source.poll(0.01)
    assert times_of(found) == [101.0, "broken"]
    assert await source.poll(0.01) == []
    clock.advance(0.8)
    (records,) = await source.poll(0.01)
    assert times_of([records]) == [109.0, 108.0], "a late one is not held back until its time comes again"
    assert records.next_position == records.positions[-1] + len(records.values[-1] or b"") + 1
    assert not source.exhausted
    clock.advance(2.2)
    assert times_of(await source.poll(0.01)) == [130.0]
    await source.poll(0.01)
    assert source.exhausted
    await source.stop()


async def test_a_paced_replay_goes_on_where_it_was(tmp_path: Path) -> None:
    """A resume in the midst begins at once with that record, and forgets what was held back."""
    write(tmp_path / "a.jsonl", [100.0, 200.0, 300.0])
    source = await started(tmp_path, speed=1.0)
    ((shard, position),) = [(records.shard, records.next_position) for records in await source.poll(0.01)]
    assert await source.poll(0.01) == []
    await source.stop()
    again = FileSource("plant", FileSourceSettings(type="file", paths=[shard.topic], speed=1.0), ManualClock())
    await again.start()
    await again.resume(shard, position)
    assert times_of(await again.poll(0.01)) == [200.0]
    await again.stop()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
async def test_the_original_line_goes_with_a_dead_letter(tmp_path: Path, kind: str) -> None:
    """A row of CSV is handed over as JSON; its line is kept beside it."""
    path = tmp_path / f"pumps.{kind}"
    path.write_text("stream,time,x\na,1,what\n" if kind == "csv" else '{"stream": "a"}\n')
    source = FileSource("plant", FileSourceSettings(type="file", paths=[str(path)]), ManualClock())
    await source.start()
    (shard,) = await source.assigned() or ()
    await source.resume(shard, 0)
    (records,) = await source.poll(0.1)
    assert records.keys == [b"pumps"]
    assert list(records.headers_of(0)) == ([("tidewarden-line", b"a,1,what")] if kind == "csv" else [])
    await source.stop()
