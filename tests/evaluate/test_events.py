"""Counting by events, by rows, by the highest score, and what it is like to be called: against sums done by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.evaluate import made_up
from training.evaluate.measured import Told, measure
from training.evaluate.measures import delay, skab, ucr
from training.evaluate.measures.events import EventCount, intervals, pool, precision_recall
from training.evaluate.results import OURS
from training.evaluate.suites import Case


def flags(rows: int, *runs: tuple[int, int]) -> np.ndarray:
    array = np.zeros(rows, np.uint8)
    for first, end in runs:
        array[first:end] = 1
    return array


def test_runs_are_found_at_the_edges_too() -> None:
    """A run that begins with the series or ends with it is whole; runs that do not touch stay apart."""
    assert intervals([1, 1, 0, 2, 0, 0, 1]) == [(0, 2), (3, 4), (6, 7)]
    assert intervals([]) == intervals([0, 0]) == []
    assert intervals([1]) == [(0, 1)]


def test_events_are_counted_as_telemanom_counts_them() -> None:
    """By hand: two alarms in one event are one hit, one alarm over two events is two, the stray one is false."""
    truth = [(10, 20), (30, 40), (50, 60), (80, 90)]
    alarms = [(8, 11), (15, 17), (35, 55), (65, 70)]
    count = precision_recall(alarms, truth)
    assert count == EventCount(true_positives=3, false_positives=1, false_negatives=1)
    assert (count.precision, count.recall, count.f1) == (3 / 4, 3 / 4, 3 / 4)


def test_alarms_that_only_meet_an_event_end_to_end_do_not_touch_it() -> None:
    """Ends are exclusive: an alarm that ends where the event begins, or begins where it ends, is false."""
    assert precision_recall([(5, 10), (20, 25)], [(10, 20)]) == EventCount(0, 2, 1)
    assert precision_recall([(5, 11)], [(10, 20)]) == precision_recall([(19, 25)], [(10, 20)]) == EventCount(1, 0, 0)


def test_events_never_fill_up() -> None:
    """More hits within an event add nothing, which is what point-adjusted figures get wrong."""
    once, often = (
        precision_recall([(10, 11)], [(10, 99)]),
        precision_recall([(i, i + 1) for i in range(10, 99, 2)], [(10, 99)]),
    )
    assert once == often == EventCount(1, 0, 0)


def test_what_is_not_defined_is_no_number() -> None:
    """No alarms: no precision. No events: no recall. Neither: no F1. A wrong alarm alone has F1 0."""
    quiet, empty, wrong = precision_recall([], [(1, 2)]), precision_recall([], []), precision_recall([(1, 2)], [])
    assert math.isnan(quiet.precision)
    assert quiet.recall == quiet.f1 == 0
    assert all(math.isnan(figure) for figure in (empty.precision, empty.recall, empty.f1, wrong.recall))
    assert wrong.precision == wrong.f1 == 0


def test_counts_are_pooled_before_the_ratio() -> None:
    """One right alarm of one, and one right of nine: 2 of 10, not the mean of 1 and 1/9."""
    assert pool([EventCount(1, 0, 0), EventCount(1, 8, 0)]).precision == 0.2
    assert pool([]) == EventCount(0, 0, 0)


@pytest.mark.parametrize(
    ("place", "is_hit"), [(400, False), (401, True), (500, True), (509, True), (608, True), (609, False)]
)
def test_ucr_widens_a_short_anomaly_by_a_hundred_rows(place: int, is_hit: bool) -> None:
    """The anomaly 500 to 509 is hit from 401 to 608, by the archive's strict inequalities."""
    scores = np.zeros(2000)
    scores[place] = 1
    assert ucr.is_hit(flags(2000, (500, 510)), scores, train=300) is is_hit


@pytest.mark.parametrize(("place", "is_hit"), [(400, False), (401, True), (1199, False), (1198, True)])
def test_ucr_widens_a_long_anomaly_by_its_own_length(place: int, is_hit: bool) -> None:
    """300 rows from 700 to 999 are hit from 401 to 1298; rows beyond the end of it are not."""
    scores = np.zeros(2000)
    scores[place if place < 1000 else place + 100] = 1
    assert ucr.is_hit(flags(2000, (700, 1000)), scores, train=300) is is_hit


def test_ucr_leaves_the_training_part_out() -> None:
    """A higher score in the training part is no answer; where it counts, the answer is wrong."""
    labels, scores = flags(2000, (1500, 1510)), np.zeros(2000)
    scores[[10, 1505]] = 2, 1
    assert ucr.is_hit(labels, scores, train=1000)
    assert not ucr.is_hit(labels, scores, train=0)


def test_ucr_refuses_what_it_cannot_judge() -> None:
    """No anomaly, two of them, NaN among the scores, or scores of another length are refused with what was found."""
    one = flags(50, (30, 40))
    for labels in (flags(50), flags(50, (20, 22), (30, 40))):
        with pytest.raises(ValueError, match=r"expected 1, got [02]"):
            ucr.is_hit(labels, np.zeros(50), train=10)
    for scores in (np.full(50, np.nan), np.zeros(49)):
        with pytest.raises(ValueError, match="without NaN"):
            ucr.is_hit(one, scores, train=10)


def test_the_recent_mean_looks_back_and_prefers_a_stretch_to_a_row() -> None:
    """Row 4 is the mean of rows 2 to 4, row 1 of both there are; a long rise beats a single higher row."""
    assert ucr.recent_mean([3.0, 1.0, 2.0, 6.0, 1.0], span=3).tolist() == [3.0, 2.0, 2.0, 3.0, 3.0]
    scores = np.zeros(2000)
    scores[600], scores[1500:1540] = 3.0, 1.0
    assert scores.argmax() == 600
    assert ucr.recent_mean(scores).argmax() == 1500 + ucr.SPAN - 1
    later = scores.copy()
    later[1600:] = 9.0
    np.testing.assert_array_equal(ucr.recent_mean(later)[:1600], ucr.recent_mean(scores)[:1600])


def test_ucr_rate_by_hand() -> None:
    """3 of 4, with Wilson's interval as it is tabled."""
    rate = ucr.hit_rate([True, False, True, True])
    assert rate == pytest.approx((0.75, 0.300642, 0.954413, 4), abs=1e-6)


def test_skab_by_hand() -> None:
    """2 of 3 anomalous rows flagged and 1 of 4 normal ones: F1 2 / (2 + 1), FAR 25 %, MAR 33.3 %."""
    count = skab.f1_far_mar([1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0])
    assert (count.f1, count.far_percent) == (pytest.approx(2 / 3), 25)
    assert count.mar_percent == pytest.approx(100 / 3)


def test_skab_shows_what_a_constant_alarm_is_worth() -> None:
    """Everything flagged: F1 looks well, FAR is 100 and MAR is 0. Nothing flagged: the reverse."""
    labels = flags(100, (40, 95))
    always, never = skab.f1_far_mar(labels, np.ones(100)), skab.f1_far_mar(labels, np.zeros(100))
    assert (always.f1, always.far_percent, always.mar_percent) == (pytest.approx(55 / 77.5), 100, 0)
    assert (never.f1, never.far_percent, never.mar_percent) == (0, 0, 100)


def test_the_training_rows_set_a_threshold_for_every_method_and_labels_do_not() -> None:
    """A method that never alarms is measured by its scores too; only a score of a training row moves the threshold."""

    def by_training(case: Case, score: np.ndarray) -> float:
        silent = Told(score, np.zeros(len(case), np.uint8))
        found = measure(case, silent, {}, "points").measures[OURS]
        assert found["F1"] == 0.0
        return found["trained F1"]

    case, score = made_up.case(begin=150), np.linspace(0, 1, 400)
    score[150:] = 0.2
    score[300:310] = 2.0
    assert by_training(case, score) == pytest.approx(2 / 3)  # half of the event, and nothing else
    elsewhere = np.roll(case.labels, -50)
    assert by_training(replace(case, labels=elsewhere), score) == 0.0
    score[149] = 3.0
    assert by_training(case, score) == 0.0


def test_skab_pools_rows_and_says_what_is_not_defined() -> None:
    """Files are pooled row by row, so that a long one weighs more; without normal rows there is no FAR."""
    files = [skab.f1_far_mar([1], [1]), skab.f1_far_mar([1, 1, 1, 0], [0, 0, 0, 0])]
    pooled = skab.pool(files)
    assert pooled == skab.f1_far_mar([1, 1, 1, 1, 0], [1, 0, 0, 0, 0])
    assert math.isnan(files[0].far_percent)
    assert math.isnan(skab.f1_far_mar([0], [0]).f1)
    with pytest.raises(ValueError, match=r"expected \(2,\), got \(3,\)"):
        skab.f1_far_mar([0, 1], [0, 1, 1])


def test_the_delay_is_that_of_the_first_alarm_within_an_event() -> None:
    """By hand: events at 10, 50 and 80; alarms at 5 (open before), 13, 15, 50, 100: delays of 3 and 0 of three."""
    late = delay.detection_delay([100, 15, 13, 50, 5], [(10, 20), (50, 60), (80, 100)], period_s=30)
    assert late == delay.Delay(3, (3, 0), (90.0, 0.0))
    assert (late.share.mean, late.median_samples, late.median_s) == (pytest.approx(2 / 3), 1.5, 45.0)


def test_an_alarm_open_before_the_event_detects_nothing() -> None:
    """Otherwise a detector that never closes its first alarm would have found everything, with no delay."""
    missed = delay.detection_delay([0], [(10, 20), (30, 40)], period_s=1)
    assert (missed.share.mean, missed.samples) == (0, ())
    assert math.isnan(missed.median_samples)


def test_delays_pool_over_streams_of_different_periods() -> None:
    """Seconds are each stream's own; where a period is not known, the pooled seconds are not either."""
    fast, slow = (delay.detection_delay([12], [(10, 20)], period_s=period) for period in (1, 60))
    assert delay.pool_delays([fast, slow]) == delay.Delay(2, (2, 2), (2.0, 120.0))
    unknown = delay.detection_delay([12], [(10, 20)], period_s=None)
    assert math.isnan(delay.pool_delays([fast, unknown]).median_s)
    assert delay.pool_delays([fast, unknown]).median_samples == 2


def test_false_alarms_by_hand() -> None:
    """100 rows of 864 s are a day; 20 of training, an event of 10 with 5 of grace leave 65: 0.65 days, 2 alarms."""
    alarms = delay.alarms_per_day([3, 20, 42, 54, 55], [(40, 50)], rows=100, period_s=864, start=20, grace=5)
    assert alarms == delay.FalseAlarms(2, 65, pytest.approx(0.65))
    assert alarms.per_day.mean == pytest.approx(2 / 0.65)
    assert alarms.realised_ratio(promised=10).mean == pytest.approx(2 / 6.5)


def test_without_grace_what_an_event_leaves_behind_is_false() -> None:
    """The control of the one above: the alarm at 54 counts now, and so do the 5 rows."""
    alarms = delay.alarms_per_day([3, 20, 42, 54, 55], [(40, 50)], rows=100, period_s=864, start=20)
    assert alarms == delay.FalseAlarms(3, 70, pytest.approx(0.7))


def test_false_alarms_pool_time_and_count() -> None:
    """The pooled rate is all alarms over all days; without a period there is a count and no rate."""
    streams = [delay.alarms_per_day(rows, [], 100, 864) for rows in ([1, 2], [], [7])]
    pooled = delay.pool_alarms(streams)
    assert pooled == delay.FalseAlarms(3, 300, pytest.approx(3.0))
    assert pooled.per_day == pytest.approx((1.0, 0.618672 / 3, 8.767273 / 3, 3), abs=1e-5)
    nowhere = delay.alarms_per_day([1], [], 100, None)
    assert math.isnan(nowhere.per_day.mean)
    assert nowhere.per_day.number == 1
