"""A stream whose learning is frozen from an offset on: the same bytes through any crash, and nothing learnt."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.engine import Engine
from detector.records import Outcome
from tests.scenarios.pumps import LEARNER, PERIOD_S, START_S, STREAMS, Pumps, engine, feed, memory, records
from tests.scenarios.test_crashes import STEPS
from tests.scenarios.world import CRASH

COUNT, FROM, UNTIL = 402, 150, 301
RULES = [{"stream": "pump-1", "from": FROM}, {"stream": "pump-2", "from": FROM, "until": UNTIL}]


def undisturbed(rules: Any = RULES, *, is_narrow: bool = False) -> tuple[Engine, Outcome]:
    """The whole log in one poll."""
    of = engine(LEARNER, freeze=rules, is_narrow=is_narrow)
    return of, of.advance(records(log(is_narrow=is_narrow), 0, is_narrow=is_narrow))


def log(*, is_narrow: bool) -> list[Any]:
    """The same samples, wide or narrow: all pumps' flow, then all pumps' heat."""
    items, ticks = feed(COUNT), range(0, COUNT, STREAMS)
    return [item for at in ticks for item in items[at : at + STREAMS] * 2] if is_narrow else list(items)


def assert_as_undisturbed(world: Pumps) -> None:
    """Alerts and scores equal, and the same final memory."""
    of, outcome = undisturbed(is_narrow=world.is_narrow)
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


@pytest.mark.parametrize("is_narrow", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("seed", range(3))
async def test_many_crashes_around_the_offset_change_nothing(tmp_path: Path, seed: int, is_narrow: bool) -> None:
    """Between any two records about the freeze, evictions included; narrow, also in the middle of a sample."""
    items = log(is_narrow=is_narrow)
    for at in (UNTIL + 2, UNTIL + 1, UNTIL, UNTIL - 1, 200, FROM + 2, FROM + 1, FROM, FROM - 1):
        items[at:at] = [CRASH]
    world = Pumps(items, tmp_path, seed, bundle=LEARNER, freeze=RULES, max_streams=2, is_narrow=is_narrow)
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


def at_tick(tick: int) -> str:
    """An event time, as an operator writes it."""
    return datetime.fromtimestamp(START_S + tick * PERIOD_S, UTC).isoformat()


def states(of: Engine) -> dict[str, bytes]:
    """What the bundle keeps of each stream."""
    return {stream: row["state"] for stream, row in memory(of).items()}


def test_narrow_samples_freeze_as_wide_ones_do() -> None:
    """By event time both kinds of the same samples are frozen alike, and give the same scores."""
    rules = [
        {"stream": "pump-*", "from": at_tick(50), "until": at_tick(100)},
        {"stream": "pump-1", "from": at_tick(120)},
    ]
    (wide, of_wide), (narrow, of_narrow) = (undisturbed(rules, is_narrow=is_narrow) for is_narrow in (False, True))
    assert states(narrow) == states(wide) != states(undisturbed([])[0])
    given = [
        {(stream, ns): score for stream, ns, score in zip(each.streams, each.event_ns, each.score, strict=True)}
        for each in (*of_wide.scores, *of_narrow.scores)
    ]
    assert given[0] == given[1]


@pytest.mark.parametrize(("offset", "first_frozen"), [(2, 0), (4, 0), (5, 1)])
def test_a_narrow_sample_stands_where_the_record_stands_that_completes_it(offset: int, first_frozen: int) -> None:
    """Of pump-1 flow is the second record of a tick, heat the fifth: an offset in between freezes the sample."""
    tick = 60
    by_offset = [{"stream": "pump-1", "from": tick * 2 * STREAMS + offset}]
    by_time = [{"stream": "pump-1", "from": at_tick(tick + first_frozen)}]
    assert states(undisturbed(by_offset, is_narrow=True)[0]) == states(undisturbed(by_time, is_narrow=True)[0])
    other = [{"stream": "pump-1", "from": at_tick(tick + 1 - first_frozen)}]
    assert states(undisturbed(by_offset, is_narrow=True)[0]) != states(undisturbed(other, is_narrow=True)[0])
