"""The disk under the checkpoints fails in every way: records go on being scored, and in the end nothing is missing.

While the disk fails: scores come, it is said (log, failures), no checkpoint is half there. When it works again:
checkpoints go on by themselves. After a restart: the newest whole checkpoint, or the one before it and that is said, or
a refusal; never a start without memory. And always: alerts, scores and memory as if nothing had happened.

    make disk-faults      every 64 bytes of every file, and an fsync of 5 s; with the tests, samples of both
"""

from __future__ import annotations

import os
import random
import re
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from errno import EIO, ENOSPC, EROFS
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from detector.checkpoint import restore, segments
from detector.checkpoint.format import Manifest, Segment, decode_manifest
from detector.errors import CheckpointError, CorruptCheckpointError
from detector.records import ArenaRows, Outcome
from tests.scenarios.faulty_disk import WRITING, Fault, FaultyDisk, failing, healthy
from tests.scenarios.pumps import TINY, Pumps, engine, feed, memory, records
from tests.scenarios.world import SHARD

IS_LONG = os.environ.get("DISK_FAULTS") == "long"
END = 600  # wide records; narrow ones are twice as many
FAULTY = range(450, 560)  # of wide positions, between which the disk fails and every pump has an anomaly
SLOW_S = 5.0 if IS_LONG else 0.3
_PATIENCE_S = 60.0  # for a crowded machine


@pytest.fixture(params=["wide", "narrow"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Pumps:
    """Pumps whose streams do not all fit into memory, so that there are cold rows too."""
    return _world(tmp_path, is_narrow=request.param == "narrow")


def _world(folder: Path, *, is_narrow: bool) -> Pumps:
    to_come = feed(END * (1 + is_narrow), is_narrow=is_narrow)
    return Pumps(to_come, folder, is_narrow=is_narrow, max_streams=2, pace_s=0.001, every_s=0.002)


@pytest.fixture
def disk(world: Pumps, monkeypatch: pytest.MonkeyPatch) -> FaultyDisk:
    """Under its checkpoints."""
    return FaultyDisk(world.folder, monkeypatch)


def _whole(world: Pumps) -> tuple[dict[str, dict[str, bytes]], Outcome]:
    """The engine over all records in one piece, with memory for all streams."""
    whole = engine(TINY, is_narrow=world.is_narrow)
    outcome = whole.advance(records(world.log, 0, is_narrow=world.is_narrow))
    return memory(whole), outcome


def assert_as_undisturbed(world: Pumps) -> None:
    """Alerts equal and once each; every score; the memory of the streams that are not cold."""
    rows, outcome = _whole(world)
    assert world.alerts() == outcome.alerts
    assert len(outcome.alerts) >= 3
    ((scores,), given) = outcome.scores, world.outputs["scores"]
    assert dict(given) == dict(zip(scores.positions.tolist(), scores.score.tolist(), strict=True))
    held = memory(world.engine)
    assert held
    assert held == {stream: rows[stream] for stream in held}


def faulty(world: Pumps) -> range:
    """Where the disk fails."""
    return range(FAULTY[0] * 2, FAULTY[-1] * 2 + 1) if world.is_narrow else FAULTY


def during(world: Pumps, disk: FaultyDisk, fault: Fault) -> Fault:
    """The fault, while reading comes through the faulty positions; it stays at the last until the fault has struck."""
    first, last = faulty(world)[0], faulty(world)[-1]

    def has_struck() -> bool:
        return disk.harmed.total() >= 2

    world.held_at, world.goes_on = last, has_struck

    def then(operation: str, path: Path) -> None:
        if world.handed_over >= first and not (world.handed_over >= last and has_struck()):
            fault(operation, path)

    return then


# While it runs ------------------------------------------------------------------------------------------------------

FAULTS = [
    *(
        (ENOSPC, operation, kind)
        for kind in ("segment", "cold", "manifest")
        for operation in ("open", "write", "fsync", "replace")
    ),
    (ENOSPC, "sync", ""),
    (EIO, "fsync", ""),
    (EROFS, WRITING, ""),
    (ENOSPC, WRITING, ""),
]


@pytest.mark.parametrize(
    ("world", "number", "operation", "kind"),
    [("wide", *fault) for fault in FAULTS] + [("narrow", *fault) for fault in FAULTS if IS_LONG or not fault[2]],
    indirect=["world"],
)
async def test_a_disk_that_fails_for_a_while_costs_nothing(
    world: Pumps, disk: FaultyDisk, number: int, operation: Any, kind: str
) -> None:
    """At any write: scores go on, it is said, and checkpoints come again by themselves."""
    disk.fault = during(world, disk, failing(number, operation, kind))
    with capture_logs() as logs:
        await world.run()
    assert disk.harmed, "the fault never struck"
    assert world.runs == 1
    assert world.metric("checkpoint_failures_total") == _count(logs, "checkpoint failed") > 0
    assert all(str(world.folder) in entry["error"] for entry in logs if entry["event"] == "checkpoint failed")
    assert world.manifest().position == len(world.log)
    assert_as_undisturbed(world)
    assert not list(world.store.folder(SHARD).glob("*.tmp")), "what was half written is gone"


async def test_files_that_cannot_be_deleted_stay_until_they_can(world: Pumps, disk: FaultyDisk) -> None:
    """That is no failure of a checkpoint."""
    disk.fault = during(world, disk, failing(EIO, "unlink"))
    await world.run()
    assert disk.harmed["unlink"]
    assert world.metric("checkpoint_failures_total") == 0
    assert_as_undisturbed(world)
    assert len(world.files("manifest")) <= 3


async def test_an_fsync_that_takes_seconds_holds_no_record_up(world: Pumps, disk: FaultyDisk) -> None:
    """Records are read and scored while it lasts: it does not end before a good many are."""
    slow: list[tuple[int, int]] = []
    world.held_at, world.goes_on = faulty(world)[-1], lambda: len(slow) == 2

    def fault(operation: str, path: Path) -> None:
        before = world.handed_over
        is_due = len(slow) < 2 and before >= faulty(world)[0]
        if is_due and operation == "fsync" and path.name.startswith("segment"):
            end_s = time.monotonic() + _PATIENCE_S
            time.sleep(SLOW_S)
            while world.handed_over - before <= 20 and time.monotonic() < end_s:
                time.sleep(0.01)
            slow.append((before, world.handed_over))

    disk.fault, world.pace_s = fault, 0.015
    await world.run()
    (before, after) = slow[0]
    assert after - before > 20, f"positions before and after: {slow}"
    assert_as_undisturbed(world)


async def test_a_disk_that_fails_at_the_last_checkpoint_is_told_and_nothing_is_lost(
    world: Pumps, disk: FaultyDisk
) -> None:
    """The process ends with the error; the next one begins at the last checkpoint that was durable."""
    disk.fault = lambda *call: failing(ENOSPC, WRITING)(*call) if world.handed_over >= faulty(world)[0] else None
    refusal = await _refusal(world)
    assert "No space left on device" in refusal
    assert str(world.folder) in refusal
    disk.fault = healthy
    await _begin_with_memory(world)
    assert_as_undisturbed(world)


# At a restart -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [ENOSPC, EROFS, EIO])
async def test_a_crash_on_a_failing_disk_is_made_good_when_it_works_again(
    world: Pumps, disk: FaultyDisk, number: int
) -> None:
    """Until then nobody can own the shard, and that is said; it never starts without memory."""
    world.crashes.add(faulty(world)[-1])
    disk.fault = during(world, disk, failing(number, WRITING))
    await world.run()
    assert world.crashed == 1
    for operations in (WRITING, ("open",), ("sync",), ("list",)):
        disk.fault = failing(number, operations)
        refusal = await _refusal(world)
        assert os.strerror(number) in refusal
        assert str(world.folder) in refusal
    disk.fault = healthy
    await _begin_with_memory(world)
    assert_as_undisturbed(world)


@pytest.mark.parametrize("kind", ["manifest", "segment"])
async def test_a_file_that_cannot_be_read_is_passed_over_for_the_one_before(
    world: Pumps, disk: FaultyDisk, kind: str
) -> None:
    """The newest; and where none can be read the start is refused, until they can."""
    world.crashes.add(faulty(world)[-1])
    await world.run()
    known = [decode_manifest(path.read_bytes(), path) for path in world.files("manifest")[:2]]
    newest = world.files("manifest")[0].name
    if kind == "segment":
        newest = max(_named(known[0]) - _named(known[1]))
    disk.fault = failing(EIO, "read")
    assert "every manifest is damaged" in await _refusal(world)
    disk.fault = failing(EIO, "read", newest)
    await _begin_with_memory(world)
    assert disk.harmed["read"] > 1
    assert world.metric("checkpoint_fallbacks_total") == 1
    assert_as_undisturbed(world)


async def _refusal(world: Pumps) -> str:
    with pytest.raises(CheckpointError) as refusal:
        await world.begin()
    return str(refusal.value)


async def _begin_with_memory(world: Pumps) -> None:
    with capture_logs() as logs:
        await world.begin()
    assert _count(logs, "shard restored") == 1
    assert _count(logs, "shard started without memory") == 0


def _count(logs: list[Any], event: str) -> int:
    return sum(entry["event"] == event for entry in logs)


# Bits that flip -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_narrow", [False, True], ids=["wide", "narrow"])
async def test_a_bit_that_flips_anywhere_is_noticed(tmp_path: Path, is_narrow: bool) -> None:
    """In the newest checkpoint alone: the one before; in both: refused; elsewhere: nothing."""
    crashed = await _crashed(tmp_path, is_narrow=is_narrow)
    seen = Counter([await judge(*flipped) for flipped in flips(crashed, tmp_path)])
    assert min(seen["passed over"], seen["refused"], seen["not needed"]) > 0, seen


async def test_control_where_checksums_are_ignored_flipped_bits_do_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above has teeth."""
    real, real_manifest = segments.decode_segment, decode_manifest

    def trusting(data: bytes, segment: Segment, where: object) -> list[ArenaRows]:
        return real(data, msgspec.structs.replace(segment, crc32=zlib.crc32(data)), where)

    def trusting_manifest(data: bytes, where: object) -> Manifest:
        body = data[:-1].rpartition(b"\n")[0] + b"\n"
        return real_manifest(body + b"crc32 %08x\n" % zlib.crc32(body), where)

    crashed = await _crashed(tmp_path, is_narrow=False)
    monkeypatch.setattr(segments, "decode_segment", trusting)
    monkeypatch.setattr(restore, "decode_manifest", trusting_manifest)
    harmed = 0
    for flipped in flips(crashed, tmp_path):
        try:
            await judge(*flipped)
        except (Exception, pytest.fail.Exception):  # whatever it is: flipped bits got into the daemon
            harmed += 1
    assert harmed > 0


async def _crashed(folder: Path, *, is_narrow: bool) -> Pumps:
    """A world whose process died when its checkpoint had a base, deltas, and cold rows."""
    world = _world(folder / "crashed", is_narrow=is_narrow)
    for at in range(350, FAULTY[0], 7):
        world.crashes.add(at * (1 + is_narrow))
        await world.run()
        manifests = [decode_manifest(path.read_bytes(), path) for path in world.files("manifest")]
        if len(manifests) == 2 and all(len(each.segments) > 2 and each.cold for each in manifests):
            return world
    raise AssertionError("no process died at the right moment")


def flips(crashed: Pumps, folder: Path) -> Iterator[tuple[Pumps, str, str]]:
    """Copies of a world, a bit flipped in each: (world, which file, what must become of it)."""
    rng = random.Random(1)
    known = [decode_manifest(path.read_bytes(), path) for path in crashed.files("manifest")[:2]]
    newest, both = _named(known[0]), _named(known[0]) & _named(known[1])
    for path in sorted(crashed.store.folder(SHARD).iterdir()):
        must = "not needed"
        if path.name in newest or path == crashed.files("manifest")[0]:
            must = "refused" if path.name in both else "passed over"
        for at in _places(path.stat().st_size, rng):
            copy = _copy(crashed, folder / "flipped")
            content = bytearray(path.read_bytes())
            content[at] ^= 1 << rng.randrange(8)
            (copy.store.folder(SHARD) / path.name).write_bytes(content)
            yield copy, f"{path.name} at {at}", must


def _named(manifest: Manifest) -> set[str]:
    return {segment.name for segment in (*manifest.segments, *manifest.cold)}


def _places(size: int, rng: random.Random) -> list[int]:
    """One in every region of a file."""
    step = 64 if IS_LONG else max(64, size // 3)
    return [min(size - 1, start + rng.randrange(step)) for start in range(0, size, step)]


def _copy(world: Pumps, folder: Path) -> Pumps:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(world.folder, folder)
    copy = _world(folder, is_narrow=world.is_narrow)
    copy.pace_s, copy.every_s, copy.largest_poll = 0.0, 1000, 100
    copy.outputs = {name: list(items) for name, items in world.outputs.items()}
    return copy


async def judge(world: Pumps, which: str, must: str) -> str:
    """Start it, and see that what must become of it did."""
    if must == "refused":
        with pytest.raises(CorruptCheckpointError, match=re.escape(str(world.folder))):
            await world.begin()
        return must
    await _begin_with_memory(world)
    assert world.metric("checkpoint_fallbacks_total") == (must == "passed over"), which
    assert_as_undisturbed(world)
    return must
