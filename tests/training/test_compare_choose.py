"""Which candidate is taken, and what is said of it: the cheapest of those that are as good as the best."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from detector.errors import ConfigurationError
from tests.training.comparisons import drawn, finding, learnt, result, watched
from training.compare.choose import LOSS, VUS_PR, choose
from training.compare.costs import Cost
from training.compare.figures import figures
from training.compare.finding import Finding
from training.compare.plan import make_plan
from training.compare.search import Search
from training.compare.words import recommendation

SMALL, LARGE = {"model.hidden": 8}, {"model.hidden": 64}
COSTS = {1: Cost(5.0, 50.0, 500), 2: Cost(20.0, 60.0, 4_000)}


def pair(small: float, large: float, vus_pr: tuple[float, float] = (0.5, 0.5)) -> list[Finding]:
    """A small and a large candidate with these losses."""
    return [finding(1, SMALL, small, vus_pr[0]), finding(2, LARGE, large, vus_pr[1])]


def noisy(one: Finding, size: float, seed: int) -> Finding:
    """The same with losses that vary by themselves."""
    from msgspec.structs import replace

    losses = (np.array(one.losses) + np.random.default_rng(seed).normal(0, size, len(one.losses))).tolist()
    return replace(one, losses=losses)


def test_a_lead_within_noise_is_not_paid_for() -> None:
    """Where the larger one leads by less than the stretches vary, the cheaper one is taken."""
    small, large = pair(0.2, 0.199)
    choice = choose([noisy(small, 0.02, 1), noisy(large, 0.02, 2)], [], COSTS)
    assert choice.taken.number == 1


def test_a_lead_beyond_noise_is() -> None:
    """The control of the one above: what is better on every stretch is taken, dear as it is."""
    choice = choose(pair(0.2, 0.17), [], COSTS)
    assert choice.taken.number == 2


def test_what_another_seed_does_is_noise_too() -> None:
    """A lead that is smaller than what the seed did to the best one does not count."""
    small, large = pair(0.2, 0.19)
    again = [finding(1001, LARGE, 0.21, role="again")]
    assert choose([small, large], [], COSTS).taken is large
    assert choose([small, large], again, COSTS).taken is small


def test_detection_comes_before_forecasts() -> None:
    """Where enough streams tell, VUS-PR decides; with five of them the loss does."""
    both = pair(0.2, 0.25, (0.3, 0.6))
    assert choose(both, [], COSTS).lead is VUS_PR
    assert choose(both, [], COSTS).taken.number == 2
    few = [finding(n, values, 0.2 + 0.05 * n, watched=watched(0.2 * n, 5)) for n, values in ((1, SMALL), (2, LARGE))]
    assert choose(few, [], COSTS).lead is LOSS
    assert choose(few, [], COSTS).taken.number == 1


def test_who_is_beaten_in_everything_is_not_on_the_front() -> None:
    """Worse and dearer is no choice at all; better and dearer is one."""
    assert choose(pair(0.2, 0.2, (0.5, 0.4)), [], COSTS).front == {1}
    assert choose(pair(0.2, 0.2, (0.5, 0.6)), [], COSTS).front == {1, 2}


def test_the_reason_is_told_in_plain_words() -> None:
    """What is taken and what it costs, who leads by how much, what training is worth, and what is doubtful."""
    said = recommendation(result())
    assert said[0].startswith("Take ")
    assert "bytes per stream" in said[0]
    told = " ".join(said)
    for words in ("below that of the last value", "Training is worth it", "still falling", "failed: lstm, hidden 8"):
        assert words in told
    none = [finding(1, SMALL, 0.4, 0.36), finding(2, LARGE, 0.4, 0.36)]
    told = " ".join(recommendation(result(none, [], truth="injected")))
    for words in ("no better than the last value", "training has not shown its worth", "--labels"):
        assert words in told


def test_figures_are_what_they_say() -> None:
    """Ratios to what was promised, shares of events, and nothing where nothing is known."""
    found = figures(finding(1, SMALL), COSTS[1], 1.0)
    assert found["events found"] == 0.5
    assert found["delay"] == 11
    assert found["2 nines"] == pytest.approx(8 * 11 / (8 * 900 * 0.01))
    assert found["realised/promised"] == pytest.approx(4 / 0.8)
    bare = figures(finding(1, SMALL, watched=[], drawn=drawn()), None, 1.0)
    assert {name for name, value in bare.items() if value is None} >= {"VUS-PR", "events found", "us/sample", "delay"}


# What the budget allows


def floor(epoch_s: float = 1.0) -> Finding:
    """It takes 48 seconds beside training."""
    return finding(0, {}, role="floor", fit_s=1.0, epoch_s=epoch_s)


def test_a_budget_is_shared_out_equally() -> None:
    """Every combination gets the same time where that is enough for a few epochs; else there is a search."""
    plan = make_plan(1800, 2, 10, 2, floor())
    assert plan.way == "grid"
    assert 12 * plan.each_s == pytest.approx(plan.total_s)
    assert plan.total_s == pytest.approx(3600 - floor().spent_s)
    search = make_plan(1800, 2, 500, 2, floor())
    assert search.way == "search"
    assert search.fit_s == pytest.approx(5.0)
    assert 40 < search.tries < 60


def test_a_budget_for_less_than_two_candidates_is_refused() -> None:
    """With what would be enough; just that is."""
    with pytest.raises(ConfigurationError, match="too small for two candidates: expected at least") as caught:
        make_plan(60, 2, 10, 2, floor())
    assert "got 60 s" in str(caught.value)
    enough = (floor().spent_s + 4 * (1.2 * 48 + 5)) / 2
    assert make_plan(enough + 1, 2, 10, 2, floor()).tries == 2
    with pytest.raises(ConfigurationError):
        make_plan(enough - 1, 2, 10, 2, floor())


# The search

OVER = {"model.cell": ["gru", "lstm", "rnn"], "model.hidden": [8, 16, 32, 64]}
GRID = [{"model.cell": cell, "model.hidden": hidden} for cell in OVER["model.cell"] for hidden in OVER["model.hidden"]]


def tried(search: Search, count: int, pruned: bool = False) -> list[dict[str, object]]:
    """What a search proposes when the loss falls with the width."""
    proposed = []
    for number in range(1, count + 1):
        values = search.propose(number)
        if values is None:
            break
        loss = 1 / values["model.hidden"]
        state = "pruned" if pruned and search.is_hopeless(number, 0.5, loss) else "done"
        search.learn(finding(number, values, loss, state=state))
        proposed.append(values)
    return proposed


def test_a_search_tries_no_combination_twice_and_ends_with_the_last() -> None:
    """Nor one that cannot be built; the same seed proposes the same."""
    left_out = GRID[:3]
    proposed = tried(Search(OVER, GRID[3:], 7), 99)
    assert len(proposed) == len(GRID) - 3
    assert not [values for values in left_out if values in proposed]
    assert proposed[:5] == tried(Search(OVER, GRID[3:], 7), 5)


def test_a_search_gives_up_what_has_no_hope() -> None:
    """Worse than the median of the others at the same share of the time, once there are enough of them."""
    search = Search(OVER, GRID, 7)
    for number in range(1, 6):
        values = search.propose(number)
        assert values is not None
        assert not search.is_hopeless(number, 0.6, 0.1)
        search.learn(finding(number, values, 0.1))
    assert search.propose(6) is not None
    assert not search.is_hopeless(6, 0.05, 0.5)
    assert search.is_hopeless(6, 0.6, 0.5)


def test_a_resumed_search_knows_what_was_found() -> None:
    """What was tried before is not proposed again, whatever became of it."""
    before = [finding(1, GRID[0]), finding(2, GRID[1], state="pruned", epochs=learnt(0.3, 4))]
    proposed = tried(Search(OVER, GRID, 7, before), 99)
    assert len(proposed) == len(GRID) - 2
    assert GRID[0] not in proposed
