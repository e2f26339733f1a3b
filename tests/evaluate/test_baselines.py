"""Floors: causal, finite whatever comes, and the same at every run."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluate import made_up
from training.evaluate.baselines import FLOORS, Baseline, reference
from training.evaluate.suites import Case

CUT = 260  # after the training rows, before the bump


def look_ahead(case: Case) -> np.ndarray:
    """What no floor may be: scaled by all rows, later ones too."""
    return np.abs(case.values[:, 0] - case.values[:, 0].mean())


def is_causal(floor: Baseline) -> bool:
    """Whether rows after the cut change what is said before it."""
    values = made_up.wave(channels=3)
    other = values.copy()
    other[CUT:] = -7.0
    told = (floor(made_up.case(values=one))[:CUT] for one in (values, other))
    return np.array_equal(*told)


@pytest.mark.parametrize("name", list(FLOORS))
def test_a_floor_looks_at_the_past_alone(name: str) -> None:
    """Another future leaves every score before it as it was."""
    assert is_causal(FLOORS[name])


def test_a_look_ahead_would_be_seen() -> None:
    """The control: a score that is scaled by the whole series is told apart."""
    assert not is_causal(look_ahead)


@pytest.mark.parametrize("name", list(FLOORS))
@pytest.mark.parametrize("hostile", ["gaps", "spike", "constant", "one row", "all missing", "infinite"])
def test_a_floor_is_finite_whatever_comes(name: str, hostile: str) -> None:
    """Gaps, 1e30, a constant, one row, nothing at all: one finite score per row."""
    values = made_up.wave(channels=2)
    match hostile:
        case "gaps":
            values[0] = values[50:90, 0] = np.nan
        case "spike":
            values[200] = 1e30
        case "constant":
            values[:] = 3.0
        case "one row":
            values = values[:1]
        case "all missing":
            values[:] = np.nan
        case "infinite":
            values[100] = np.inf
    scores = FLOORS[name](made_up.case(values=values))
    assert scores.shape == (len(values),)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", ["|z|", "|difference|", "EWMA residual"])
def test_a_bump_stands_out(name: str) -> None:
    """A step of fifty times the noise has the highest score: the floors do work."""
    scores = FLOORS[name](made_up.case())
    assert 300 <= int(scores.argmax()) <= 320


def test_random_is_the_same_at_every_run() -> None:
    """Its seed is the case's name."""
    one, again, other = (FLOORS["random"](made_up.case(name)) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_without_a_training_part_nabs_probation_stands_in() -> None:
    """15 % of the rows, at most 750; else what the suite declares."""
    assert reference(made_up.case(train=0)) == 60
    assert reference(made_up.case(values=made_up.wave(20_000), train=0)) == 750
    assert reference(made_up.case(train=150)) == 150
