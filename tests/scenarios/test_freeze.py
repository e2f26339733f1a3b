"""A stream whose learning is frozen from an offset on: the same bytes through any crash, and nothing learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.engine import Engine
from detector.records import Outcome
from tests.scenarios.pumps import LEARNER, STREAMS, Pumps, engine, feed, memory, records
from tests.scenarios.test_crashes import STEPS
from tests.scenarios.world import CRASH

COUNT, FROM, UNTIL = 400, 150, 301
RULES = [{"stream": "pump-1", "from": FROM}, {"stream": "pump-2", "from": FROM, "until": UNTIL}]


def undisturbed(rules: Any = RULES) -> tuple[Engine, Outcome]:
    """The whole log in one poll."""
    of = engine(LEARNER, freeze=rules)
    return of, of.advance(records(feed(COUNT), 0))


def assert_as_undisturbed(world: Pumps) -> None:
    """Alerts and scores equal, and the same final memory."""
    of, outcome = undisturbed()
    [scores] = outcome.scores
    assert len(outcome.alerts) >= STREAMS
    assert world.alerts() == outcome.alerts
    assert dict(world.outputs["scores"]) == dict(zip(scores.positions.tolist(), scores.score.tolist(), strict=True))
    assert memory(world.engine) == memory(of)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("hit", [1, 3])
async def test_a_crash_at_any_step_changes_nothing(tmp_path: Path, step: str, hit: int) -> None:
    """Before, around and after the offset; replays freeze the samples that were frozen."""
    world = Pumps(feed(COUNT), tmp_path, hit, linger_s=0.001, crash_at=(step, hit), bundle=LEARNER, freeze=RULES)
    await world.survive()
    assert world.crashed == 1
    assert_as_undisturbed(world)


@pytest.mark.parametrize("seed", range(3))
async def test_many_crashes_around_the_offset_change_nothing(tmp_path: Path, seed: int) -> None:
    """Between any two records about the freeze, evictions included."""
    items: list[Any] = feed(COUNT)
    for at in (UNTIL + 2, UNTIL + 1, UNTIL, UNTIL - 1, 200, FROM + 2, FROM + 1, FROM, FROM - 1):
        items[at:at] = [CRASH]
    world = Pumps(items, tmp_path, seed, bundle=LEARNER, freeze=RULES, max_streams=2)
    await world.survive()
    assert world.crashed >= 9
    assert_as_undisturbed(world)


async def test_control_a_freeze_that_is_forgotten_is_caught(tmp_path: Path) -> None:
    """The tests above have teeth: a process that starts without the rule after a crash gives other bytes."""
    world = Pumps(
        [*feed(FROM + 60), CRASH, *feed(COUNT - FROM - 60, FROM + 60)], tmp_path, bundle=LEARNER, freeze=RULES
    )
    await world.run()
    assert world.crashed == 1
    world.freeze = []
    await world.survive()
    assert memory(world.engine) != memory(undisturbed()[0])


def test_what_is_known_stays_bit_for_bit_while_scores_go_on() -> None:
    """The mean rests from the offset on, the last value and the count of samples go on, scores are given."""
    of = engine(LEARNER, freeze=RULES)
    items, rows, scored = feed(COUNT), [], []
    for at, item in enumerate(items):
        outcome = of.advance(records([item], at))
        scored += [len(scores) for scores in outcome.scores]
        rows.append({name: np.frombuffer(each["state"], np.float32) for name, each in memory(of).items()})
    assert scored == [1] * COUNT
    at_freeze, at_end = rows[FROM - 1], rows[-1]
    before_release = rows[UNTIL - 1]
    mean, last = 1, 2  # of the first channel, behind the count of samples
    assert at_end["pump-1"][mean] == at_freeze["pump-1"][mean]
    assert at_end["pump-1"][last] != at_freeze["pump-1"][last]
    assert at_end["pump-1"][0] == len(range(1, COUNT, STREAMS))
    assert before_release["pump-2"][mean] == at_freeze["pump-2"][mean] != at_end["pump-2"][mean]
    assert at_freeze["pump-0"][mean] != before_release["pump-0"][mean] != at_end["pump-0"][mean]


def test_control_without_a_freeze_all_of_it_moves() -> None:
    """The same feed, nothing said; and before the offset the freeze changes nothing."""
    free, frozen = memory(undisturbed([])[0]), memory(undisturbed()[0])
    assert free["pump-0"] == frozen["pump-0"]
    assert free["pump-1"]["state"] != frozen["pump-1"]["state"]
    assert free["pump-2"]["state"] != frozen["pump-2"]["state"]
    early, told = engine(LEARNER), engine(LEARNER, freeze=RULES)
    for each in (early, told):
        each.advance(records(feed(FROM), 0))
    assert memory(early) == memory(told)


def test_frozen_and_free_streams_side_by_side_are_as_alone() -> None:
    """Waves of both kinds give each stream the bits that it has by itself."""
    together = memory(undisturbed()[0])
    items = feed(COUNT)
    for number in range(STREAMS):
        alone = engine(LEARNER, freeze=RULES)
        for at in range(number, COUNT, STREAMS):
            alone.advance(records([items[at]], at))
        assert memory(alone) == {f"pump-{number}": together[f"pump-{number}"]}
