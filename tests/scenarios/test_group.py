"""Replicas come, go, crash, freeze and are fenced: the outputs and the memory end as if nothing had happened."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.scenarios.group import Group

GENTLE = ["rebalance", "back", "join", "leave"]
CRASHING = [*GENTLE, "crash"]
ALL = [*CRASHING, "hasty", "zombie", "wake", "claim", "stall"]


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
