"""Replicas come, go, crash, freeze and are fenced: the outputs and the memory end as if nothing had happened."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from detector.checkpoint.base import Store, fence_name
from detector.clock import ManualClock
from detector.records import Shard
from tests.scenarios.group import Group, TopicSink

GENTLE = ["rebalance", "back", "join", "leave"]
CRASHING = [*GENTLE, "crash"]
ALL = [*CRASHING, "hasty", "zombie", "wake", "claim", "stall"]
_MOST_LIVES = 40


def schedule(words: list[str], seed: int, length: int = 14) -> list[str]:
    """A random life; every word at least once."""
    rng = random.Random(seed)
    drawn = [*words, *rng.choices(words, k=length)]
    rng.shuffle(drawn)
    return ["join", *drawn]


@pytest.mark.parametrize("seed", range(4))
async def test_shards_that_are_handed_over_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    """Without crashes and zombies no alert comes twice."""
    group = Group(tmp_path, seed=seed)
    await group.live(schedule(GENTLE, seed))
    assert await group.check() == 0
    assert group.done["rebalance"] >= 1


@pytest.mark.parametrize("seed", range(4))
async def test_crashes_between_hand_overs_change_nothing(tmp_path: Path, seed: int) -> None:
    """And no alert comes twice: who takes over knows what stands on the output."""
    group = Group(tmp_path, seed=seed, count=400)
    await group.live(schedule(CRASHING, seed))
    assert await group.check() == 0
    assert group.done["crash"] >= 1


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_to_a_group_changes_nothing(tmp_path: Path, seed: int) -> None:
    """Zombies, foreign claims, stalls and slow disks included; copies are equal."""
    group = Group(tmp_path, seed=seed, count=400, slow_share=0.05)
    await group.live(schedule(ALL, seed))
    await group.check()
    assert min(group.done[word] for word in ALL) >= 1


@pytest.mark.parametrize("seed", range(6))
async def test_replicas_that_follow_each_other_change_nothing(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory goes to and fro between what is ours, what lingers and what is followed."""
    monkeypatch.setattr("detector.pipeline.standby._FOLLOW_S", 0.005)
    group = Group(tmp_path, seed=seed, count=400, standby=True, linger_s=3)
    await group.live(schedule(ALL, seed))
    await group.check()
    assert group.warm_restores > 0


@pytest.mark.parametrize("seed", range(4))
async def test_a_wall_clock_that_jumps_changes_nothing(tmp_path: Path, seed: int) -> None:
    """An hour ahead, an hour back, steps at random: time comes from records, schedules from a clock that only grows."""
    clock = WildClock(seed)
    group = Group(tmp_path, seed=seed, count=300, clock=clock, keep_history="6/h for 2h")
    await group.live(schedule(CRASHING, seed))
    assert await group.check() == 0
    assert clock.back > 10
    assert clock.ahead > 10


class WildClock(ManualClock):
    """A wall clock that nobody can rely on, beside a monotonic one that everybody can."""

    def __init__(self, seed: int) -> None:
        super().__init__(1_600_000_000_000_000_000)
        self._random, self.ahead, self.back = random.Random(seed), 0, 0

    def now_ns(self) -> int:
        """Off by up to an hour, anew each time."""
        off_s = self._random.choice([-3600, 3600, self._random.uniform(-3600, 3600)])
        self.ahead, self.back = self.ahead + (off_s > 0), self.back + (off_s < 0)
        return super().now_ns() + round(off_s * 1e9)


# The tests above have teeth


async def fails(folder: Path, words: list[str], as_expected: Callable[[str], bool]) -> bool:
    """Whether the tests above would say so of one of some lives.

    Lives run on a real event loop, so that no seed promises a certain end: some end well though a guard is missing.
    """
    for seed in range(_MOST_LIVES):
        group = Group(folder / str(seed), seed=seed)
        try:
            await group.live(schedule(words, seed))
            assert await group.check() == 0, "copies"
        except (AssertionError, ExceptionGroup, TimeoutError) as failure:
            if as_expected(f"{type(failure).__name__}: {failure}"):
                return True
    return False


async def test_control_without_fences_owners_overwrite_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one fence for all, what a zombie keeps is as good as what the owner keeps."""

    async def same(store: Store, shard: Shard) -> int:
        await store.create(shard, fence_name(1))
        return 1

    monkeypatch.setattr("detector.checkpoint.restore.claim", same)
    assert await fails(tmp_path, ["zombie", "zombie", "wake", "rebalance"], lambda said: "copies" not in said)


async def test_control_a_manifest_before_the_alerts_loses_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither flushed by the revocation nor acknowledged by the checkpoint."""

    async def never(self: TopicSink) -> None:
        """Later, perhaps."""

    monkeypatch.setattr(TopicSink, "flush", never)
    assert await fails(tmp_path, CRASHING, lambda said: "AssertionError" in said)


async def test_control_a_revocation_that_does_not_wait_for_the_poll_doubles_alerts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outputs reach the sinks behind the back of the next owner, who has looked already."""
    monkeypatch.setattr(Group, "new_turn", NoTurn)
    monkeypatch.setattr(Group, "full_s", 0.12)
    assert await fails(tmp_path, GENTLE, lambda said: "copies" in said)


class NoTurn:
    """A turn that anybody may have at any time."""

    async def __aenter__(self) -> None:
        """Come in."""

    async def __aexit__(self, *_: object) -> None:
        """And go."""
