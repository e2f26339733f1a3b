"""Intervals: what they say by hand, what they cover, and what they do not claim."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.evaluate.measures.bootstrap import Interval, mean_interval, paired_difference
from training.evaluate.measures.counts import rate_interval, share_interval


def test_the_same_seed_gives_the_same_interval() -> None:
    """And another one moves it a little."""
    values = np.random.default_rng(1).normal(size=40)
    assert mean_interval(values, seed=7) == mean_interval(values, seed=7)
    other = mean_interval(values, seed=8)
    assert other != mean_interval(values, seed=7)
    assert other == pytest.approx(mean_interval(values, seed=7), abs=0.02)


def test_two_series_by_hand() -> None:
    """Of 0 and 1 the drawn means are 0, 1/2 and 1 with weights 1/4, 1/2, 1/4: all of the range is left open."""
    assert mean_interval([0.0, 1.0]) == Interval(0.5, 0.0, 1.0, 2)


def test_the_interval_of_a_known_mean_has_the_width_of_theory() -> None:
    """For many series it is the normal one: 1.96 standard errors each side."""
    values = np.random.default_rng(2).normal(3.0, 2.0, 2_000)
    interval, half = mean_interval(values), 1.96 * values.std() / math.sqrt(2_000)
    assert interval.high - interval.mean == pytest.approx(half, rel=0.05)
    assert interval.mean - interval.low == pytest.approx(half, rel=0.05)


def test_one_in_twenty_intervals_misses() -> None:
    """Over 400 draws of 30 series the true mean lies within about 95 % of the intervals (a little fewer, as known)."""
    rng = np.random.default_rng(3)
    inside = [low <= 0 <= high for _, low, high, _ in (mean_interval(rng.normal(size=30)) for _ in range(400))]
    assert 0.90 <= np.mean(inside) <= 0.97


def test_undefined_figures_are_left_out_and_the_count_says_so() -> None:
    """NaN is a series for which the measure is not defined; with fewer than two left there is no interval."""
    assert mean_interval([0.0, math.nan, 1.0]) == mean_interval([0.0, 1.0])
    alone, none = mean_interval([0.3, math.nan]), mean_interval([])
    assert (alone.mean, alone.number, none.number) == (0.3, 1, 0)
    assert math.isnan(alone.low)
    assert math.isnan(none.mean)


def test_pairs_see_a_small_lead_that_means_apart_do_not() -> None:
    """Hard series are hard for both: the interval of the difference leaves 0 out, those of the means overlap."""
    rng = np.random.default_rng(4)
    theirs = rng.uniform(size=60)
    ours = theirs + 0.03 + 0.02 * rng.normal(size=60)
    lead = paired_difference(ours, theirs)
    assert lead.low > 0
    assert mean_interval(ours).low < mean_interval(theirs).high
    shuffled = paired_difference(ours, rng.permutation(theirs))  # the control: pairs torn apart
    assert shuffled.low < 0
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("events", "low", "high"), [(0, 0, 3.688879), (1, 0.025318, 5.571643), (16, 9.145383, 25.982998)]
)
def test_poisson_intervals_are_those_of_the_tables(events: int, low: float, high: float) -> None:
    """Exact limits as tabled since Garwood 1936; sixteen events tell a rate to within a factor of two."""
    assert rate_interval(events, 1.0) == pytest.approx((events, low, high, events), abs=1e-5)
    assert rate_interval(events, 4.0)[:3] == pytest.approx((events / 4, low / 4, high / 4), abs=1e-5)


def test_no_exposure_no_rate() -> None:
    """Nothing watched, or for an unknown time, is no rate of zero."""
    assert all(math.isnan(rate_interval(0, days).mean) for days in (0.0, math.nan))
    assert math.isnan(share_interval(0, 0).mean)


def test_a_thousand_events_are_near_normal() -> None:
    """The limits stay right where factorials do not fit a float."""
    _, low, high, _ = rate_interval(1_000, 1.0)
    assert (low, high) == pytest.approx((938.97, 1063.95), abs=0.01)
