"""Whatever a crash interrupts, the outputs and the memory end as if it had not happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detector.checkpoint.protocol import Checkpointer
from detector.pipeline import LiveShard
from tests.scenarios.world import CRASH, SHARD, EchoEngine, World, plain_feed, records, s

STEPS = [
    "flush alerts",
    "flush scores",
    "before segment",
    "after segment",
    "before manifest",
    "after manifest",
    "commit",
    "delete",
]


def assert_as_undisturbed(world: World) -> None:
    """Alerts equal in order and without copies; every score and letter there; the same final memory."""
    engine = EchoEngine(SHARD)
    whole = records(world.log, 0)
    outcome = engine.advance(whole)
    assert world.alerts() == outcome.alerts
    ((scores,), given) = outcome.scores, world.outputs["scores"]
    assert dict(given) == dict(zip(scores.positions.tolist(), scores.score.tolist(), strict=True))
    letters = {letter.position: letter for letter in world.outputs["letters"]}
    assert list(letters) == [reject.position for reject in outcome.rejects]
    assert (world.engine.rows, world.engine.position) == (engine.rows, engine.position)


def with_crashes(count: int, every: int, seed: int) -> list[Any]:
    """A feed in which the process crashes again and again."""
    feed: list[Any] = plain_feed(count, seed=seed)
    for at in range(count - 10, 0, -every):
        feed[at:at] = [CRASH]
    return feed


async def test_a_feed_with_crashes_gives_what_one_without_gives(tmp_path: Path) -> None:
    """Crashes between any two records change nothing."""
    feed = [s(90), s(1), CRASH, s(95, "valve"), CRASH, s(99), s(2), CRASH, s(100)]
    world = World(feed, tmp_path)
    await world.survive()
    assert world.crashed == 3
    assert_as_undisturbed(world)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("hit", [1, 2, 5])
async def test_a_crash_at_any_step_of_a_checkpoint_changes_nothing(tmp_path: Path, step: str, hit: int) -> None:
    """The order of the steps leaves no moment at which a crash loses, changes or doubles an alert."""
    world = World(plain_feed(400), tmp_path, seed=hit, linger_s=0.001, pace_s=0.002, crash_at=(step, hit))
    await world.survive()
    assert world.crashed == 1
    assert_as_undisturbed(world)


@pytest.mark.parametrize("seed", range(10))
async def test_many_crashes_at_random_places_change_nothing(tmp_path: Path, seed: int) -> None:
    """Crashes during replays of crashes included."""
    world = World(with_crashes(300, 17 + seed, seed), tmp_path, seed=seed, linger_s=0.003)
    await world.survive()
    assert world.crashed >= 10
    assert_as_undisturbed(world)


async def test_control_a_manifest_before_the_acknowledgement_loses_alerts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above has teeth: with steps 2 and 4 swapped it fails."""

    async def later(self: Checkpointer) -> None:
        """Not now."""

    monkeypatch.setattr(Checkpointer, "_acknowledge", later)
    world = World(with_crashes(300, 50, 1), tmp_path, pace_s=0.002, spares_some=False)
    await world.survive()
    golden = EchoEngine(SHARD).advance(records(world.log, 0)).alerts
    assert {alert.id for alert in world.alerts()} < {alert.id for alert in golden}


async def test_control_without_suppression_alerts_are_doubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so it does where known ids are ignored; the copies are equal."""
    monkeypatch.setattr(LiveShard, "known_alerts", property(lambda _: {}, lambda *_: None), raising=False)
    world = World(with_crashes(300, 17, 1), tmp_path, every_s=0.02)
    await world.survive()
    golden = EchoEngine(SHARD).advance(records(world.log, 0)).alerts
    assert len(world.alerts()) > len(golden)
    assert {alert.id: alert for alert in world.alerts()} == {alert.id: alert for alert in golden}
