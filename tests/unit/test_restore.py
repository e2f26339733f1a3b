"""How a shard comes back, and when it refuses to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from detector.checkpoint import policies
from detector.checkpoint.base import manifests_newest_first
from detector.checkpoint.protocol import Identity
from detector.checkpoint.restore import claim
from detector.errors import CheckpointError, CorruptCheckpointError, DataLostError, LineageError
from tests.scenarios.world import CRASH, SHA256, SHARD, EchoEngine, World, plain_feed, records, s


async def checkpointed(folder: Path, **settings: Any) -> World:
    """A world whose process has read 50 records and stopped in order."""
    world = World(plain_feed(50), folder, **settings)
    await world.run()
    return world


async def start(world: World, **changes: Any) -> None:
    """Another process; its first failure, out of its groups."""
    try:
        await world.run(**changes)
    except* CheckpointError as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from None


def files(world: World, kind: str) -> list[Path]:
    """Files of the shard, newest first."""
    return sorted(world.store.folder(SHARD).glob(f"{kind}-*"), reverse=True)


async def test_a_restart_goes_on_where_the_checkpoint_ends(tmp_path: Path) -> None:
    """With the memory, and nothing is read twice."""
    world = await checkpointed(tmp_path)
    world.log += plain_feed(30, seed=2)
    await world.run()
    whole = EchoEngine(SHARD)
    outcome = whole.advance(records(world.log, 0))
    assert world.engine.rows == whole.rows
    assert world.alerts() == outcome.alerts


@pytest.mark.parametrize(("start_at", "position"), [("earliest", 0), ("latest", 50)])
async def test_a_first_start_is_pinned_at_once(tmp_path: Path, start_at: str, position: int) -> None:
    """A crash right after it, and more records, do not move where it began."""
    world = World(plain_feed(50), tmp_path, start=start_at, every_s=1000)
    pipeline = world.pipeline()
    running = asyncio.create_task(pipeline.run())
    while not pipeline.live:
        await asyncio.sleep(0.001)
    pipeline.drain()
    await running
    world.log += plain_feed(5)
    await world.run()
    whole = EchoEngine(SHARD)
    whole.restore(position, 0, [])
    whole.advance(records(world.log[position:], position))
    assert world.engine.rows == whole.rows


async def test_start_fail_refuses_a_shard_without_checkpoint(tmp_path: Path) -> None:
    """And takes one that has one."""
    with pytest.raises(CheckpointError, match="no checkpoint, and start is fail"):
        await start(World(plain_feed(5), tmp_path / "none", start="fail"))
    world = await checkpointed(tmp_path / "some")
    world.start = "fail"
    await start(world)


async def test_records_that_were_deleted_are_a_loss_that_is_told(tmp_path: Path) -> None:
    """Never skipped in silence."""
    world = await checkpointed(tmp_path)
    world.low = 51
    with pytest.raises(DataLostError, match="expected position 50, got the first that is left, 51"):
        await start(world)


async def test_a_source_that_ends_before_the_checkpoint_is_another_one(tmp_path: Path) -> None:
    """A topic that was created anew, shorter."""
    world = await checkpointed(tmp_path)
    del world.log[40:]
    with pytest.raises(LineageError, match="the source ends before the checkpoint"):
        await start(world)


async def test_a_source_with_another_record_before_the_position_is_another_one(tmp_path: Path) -> None:
    """A topic that was created anew, longer; but a record that retention removed is in order."""
    world = await checkpointed(tmp_path)
    world.log[49] = s(1, "someone-else")
    with pytest.raises(LineageError, match="what stands before position 50 has changed"):
        await start(world)
    world.low = 50
    await start(world)


async def test_rows_of_another_bundle_are_refused(tmp_path: Path) -> None:
    """So are those of a detector that is gone; another configuration is only told."""
    world = await checkpointed(tmp_path)
    for identity, got in [
        (Identity({"echo": ("cd" * 32, "echo@2")}, "c", "n"), r"echo@2 \(sha256 cdcdcdcdcdcd\)"),
        (Identity({}, "c", "n"), "no such detector"),
    ]:
        with pytest.raises(LineageError, match=f"bundle of detector 'echo': expected echo@1 .*, got {got}"):
            await start(world, identity=identity)
    await start(world, identity=Identity({"echo": (SHA256, "echo@1")}, "another", "numerics"))


async def test_rows_with_other_columns_of_decide_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that keeps other columns does not guess what the old ones meant."""
    world = await checkpointed(tmp_path)
    monkeypatch.setattr(policies, "DECIDE_VERSION", 9)
    monkeypatch.setattr(policies, "KNOWN_VERSIONS", {9})
    with pytest.raises(LineageError, match="version of decide's columns: expected 9, got 2"):
        await start(world)


async def test_a_damaged_newest_checkpoint_is_passed_over_and_told(tmp_path: Path) -> None:
    """Manifest or rows; the replay from the one before gives the same."""
    for kind in ("manifest", "segment"):
        world = World([*plain_feed(60), CRASH], tmp_path / kind, pace_s=0.002)
        await world.run()
        newest = files(world, kind)[0]
        newest.write_bytes(newest.read_bytes()[:-1])
        await world.run()
        assert world.telemetry.registry.get_sample_value(
            "tidewarden_checkpoint_fallbacks_total", {"source": "list", "topic": "sensors", "partition": "0"}
        )
        whole = EchoEngine(SHARD)
        assert world.alerts() == whole.advance(records(world.log, 0)).alerts
        assert world.engine.rows == whole.rows


async def test_without_any_whole_checkpoint_nothing_starts(tmp_path: Path) -> None:
    """A cold start is never silent."""
    world = await checkpointed(tmp_path)
    for path in files(world, "manifest"):
        path.write_bytes(b"")
    with pytest.raises(CorruptCheckpointError, match=r"every manifest is damaged.*bring the files back"):
        await start(world)


async def test_each_start_raises_the_fence(tmp_path: Path) -> None:
    """And writes it into a manifest of its own at once."""
    world = await checkpointed(tmp_path)
    assert await claim(world.store, SHARD) == 2
    await world.run()
    names = await world.store.names(SHARD)
    assert manifests_newest_first(names)[0].startswith("manifest-0000000003-")
