"""The threshold: from the budget, the stream's own rate and the size of its own clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from detector.stages.decide import DECIDE, Policy, decide, initial_decide, taken_over
from detector.stages.decide.columns import Rows
from detector.stages.decide.policy import _log10, follow_rate
from tests.decide_feed import S, play, policy, wave_of


def _threshold(budget: float, exceedances: float, period_s: float) -> float:
    return math.log10(86_400 / period_s / (budget * exceedances))


def test_the_threshold_starts_at_the_bundles_values() -> None:
    """Its formula is log10(samples per day / (budget x exceedances per alarm))."""
    run = play([S(0)], policy(bundle_budget=0.1, exceedances=2.5, period_s=60))
    assert run.threshold[0] == pytest.approx(_threshold(0.1, 2.5, 60), abs=1e-6)


@pytest.mark.parametrize(("budget", "period_s", "nines"), [(1e6, 3600.0, 0.5), (1e-9, 1e-3, 12.0)])
def test_the_threshold_is_limited(budget: float, period_s: float, nines: float) -> None:
    """No budget asks for less than 0.5 or more than 12 nines."""
    assert play([S(0)], policy(bundle_budget=budget, period_s=period_s)).threshold == [nines]


def test_the_threshold_follows_the_streams_own_rate() -> None:
    """A stream ten times as fast as the bundle's period gets there with a prior worth 100 samples."""
    run = play([S(6 * i) for i in range(20_001)], policy(period_s=60))
    mean = (100 * 60 + 20_000 * 6) / 20_100
    assert run.rows["elapsed_mean_s"][0] == pytest.approx(mean, rel=1e-9)
    assert run.threshold[-1] == pytest.approx(_threshold(0.1, 1, mean) + run.rows["correction"][0], abs=1e-5)


def test_without_a_period_the_first_elapsed_takes_its_place() -> None:
    """A bundle for any period: the highest threshold on the first sample, then the stream's own rate."""
    run = play([S(0, 11), S(10), S(30)], policy(period_s=None))
    assert run.messages == []
    assert run.threshold[0] == 12.0
    assert run.threshold[1] == pytest.approx(_threshold(0.1, 1, 10), abs=1e-6)
    assert run.rows["elapsed_mean_s"][0] == pytest.approx((100 * 10 + 20) / 101)


def test_a_long_gap_counts_as_a_hundred_means() -> None:
    """A year of silence must not lower the threshold of a stream that comes back."""
    run = play([S(0), S(60), S(60 + 3e7)], policy(period_s=60))
    assert run.rows["elapsed_mean_s"][0] == pytest.approx((101 * 60 + 6000) / 102)


def test_the_mean_elapsed_forgets_beyond_its_memory() -> None:
    """After 100,000 samples a new one weighs no less: the stream may change its rate."""
    mean, count, counted = follow_rate(np.array([60.0]), np.array([100_000]), np.array([6.0]), np.array([False]))
    assert (mean[0], count[0], counted[0]) == (60.0 - 54.0 / 100_000, 100_000, 6.0)


def test_a_cluster_ends_after_ten_samples_below() -> None:
    """Strange samples with at most nine below between them are one cluster."""
    how = policy(threshold_nines=4, min_samples=100)
    near = [S(0, 5), *(S(t) for t in range(1, 10)), S(10, 5)]
    far = [S(0, 5), *(S(t) for t in range(1, 11)), S(11, 5)]
    assert [(r["exceedances"], r["clusters"]) for r in (play(near, how).rows[0], play(far, how).rows[0])] == [
        (2, 1),
        (2, 2),
    ]


def test_exceedances_per_alarm_follow_the_streams_own_clusters() -> None:
    """A cluster of 21 strange samples against a prior worth 10 clusters of 1."""
    how = policy(exceedances=1.0, period_s=60, min_samples=100)
    run = play([S(60 * i, 9 if i < 21 else 0) for i in range(22)], how)
    assert run.threshold[-1] == pytest.approx(_threshold(0.1, (10 + 21) / 11, 60), abs=1e-6)


def test_a_short_anomaly_counts_as_a_cluster_once_it_is_closed() -> None:
    """Its strange samples, the firing one included, tell how long the stream's bursts are."""
    how = policy(threshold_nines=4, exceedances=1.0)
    run = play([S(t, 5 if t < 4 else 0) for t in range(6)], how)
    assert (run.rows["exceedances"][0], run.rows["clusters"][0]) == (0, 0)
    run = play([S(t, 5 if t < 4 else 0) for t in range(7)], how)
    assert (run.rows["exceedances"][0], run.rows["clusters"][0]) == (4, 1)


def test_a_long_anomaly_leaves_the_threshold_as_it_was() -> None:
    """More than ten times the bundle's cluster is taken for a true anomaly, which must not lower the threshold."""
    how = policy(exceedances=1.0, period_s=60)
    run = play([S(60 * t, 0 if t in (0, 12, 13, 14, 15) else 9) for t in range(16)], how)
    assert run.said[-1][1:] == ("close", "recovered")
    assert run.threshold[-1] == run.threshold[0]


def test_a_run_before_the_firing_is_not_counted_twice() -> None:
    """With a minimum length the run's first samples are counted as they come, the rest when the anomaly closes."""
    how = policy(threshold_nines=4, min_samples=3, exceedances=1.0)
    run = play([S(t, 5 if t < 5 else 0) for t in range(8)], how)
    assert (run.rows["exceedances"][0], run.rows["clusters"][0]) == (5, 1)


def test_settings_win_over_the_bundle() -> None:
    """A fixed threshold or a budget that is set replaces either of the bundle's; null takes the bundle's own."""
    assert policy(bundle_threshold=5.0).threshold_nines == 5.0
    assert policy(bundle_threshold=5.0, threshold_nines=3.0).threshold_nines == 3.0
    assert policy(bundle_threshold=5.0, budget_per_day=2.0).threshold_nines is None
    assert policy(bundle_threshold=5.0, budget_per_day=2.0).budget_per_day == 2.0
    assert policy(bundle_budget=0.3).budget_per_day == 0.3


def test_the_logarithm_is_near_enough() -> None:
    """Within 1e-11 over all that a share of samples can be."""
    x = np.logspace(-12, 3, 20_001)
    assert np.abs(_log10(x) - np.log10(x)).max() < 1e-11


def test_thresholds_do_not_depend_on_position_or_length() -> None:
    """The same stream has the same bits wherever it stands in a wave of whatever size, contiguous or not."""
    how, rng = policy(exceedances=1.7), np.random.default_rng(1)
    columns = (rng.lognormal(3, 2, 400), *rng.integers(0, 99, (2, 400)), rng.uniform(-2, 2, 400))
    alone = np.array([how.thresholds(*(column[i : i + 1] for column in columns))[0] for i in range(400)])
    for start in range(9):
        for length in (1, 2, 3, 7, 8, 9, 64, 257):
            for step in (1, 2, -1):
                part = slice(start + length, start, -1) if step < 0 else slice(start, start + length, step)
                assert (how.thresholds(*(column[part] for column in columns)) == alone[part]).all()


@pytest.mark.parametrize(
    ("burst", "prior", "period_s"),
    [
        pytest.param(1, 1.0, 60.0, id="the bundle is right"),
        pytest.param(1, 3.0, 600.0, id="the bundle expects bursts, and slower streams"),
        pytest.param(4, 1.0, 60.0, id="exceedances come in bursts of 4"),
        pytest.param(4, 2.0, 6.0, id="bursts, and the bundle expects faster streams"),
    ],
)
def test_the_budget_is_kept(burst: int, prior: float, period_s: float) -> None:
    """Noise without any fault raises, once settled, as many alarms as were allowed, within a factor of 2."""
    streams, days, budget, own_period_s = 60, 8, 4.0, 60.0
    how = policy(bundle_budget=budget, exceedances=prior, period_s=period_s, warm_up=0)
    count = int(days * 86_400 / own_period_s)
    surprise = np.random.default_rng(7).exponential(1 / math.log(10), (count // burst, streams))  # nines
    scores = np.repeat(surprise.astype(np.float32), burst, axis=0)
    wave = wave_of(range(streams), [S(0)] * streams, [0.0] * streams, range(streams))
    rows, band, alarms = initial_decide(how, streams), np.zeros((streams, 2, 1)), 0
    for i, wave.score in enumerate(scores):
        alarms += len(decide(rows, band, wave, how).opened) * (i >= count // 2)
        wave.event_ns = wave.event_ns + int(own_period_s * 1e9)
        wave.elapsed_s[:] = own_period_s
    assert budget / 2 < alarms / (streams * days / 2) < budget * 2


def _correction(how: Policy, days: float, alarms_at: Sequence[float] = ()) -> Rows:
    """The row of a stream that sends a sample a minute for some days, strange at those (in days)."""
    at = {round(day * 1440) for day in alarms_at}
    return play([S(60 * i, 12.0 if i in at else 0.0) for i in range(round(days * 1440))], how).rows


def test_the_correction_falls_while_the_budget_is_not_used() -> None:
    """By the first step for each alarm promised, down to 2 nines below, where it stays."""
    how = policy(bundle_budget=4.0, warm_up=0)
    assert _correction(how, 1)["correction"][0] == pytest.approx(-0.43 * 4, rel=0.01)
    assert _correction(how, 2)["correction"][0] == -2.0


def test_the_correction_rises_with_alarms() -> None:
    """Each by a smaller step than the one before, up to 2 nines above: the budget is kept, and nobody is deaf."""
    how = policy(bundle_budget=1e-3, warm_up=0, cool_down_s=0.0, period_s=60)
    some = _correction(how, 0.5, [0.1, 0.2, 0.3])
    assert some["alarms"][0] == 3
    assert some["correction"][0] == pytest.approx(0.43 * (1 + 1 / 2 + 1 / 3), abs=0.01)
    assert _correction(how, 1, np.arange(1, 60) / 60)["correction"][0] == pytest.approx(2.0, abs=0.01)


def test_what_an_alarm_adds_to_the_correction_is_soon_gone() -> None:
    """Within twice the time in which the budget allows for one alarm: here half a day."""
    how = policy(bundle_budget=4.0, warm_up=0)
    before, after = _correction(how, 0.25), _correction(how, 0.26, [0.25])
    assert after["alarms"][0] == 1
    assert after["correction"][0] == pytest.approx(before["correction"][0] + 0.43, abs=0.02)
    assert _correction(how, 0.76, [0.25])["correction"][0] <= before["correction"][0] + 0.01


def test_a_long_anomaly_is_no_false_alarm() -> None:
    """Too long for one of the budget's, it leaves the correction as it was; and it rests while the anomaly is open."""
    how = policy(bundle_budget=1.0, warm_up=0, exceedances=1.0, period_s=60)
    feed = [S(60 * i, 9 if 100 <= i < 400 else 0) for i in range(404)]
    run = play(feed, how)
    row = run.rows[0]
    assert [said[1] for said in run.said if said[1] in ("open", "close")] == ["open", "close"]
    assert row["alarms"] == 0
    assert row["correction"] == pytest.approx(-0.43 * 101 / 1440, rel=0.05)


def test_the_warm_up_promises_no_alarms() -> None:
    """Scores of 0 say nothing about how rare alarms are."""
    assert _correction(policy(bundle_budget=4.0, warm_up=1_000), 0.5)["correction"][0] == 0.0


def test_rows_of_the_first_version_are_taken_over() -> None:
    """They lack the correction, which begins at 0; all else stays, and today's rows are given back as they are."""
    names = [name for name in DECIDE.names or () if name not in ("correction", "alarms")]
    old = np.zeros(3, [(name, DECIDE[name]) for name in names])
    old["exceedances"], old["last_ns"] = [1, 2, 3], 7
    new = taken_over(old)
    assert new.dtype == DECIDE
    assert all((new[name] == old[name]).all() for name in names)
    assert (new["correction"] == 0).all()
    assert (new["alarms"] == 0).all()
    assert taken_over(new) is new


def test_the_columns_are_int64_and_float64_only() -> None:
    """What the checkpoint stores has no padding, no objects and no narrow counts."""
    assert {DECIDE[name] for name in DECIDE.names or ()} == {np.dtype(np.int64), np.dtype(np.float64)}
    assert DECIDE.itemsize == 8 * len(DECIDE.names or ())
