"""Shards that come and go: every interleaving of polls, restores, revocations and claims that we could think of.

The world is a group of replicas (tests/scenarios/group.py) whose steps are taken one by one here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from detector.checkpoint.restore import claim, load
from detector.errors import CorruptCheckpointError, FencedError, SinkError, SourceError
from detector.pipeline import LiveShard
from detector.records import Alert, Records, Shard
from tests.scenarios.echo import records
from tests.scenarios.group import Group, Replica

SHARD = Shard("cluster", "sensors", 0)
_LIMIT_S = 60  # for a crowded machine; where all is well nothing takes a tenth of it


async def until(is_so: Callable[[], Any], limit_s: float = _LIMIT_S) -> None:
    """Wait until it is."""
    async with asyncio.timeout(limit_s):
        while not is_so():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def one(folder: Path, *, ticks: bool = False, **settings: Any) -> AsyncIterator[tuple[Group, Replica]]:
    """One shard and one replica, to which it is not given yet; time stands still unless it `ticks`."""
    group = Group(folder, shards=1, **settings)
    replica = Replica(group)
    group.members.append(replica)
    await until(lambda: replica.source.is_listened_to)
    ticking = asyncio.create_task(group.tick() if ticks else asyncio.sleep(0))
    try:
        async with asyncio.timeout(4 * _LIMIT_S):
            yield group, replica
    finally:
        ticking.cancel()
        replica.running.cancel()
        await asyncio.wait([replica.running])


async def ends_well(group: Group, replica: Replica) -> int:
    """Read to the end, and compare; returns how many alerts came twice."""
    await until(
        lambda: SHARD in replica.pipeline.live and replica.pipeline.live[SHARD].position == len(group.logs[SHARD])
    )
    await replica.drain()
    return await group.check()


def kept(group: Group) -> list[str]:
    """Segments that were read since the list was last cleared."""
    return [name for name in group.store.reads if name.startswith("segment")]


# Revocations


async def test_a_revocation_keeps_everything_and_leaves_nothing_to_replay(tmp_path: Path) -> None:
    """The poll in flight, its alerts, a checkpoint, the commit: then the next owner has nothing to do again."""
    async with one(tmp_path, every_s=1000) as (group, replica):
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live and replica.pipeline.live[SHARD].position > 50)
        live = replica.pipeline.live[SHARD]
        await replica.source.revoke(5)
        assert not replica.pipeline.live
        loaded = await load(group.store, SHARD)
        assert loaded is not None
        assert loaded.manifest.position == live.position == live.engine.position == group.committed[SHARD]
        replica.source.assign([SHARD])
        assert await ends_well(group, replica) == 0
        assert group.applied[SHARD] == len(group.logs[SHARD])


async def test_a_shard_that_comes_straight_back_is_not_read_again(tmp_path: Path) -> None:
    """Its rows lingered: the fence is a new one, the manifest is the one that they are of, nothing is loaded."""
    async with one(tmp_path) as (group, replica):
        replica.source.assign([SHARD])
        for position in (50, 100, 150):
            await until(
                lambda at=position: SHARD in replica.pipeline.live and replica.pipeline.live[SHARD].position > at
            )
            engine = replica.pipeline.live[SHARD].engine
            await replica.source.revoke(5)
            replica.source.assign([SHARD])
            await until(lambda: SHARD in replica.pipeline.live)
            assert replica.pipeline.live[SHARD].engine is engine
        assert kept(group) == []
        assert await ends_well(group, replica) == 0


async def test_rows_linger_for_a_while_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then they are forgotten, and loaded when the shard comes back."""
    monkeypatch.setattr("detector.pipeline.dataflow._WATCH_S", 0.01)
    async with one(tmp_path, linger_s=60) as (group, replica):
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live and replica.pipeline.live[SHARD].position > 50)
        await replica.source.revoke(5)
        group.skip(61)
        await until(lambda: not replica.pipeline.shards.warm._held)
        assert kept(group) == []
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live)
        assert len(kept(group)) == 1
        assert await ends_well(group, replica) == 0


async def test_rows_that_another_went_on_from_are_brought_up_to_date(tmp_path: Path) -> None:
    """Only what the other wrote is loaded."""
    async with one(tmp_path, every_s=1000) as (group, replica):
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live and replica.pipeline.live[SHARD].position > 50)
        engine = replica.pipeline.live[SHARD].engine
        await replica.source.revoke(5)
        other = Replica(group)
        other.source.assign([SHARD])
        await until(lambda: SHARD in other.pipeline.live and other.pipeline.live[SHARD].position > 150)
        await other.drain()
        group.store.reads.clear()
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live)
        assert len(kept(group)) == 1, "a base and a delta are there"
        assert replica.pipeline.live[SHARD].engine is engine
        assert await ends_well(group, replica) == 0


async def test_warm_rows_outlive_a_restore_that_another_rebalance_ends(tmp_path: Path) -> None:
    """Rebalances come in rows; the memory is there as long as nobody has touched it."""
    async with one(tmp_path) as (group, replica):
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live and replica.pipeline.live[SHARD].position > 50)
        engine = replica.pipeline.live[SHARD].engine
        await replica.source.revoke(5)
        for _ in range(3):
            group.store.open.clear()  # the restore waits before its manifest
            replica.source.assign([SHARD])
            await until(lambda: replica.pipeline.shards.is_restoring(replica.source))
            await asyncio.sleep(0.02)
            await replica.source.revoke(5)
            group.store.open.set()
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live)
        assert replica.pipeline.live[SHARD].engine is engine
        assert await ends_well(group, replica) == 0


async def test_a_full_sink_does_not_hold_up_the_group(tmp_path: Path) -> None:
    """Over the deadline the shard is dropped; the revocation neither waits longer nor raises, and nothing is lost."""
    async with one(tmp_path) as (group, replica):
        release, deliver = asyncio.Event(), replica.sinks[0].deliver_alerts

        async def full(shard: Shard, alerts: Sequence[Alert]) -> None:
            await release.wait()
            await deliver(shard, alerts)

        replica.sinks[0].deliver_alerts = full  # type: ignore[method-assign]  # the broker of the alerts is slow
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live)
        await until(replica.pipeline.inputs[0].turn.locked)
        async with asyncio.timeout(_LIMIT_S):
            await replica.source.revoke(0.05)
        assert not replica.pipeline.live
        replica.source.assign([SHARD])
        await asyncio.sleep(0.05)
        assert not replica.pipeline.live, "what it still delivers comes before the replay looks what is there"
        release.set()
        assert await ends_well(group, replica) == 0


async def test_a_stalled_store_does_not_hold_up_the_group(tmp_path: Path) -> None:
    """Nor does a store; who takes over replays."""
    async with one(tmp_path, ticks=True, every_s=0.01) as (group, replica):
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live and replica.pipeline.live[SHARD].position > 50)
        group.store.open.clear()
        async with asyncio.timeout(_LIMIT_S):
            await replica.source.revoke(0.05)
        group.store.open.set()
        replica.source.assign([SHARD])
        assert await ends_well(group, replica) == 0


async def test_a_sink_that_fails_in_the_middle_of_a_poll_keeps_nothing_of_it(tmp_path: Path) -> None:
    """Rows of which an alert was not delivered must not become durable by a revocation that comes right then."""
    async with one(tmp_path, every_s=1000) as (group, replica):
        failing, deliver = asyncio.Event(), replica.sinks[0].deliver_alerts

        async def refuse(shard: Shard, alerts: Sequence[Alert]) -> None:
            if replica.pipeline.live[SHARD].position > 50:
                failing.set()
                raise SinkError("alerts", "refused")
            await deliver(shard, alerts)

        replica.sinks[0].deliver_alerts = refuse  # type: ignore[method-assign]  # the broker goes bad
        replica.source.assign([SHARD])
        await failing.wait()
        await replica.source.revoke(5)
        with pytest.raises(ExceptionGroup, match="unhandled"):
            await replica.running
        loaded = await load(group.store, SHARD)
        assert loaded is not None
        assert loaded.manifest.position == 0
        await replica.source.revoke(5)  # and one that comes after the end does no harm


# Polls that outlive what they were read for


async def test_a_poll_in_hand_does_not_reach_the_next_lineage(tmp_path: Path) -> None:
    """Read before the revocation, looked at after the restore: it is dropped, and read again."""
    async with one(tmp_path, every_s=1000) as (group, replica):
        source, turn = replica.source, replica.pipeline.inputs[0].turn
        source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live and replica.pipeline.live[SHARD].position > 50)
        async with turn:  # the drive waits, with a poll in hand
            await asyncio.sleep(0.02)
            await source.revoke(0.01)
            source.assign([SHARD])
            shards = replica.pipeline.shards
            await shards.take_assignments(replica.pipeline.inputs[0])
            assert SHARD not in shards.live
        await until(lambda: SHARD in shards.live)
        assert await ends_well(group, replica) == 0


async def test_a_batch_is_bound_to_the_lineage_it_was_read_for(tmp_path: Path) -> None:
    """Not to the shard's name."""
    async with one(tmp_path, every_s=1000) as (group, replica):
        shards = replica.pipeline.shards
        replica.source.assign([SHARD])
        await until(lambda: SHARD in shards.live)
        former = shards.live[SHARD]
        batch = (former, records_from(group, former))
        await replica.source.revoke(5)
        assert shards.still_wanted([batch]) == []
        replica.source.assign([SHARD])
        await until(lambda: SHARD in shards.live)
        assert shards.still_wanted([batch]) == []
        live = shards.live[SHARD]
        live.is_resting = True
        assert shards.bound([batch[1]]) == []
        live.is_resting = False
        assert shards.bound([batch[1]]) == [(live, batch[1])]


async def test_a_source_that_hands_over_twice_is_stopped(tmp_path: Path) -> None:
    """A memory that took records twice could never be trusted again."""
    async with one(tmp_path) as (group, replica):
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live and replica.pipeline.live[SHARD].position > 20)
        live = replica.pipeline.live[SHARD]
        again = records_from(group, live, 10)
        with pytest.raises(SourceError, match=r"handed over twice: expected positions from \d+ on, got 10"):
            replica.pipeline.shards.still_wanted([(live, again)])


def records_from(group: Group, live: LiveShard, start: int | None = None) -> Records:
    """A few records of the log."""
    at = live.position if start is None else start
    return records(group.logs[SHARD][at : at + 3], at, SHARD)


# Restores


async def test_a_shard_that_is_revoked_while_it_is_restored_never_lives(tmp_path: Path) -> None:
    """And its restore, wherever it was, does no harm to the next owner's."""
    async with one(tmp_path) as (group, replica):
        group.store.open.clear()  # the restore waits before its manifest
        replica.source.assign([SHARD])
        await until(lambda: replica.pipeline.shards.is_restoring(replica.source))
        await replica.source.revoke(5)
        assert not replica.pipeline.shards.is_ours(SHARD)
        replica.source.assign([SHARD])
        group.store.open.set()
        assert await ends_well(group, replica) == 0


async def test_a_shard_that_came_and_went_between_two_looks_is_not_restored(tmp_path: Path) -> None:
    """The source takes its word back."""
    async with one(tmp_path) as (_, replica):
        replica.source.assign([SHARD])
        await replica.source.revoke(5)
        await asyncio.sleep(0.1)
        assert not replica.pipeline.shards.is_ours(SHARD)


async def test_a_member_without_shards_is_ready(tmp_path: Path) -> None:
    """More replicas than partitions: the spare one is told so, and is well."""
    async with one(tmp_path) as (_, replica):
        replica.telemetry.awaited(["group"])
        replica.telemetry.self_tested()
        assert replica.telemetry.status.unready()
        replica.source.assign([])
        await until(lambda: not replica.telemetry.status.unready())


# Fences


async def test_a_claimed_shard_is_let_go_and_asked_for_again(tmp_path: Path) -> None:
    """In a group: another's claim ends the lineage; if after a session it is still ours, it is restored."""
    async with one(tmp_path, ticks=True, every_s=0.01) as (group, replica):
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live)
        for _ in range(3):
            before = replica.pipeline.live[SHARD]
            group.logs[SHARD] += group.logs[SHARD][:20]
            await claim(group.store, SHARD)
            await until(lambda last=before: replica.pipeline.live.get(SHARD) not in (None, last))
        await ends_well(group, replica)
        losses = replica.telemetry.registry.get_sample_value("tidewarden_fence_losses_total", {"source": "group"})
        assert losses == 3


async def test_a_fenced_shard_that_is_revoked_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """The group agrees that it is another's."""
    async with one(tmp_path, ticks=True, every_s=0.01) as (group, replica):
        group.reclaim_s = 0.1
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live)
        await claim(group.store, SHARD)
        await until(lambda: SHARD not in replica.pipeline.live)
        await replica.source.revoke(5)
        await asyncio.sleep(0.2)
        assert not replica.pipeline.shards.is_ours(SHARD)


async def test_cold_rows_that_are_missing_are_somebody_elses_or_a_damage(tmp_path: Path) -> None:
    """A new owner may have deleted what a former one still names; else part of the memory is gone, and all stops."""
    async with one(tmp_path, every_s=1000) as (group, replica):
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live)
        live, damage = replica.pipeline.live[SHARD], CorruptCheckpointError("cold", "read", got="not there")
        with pytest.raises(CorruptCheckpointError):
            await replica.pipeline.shards.lose_if_claimed(live, damage)
        await claim(group.store, SHARD)
        await replica.pipeline.shards.lose_if_claimed(live, damage)
        assert SHARD not in replica.pipeline.live
        await until(lambda: SHARD in replica.pipeline.live)
        assert replica.pipeline.live[SHARD] is not live
        await ends_well(group, replica)


async def test_two_replicas_with_the_same_static_shard_are_told_so(tmp_path: Path) -> None:
    """The one that was there ends, and says which source to correct."""
    async with one(tmp_path, ticks=True, every_s=0.01) as (group, replica):
        group.reclaim_s = None
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live)
        await claim(group.store, SHARD)
        with pytest.raises(ExceptionGroup) as caught:
            await replica.running
        assert caught.group_contains(FencedError, match="two replicas read it.*source 'group'", depth=1)


# A store that stalls


async def test_a_shard_rests_beyond_the_replay_bound_and_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to there it scores as always; the age and the reason can be seen; nothing is lost or doubled."""
    monkeypatch.setattr("detector.pipeline.dataflow._WATCH_S", 0.01)
    labels = {"source": "group", "topic": "sensors", "partition": "0"}
    async with one(tmp_path, count=2000, replay_bound_s=30, every_s=5) as (group, replica):
        group.pace_s = 0.02  # the log must not be over before the shard rests

        def gauge(name: str) -> float | None:
            return replica.telemetry.registry.get_sample_value(f"tidewarden_{name}", labels)

        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live)
        live = replica.pipeline.live[SHARD]
        group.store.open.clear()
        group.skip(6)
        await until(lambda: live.writing is not None)
        at = live.position
        await until(lambda: live.position > at + 50)
        group.skip(20)
        await asyncio.sleep(0.05)
        assert not live.is_resting
        group.skip(11)
        await until(lambda: live.is_resting)
        await until(lambda: gauge("shard_paused") == 1 and (gauge("checkpoint_age_seconds") or 0) > 30)
        assert replica.telemetry.status.shards[SHARD].paused == "checkpoints stall"
        await asyncio.sleep(0.05)
        at = live.position
        await asyncio.sleep(0.05)
        assert live.position == at < 2000
        group.pace_s = 0.0
        group.store.open.set()
        await until(lambda: not live.is_resting)
        assert gauge("shard_paused") == 0
        assert await ends_well(group, replica) == 0
        assert group.applied[SHARD] == 2000


async def test_a_shard_that_was_quiet_does_not_rest(tmp_path: Path) -> None:
    """The age is that of what was processed, not that of the last checkpoint."""
    async with one(tmp_path, count=100, replay_bound_s=30, every_s=5) as (group, replica):
        replica.source.assign([SHARD])
        await until(lambda: SHARD in replica.pipeline.live and replica.pipeline.live[SHARD].position == 100)
        group.skip(6)
        live = replica.pipeline.live[SHARD]
        await until(lambda: not live.has_moved)
        group.skip(1000)
        group.logs[SHARD] += group.logs[SHARD][:50]
        rested = []
        while live.position < 150:
            rested.append(live.is_resting)
            await asyncio.sleep(0.001)
        assert not any(rested)
