"""A replica that follows the checkpoints of others reads only, keeps up, and takes a shard over in a moment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detector.checkpoint.protocol import Identity
from detector.checkpoint.restore import load
from detector.errors import CorruptCheckpointError
from detector.records import Shard
from tests.scenarios.echo import SHA256, EchoEngine
from tests.scenarios.group import Group, Replica
from tests.unit.test_shards import SHARD, ends_well, kept, one, until


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.pipeline.standby._FOLLOW_S", 0.01)


class ReadOnly:
    """A store that can only be read."""

    def __init__(self, group: Group) -> None:
        self._store = group.store

    async def names(self, shard: Shard) -> list[str]:
        """As the store says."""
        return await self._store.names(shard)

    async def read(self, shard: Shard, name: str) -> bytes:
        """As the store says."""
        return await self._store.read(shard, name)


class Counted(ReadOnly):
    """The same; says how often it was looked at."""

    looks = 0

    async def names(self, shard: Shard) -> list[str]:
        """As the store says; a look."""
        self.looks += 1
        return await super().names(shard)


def standby(group: Group, **changes: Any) -> Replica:
    """A replica without shards that follows those of others, and can do nothing but read as long as it has none."""
    replica = Replica(group, standby=True)
    warm = replica.pipeline.shards.warm
    warm._store = changes.pop("store", ReadOnly(group))
    for name, value in changes.items():
        setattr(warm, name, value)
    group.members.append(replica)
    return replica


async def followed(replica: Replica, position: int) -> None:
    """Until its copy has come so far."""
    held = replica.pipeline.shards.warm._held
    await until(lambda: SHARD in held and held[SHARD].manifest.position >= position)


async def test_a_standby_takes_over_with_the_rest_alone(tmp_path: Path) -> None:
    """What was followed is not loaded again; results are those of the undisturbed run."""
    async with one(tmp_path, ticks=True, every_s=0.05, count=600) as (group, owner):
        group.pace_s = 0.002
        spare = standby(group)
        owner.source.assign([SHARD])
        await until(lambda: SHARD in owner.pipeline.live and owner.pipeline.live[SHARD].position > 200)
        await owner.crash()
        await group.store.settled()
        loaded = await load(group.store, SHARD)
        assert loaded is not None
        await followed(spare, loaded.manifest.position)
        group.store.reads.clear()
        spare.source.assign([SHARD])
        await until(lambda: SHARD in spare.pipeline.live)
        assert kept(group) == []
        assert await ends_well(group, spare) == 0


async def test_a_copy_is_what_a_restore_would_load(tmp_path: Path) -> None:
    """At every manifest that it saw, whichever segments it had read before."""
    async with one(tmp_path, ticks=True, every_s=0.05, count=600) as (group, owner):
        group.pace_s = 0.002
        spare, seen = standby(group), set()
        owner.source.assign([SHARD])
        held = spare.pipeline.shards.warm._held
        while len(seen) <= 3:
            await asyncio.sleep(0.002)
            if SHARD in owner.pipeline.live and owner.pipeline.live[SHARD].position == len(group.logs[SHARD]):
                group.logs[SHARD] += group.logs[SHARD][:100]
            if SHARD in held and held[SHARD].name not in seen:
                warm = held[SHARD]
                whole = EchoEngine(SHARD)
                whole.advance(group.records(SHARD, 0, warm.manifest.position))
                assert warm.memory.rows == whole.rows
                assert warm.memory.position == warm.manifest.position
                seen.add(warm.name)


async def test_it_tells_how_far_behind_it_is(tmp_path: Path) -> None:
    """While the store cannot be read the age grows, the copy stays; with the shard in hand the figure goes."""

    def age() -> float | None:
        labels = {"topic": "sensors", "partition": "0"}
        return spare.telemetry.registry.get_sample_value("tidewarden_standby_age_seconds", labels)

    async with one(tmp_path, every_s=0.05, count=50) as (group, owner):
        spare = standby(group)
        owner.source.assign([SHARD])
        await until(lambda: SHARD in owner.pipeline.live and owner.pipeline.live[SHARD].position == 50)
        await owner.drain()
        await followed(spare, 50)
        await until(lambda: age() == 0)

        class Away(ReadOnly):
            async def names(self, shard: Shard) -> list[str]:
                raise CorruptCheckpointError("disk", "away")

        spare.pipeline.shards.warm._store = Away(group)
        group.skip(30)
        await until(lambda: age() == 30)
        assert SHARD in spare.pipeline.shards.warm._held
        spare.source.assign([SHARD])
        await until(lambda: SHARD in spare.pipeline.live)
        assert age() is None
        await spare.drain()


async def test_segments_that_the_owner_deletes_meanwhile_are_looked_for_again(tmp_path: Path) -> None:
    """The next look finds the manifest that replaced theirs."""
    async with one(tmp_path, every_s=0.05, count=50) as (group, owner):

        class Late(ReadOnly):
            misses = 3

            async def read(self, shard: Shard, name: str) -> bytes:
                if name.startswith("segment") and self.misses:
                    self.misses -= 1
                    raise CorruptCheckpointError(name, "read", got="not there")
                return await super().read(shard, name)

        owner.source.assign([SHARD])
        await until(lambda: SHARD in owner.pipeline.live and owner.pipeline.live[SHARD].position == 50)
        await owner.drain()
        spare = standby(group, store=Late(group))
        await followed(spare, 50)


async def test_a_checkpoint_of_another_bundle_is_left_to_the_restore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which carries it over, or refuses it; the standby says so once."""
    async with one(tmp_path, every_s=0.05, count=50) as (group, owner):
        owner.source.assign([SHARD])
        await until(lambda: SHARD in owner.pipeline.live and owner.pipeline.live[SHARD].position == 50)
        await owner.drain()
        store = Counted(group)
        spare = standby(group, store=store, _identity=Identity({"echo": (SHA256[::-1], "echo@2")}, "", ""))
        await until(lambda: store.looks > 3)
        assert not spare.pipeline.shards.warm._held
        assert capsys.readouterr().out.count("checkpoint of other bundles") == 1


async def test_copies_of_shards_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    """Memory is bounded by the shards that could come."""
    async with one(tmp_path, every_s=0.05, count=50) as (group, owner):
        owner.source.assign([SHARD])
        await until(lambda: SHARD in owner.pipeline.live and owner.pipeline.live[SHARD].position == 50)
        await owner.drain()
        spare = standby(group)
        await followed(spare, 50)
        log = group.logs.pop(SHARD)
        await until(lambda: not spare.pipeline.shards.warm._held)
        group.logs[SHARD] = log


async def test_no_copy_is_used_that_the_newest_checkpoint_does_not_begin_with(tmp_path: Path) -> None:
    """A base of its own, a fallback past a damaged manifest: then everything is loaded."""
    async with one(tmp_path, every_s=0.05, count=250) as (group, owner):
        spare = standby(group)
        owner.source.assign([SHARD])
        await until(lambda: SHARD in owner.pipeline.live and owner.pipeline.live[SHARD].position > 100)
        await owner.drain()
        loaded = await load(group.store, SHARD)
        assert loaded is not None
        await followed(spare, loaded.manifest.position)
        warm = spare.pipeline.shards.warm._held[SHARD]
        (base, *deltas) = warm.manifest.segments
        other = msgspec.structs.replace(base, crc32=base.crc32 ^ 1)
        spare.pipeline.shards.warm._held[SHARD] = type(warm)(
            msgspec.structs.replace(warm.manifest, segments=[other, *deltas], epoch=0), warm.memory
        )
        warm.memory.rows.clear()
        spare.source.assign([SHARD])
        assert await ends_well(group, spare) == 0
