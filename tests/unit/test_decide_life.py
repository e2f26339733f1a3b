"""The life of an anomaly, rule by rule. Unless said: threshold 4, hysteresis 1, band of the forecast -1..1."""

from __future__ import annotations

import numpy as np
import pytest

from detector.stages.decide import decide, initial_decide, open_slots, silence
from tests.decide_feed import NAN, S, fixed, ns, play, policy, seconds, wave_of


def test_a_calm_stream_says_nothing() -> None:
    """Below the threshold nothing happens, however long."""
    run = play([S(t, 3.9) for t in range(50)], fixed())
    assert run.messages == []
    assert run.anomaly == [0] * 50


def test_a_strange_sample_fires() -> None:
    """A score equal to the threshold opens an anomaly, with sequence 0 and the sample's own time and position."""
    run = play([S(0), S(1, 4.0)], fixed())
    (opened,) = run.messages
    assert (opened.event, opened.reason, opened.sequence) == ("open", "threshold", 0)
    assert (seconds(opened.time_ns), seconds(opened.fired_ns)) == (1, 1)
    assert (opened.position, opened.fired_position, opened.ended_ns) == (1, 1, None)
    assert (opened.score, opened.peak, opened.threshold) == (4.0, 4.0, 4.0)
    assert run.anomaly == [0, 1]


def test_a_score_one_bit_below_the_threshold_does_not_fire() -> None:
    """Scores are compared exactly, as float32."""
    below = float(np.nextafter(np.float32(4.2), np.float32(0)))
    assert play([S(0, below)], fixed(threshold_nines=4.2)).messages == []
    assert play([S(0, 4.2)], fixed(threshold_nines=4.2)).said == [(0, "open", "threshold")]


def test_min_samples_must_come_in_a_row() -> None:
    """An anomaly is published with the sample that completes its minimum length, and a break starts the count again."""
    feed = [S(0, 5), S(1, 5), S(2, 3.5), S(3, 5), S(4, 5), S(5, 5)]
    run = play(feed, fixed(min_samples=3))
    assert run.said == [(5, "open", "threshold")]
    assert run.anomaly == [0, 0, 0, 0, 0, 1]  # never back-dated


def test_the_start_is_estimated_at_the_first_elevated_sample_of_the_run() -> None:
    """The run of scores above threshold - hysteresis that leads to the firing began when the anomaly did."""
    run = play([S(0, 3.5), S(1, 2.9), S(2, 3.0), S(3, 3.5), S(4, 5)], fixed())
    assert seconds(run.messages[0].started_ns) == 2


def test_the_peak_counts_from_the_run_on() -> None:
    """A higher score before the firing sample, in its run, is the anomaly's peak."""
    run = play([S(0, 9), S(1, 1), S(2, 7), S(3, 5)], fixed(min_samples=2))
    assert run.messages[0].peak == 7


def test_recovery_takes_low_scores_in_a_row() -> None:
    """A score within the hysteresis is not low and starts the count of low samples again."""
    feed = [S(0, 5), S(1, 1), S(2, 1), S(3, 3.0), S(4, 1), S(5, 2.99), S(6, 1)]
    run = play(feed, fixed())
    assert run.said == [(0, "open", "threshold"), (6, "close", "recovered")]
    assert run.anomaly == [1] * 7
    assert seconds(run.messages[1].ended_ns or 0) == 6


def test_recovery_wants_the_values_back_inside_the_band_doubled() -> None:
    """Low scores with values outside the band of the first strange sample, doubled, do not close the anomaly."""
    outside = [S(0, 5, (9.0,)), *(S(t, 0, (2.01,), expected=2.0) for t in range(1, 9))]
    assert play(outside, fixed()).said == [(0, "open", "threshold")]
    inside = [S(0, 5, (9.0,)), *(S(t, 0, (-2.0,), expected=9.0) for t in range(1, 4))]
    assert play(inside, fixed()).said[-1] == (3, "close", "recovered")


def test_every_observed_channel_must_be_back() -> None:
    """One channel outside keeps the anomaly open; a missing one is not asked."""
    outside = [S(0, 5, (9.0, 0.0)), *(S(t, 0, (0.0, 3.0)) for t in range(1, 9))]
    assert len(play(outside, fixed()).messages) == 1
    missing = [S(0, 5, (9.0, 0.0)), *(S(t, 0, (0.0, NAN)) for t in range(1, 9))]
    assert play(missing, fixed()).said[-1] == (3, "close", "recovered")


def test_the_band_is_that_of_the_first_strange_sample_of_the_run() -> None:
    """A detector that learns the fault while min_samples are awaited does not move the band that recovery asks for."""
    feed = [S(0, 5, (9.0,), expected=0.0), S(1, 5, (9.0,), expected=8.0), S(2, 0, (9.0,), expected=9.0)]
    feed += [S(t, 0, (9.0,), expected=9.0) for t in range(3, 9)]
    run = play(feed, fixed(min_samples=2))
    assert run.said == [(1, "open", "threshold")]


def test_a_later_run_has_its_own_band() -> None:
    """The band of a run that came to nothing is forgotten with it."""
    feed = [S(0, 5, expected=0.0), S(1, 0), S(2, 5, (50.0,), expected=50.0), S(3, 5, (50.0,), expected=50.0)]
    feed += [S(t, 0, (50.0,), expected=50.0) for t in range(4, 7)]
    assert play(feed, fixed(min_samples=2)).said[-1] == (6, "close", "recovered")


@pytest.mark.parametrize(("level", "value", "closes"), [(1e12, 1e12 + 2, True), (1e12, 1e12 + 3, False), (0, 0, True)])
def test_a_band_without_width_has_a_floor(level: float, value: float, closes: bool) -> None:
    """A constant stream recovers at its constant; its half-width counts as 1e-12 of the level, doubled as any."""
    how = fixed()
    run = play([S(0, 5, (level + 99,), expected=level)], how)
    band = np.full((1, 2, 1), level)
    for t in range(1, 4):
        decision = decide(run.rows, band, wave_of([0], [S(t, 0, (value,))], [1.0], [t]), how)
    assert (decision.closed == [0]) is closes


def test_values_at_the_end_of_float64_do_not_overflow() -> None:
    """A value of 1e308 is outside, not a warning."""
    run = play([S(0, 5), *(S(t, 0, (-1.7e308,)) for t in range(1, 5))], fixed())
    assert len(run.messages) == 1


def test_a_permanent_shift_closes_adapted() -> None:
    """The detector learns the new level and the score falls, but the values stay away: closed after adapt_after_s."""
    feed = [
        S(0, 0),
        *(S(t, 8 if t < 300 else 0, (50.0,), expected=50.0 if t > 60 else 0.0) for t in range(60, 7200, 60)),
    ]
    run = play(feed, fixed(adapt_after_s=3600, update_every_s=1e6))
    assert run.said == [(60, "open", "threshold"), (3660, "close", "adapted")]


def test_a_long_fault_stays_open_while_it_is_strange() -> None:
    """adapt_after_s closes nothing while the score is not low; the first low sample after it does."""
    feed = [S(60 * i, 8 if i < 200 else 0, (50.0,)) for i in range(204)]
    run = play(feed, fixed(adapt_after_s=3600, update_every_s=1e6))
    assert run.said == [(0, "open", "threshold"), (12_000, "close", "adapted")]


def test_a_fault_that_heals_after_adapt_after_s_closes_recovered() -> None:
    """Low samples inside the band recover the anomaly at any age."""
    feed = [S(60 * i, 8 if i < 100 else 0, (50.0 if i < 100 else 0.0,)) for i in range(104)]
    assert play(feed, fixed(adapt_after_s=3600, update_every_s=1e6)).said[-1] == (6120, "close", "recovered")


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        pytest.param([S(1, 5.9)], [], id="peak rose by less than a nine"),
        pytest.param([S(1, 6.0)], [(1, "update", "peak")], id="peak rose by a nine"),
        pytest.param([S(1, 5.5), S(2, 6.0), S(3, 6.9)], [(2, "update", "peak")], id="since the last message"),
        pytest.param([S(1, 5, top=1)], [(1, "update", "blame")], id="most blamed channel changed"),
        pytest.param([S(1, 3.9, top=1)], [], id="not of a strange sample"),
        pytest.param(
            [S(900, 3.9, top=1), S(901, 5)], [(900, "update", "interval")], id="nor does a message of another count"
        ),
        pytest.param([S(900, 5)], [(900, "update", "interval")], id="update_every_s passed"),
        pytest.param([S(899.9, 5), S(900.5, 5)], [(900.5, "update", "interval")], id="with the sample that passes it"),
        pytest.param([S(500, 6), S(1000, 5)], [(500, "update", "peak")], id="any message starts it again"),
        pytest.param([S(900, 7, top=1)], [(900, "update", "peak")], id="peak before blame"),
        pytest.param([S(900, 5, top=1)], [(900, "update", "blame")], id="blame before interval"),
    ],
)
def test_updates(feed: list[S], said: list[tuple[float, str, str]]) -> None:
    """An update goes out with the sample that gives the reason, and with the first of several reasons."""
    feed = [S(f.t, f.score, (0.0, 0.0), top=f.top) for f in [S(0, 5), *feed]]
    run = play(feed, fixed(resolve_after_s=10_000))
    assert run.said[1:] == said
    assert [m.sequence for m in run.messages] == list(range(len(run.messages)))


def test_a_close_says_nothing_else() -> None:
    """The closing sample sends one message, even where an update was due."""
    feed = [S(0, 5), S(1), S(2), S(900)]
    assert play(feed, fixed()).said == [(0, "open", "threshold"), (900, "close", "recovered")]


def test_nothing_fires_in_the_cool_down() -> None:
    """For cool_down_s after a close the stream stays quiet; the first strange sample at its end fires."""
    feed = [S(0, 5), S(1), S(2), S(3), *(S(t, 8) for t in (4, 200, 302.9)), S(303, 8)]
    run = play(feed, fixed(cool_down_s=300.0))
    assert run.said == [(0, "open", "threshold"), (3, "close", "recovered"), (303, "open", "threshold")]
    assert run.anomaly == [1, 1, 1, 1, 0, 0, 0, 1]
    assert seconds(run.messages[-1].started_ns) == 4
    assert run.messages[-1].sequence == 0


def test_a_gap_closes_and_the_sample_is_judged_afresh() -> None:
    """After more than resolve_after_s the anomaly is over: it ends with its last sample, and a new run may begin."""
    feed = [S(0, 5), S(10, 5), S(910.5, 5)]
    run = play(feed, fixed())
    assert run.said == [(0, "open", "threshold"), (910.5, "close", "gap"), (910.5, "open", "threshold")]
    closed, opened = run.messages[1:]
    assert (closed.sequence, opened.sequence) == (1, 0)
    assert seconds(closed.ended_ns or 0) == 10
    assert (closed.fired_position, opened.fired_position) == (0, 2)
    assert run.anomaly == [1, 1, 1]


def test_a_calm_sample_after_a_gap_is_no_anomaly() -> None:
    """The sample that tells of the gap does not belong to the anomaly."""
    run = play([S(0, 5), S(901, 0)], fixed())
    assert run.said == [(0, "open", "threshold"), (901, "close", "gap")]
    assert run.anomaly == [1, 0]


def test_an_elapsed_of_exactly_resolve_after_s_is_no_gap() -> None:
    """The anomaly goes on unless the elapsed exceeds resolve_after_s."""
    assert play([S(0, 5), S(900, 5)], fixed()).said == [(0, "open", "threshold"), (900, "update", "interval")]


def test_the_cool_down_follows_a_gap_too() -> None:
    """A strange sample that closes by gap cannot fire at once where there is a cool-down."""
    run = play([S(0, 5), S(1000, 5), S(1299, 5), S(1300, 5)], fixed(cool_down_s=300.0))
    assert run.said[1:] == [(1000, "close", "gap"), (1300, "open", "threshold")]


def test_a_score_of_zero_is_low_however_wide_the_hysteresis() -> None:
    """A hysteresis wider than the threshold cannot keep an anomaly open for ever."""
    feed = [S(0, 5), S(1), S(2), S(3)]
    assert play(feed, fixed(hysteresis_nines=9.0)).said[-1] == (3, "close", "recovered")


def test_an_anomaly_keeps_the_threshold_that_it_fired_with() -> None:
    """While an anomaly is open, threshold and estimates rest: what fired it stays the measure."""
    how = policy(bundle_budget=0.1, period_s=60.0)
    feed = [S(60 * i) for i in range(5)] + [S(300 + i, 9, (99.0,)) for i in range(500)]
    run = play(feed, how)
    assert set(run.threshold[5:]) == {run.threshold[5]}
    assert run.rows["elapsed_count"][0] == 105
    assert run.rows["exceedances"][0] == 0


def test_silence_is_told_of_once() -> None:
    """Past resolve_after_s one notice goes out; looking again finds nothing new."""
    how = fixed()
    run = play([S(0, 5), S(1, 6)], how)
    (notice,) = silence(run.rows, np.array([0]), ns(1000), how)
    assert silence(run.rows, np.array([0]), ns(2000), how) == []
    assert (notice.event, notice.reason, notice.position, notice.sequence) == ("silent", "silent", 1, 1)
    assert (seconds(notice.time_ns), seconds(notice.ended_ns or 0), notice.score, notice.peak) == (1, 1, 6, 6)
    assert notice.reading is None


def test_a_second_silence_is_told_of_again() -> None:
    """Each silence of an anomaly that goes on in between has its own notice."""
    run = play([S(0, 5), S(800, 5)], fixed(), notice_at={0: 901, 1: 1701})
    assert [m.event for m in run.messages] == ["open", "silent", "silent"]


@pytest.mark.parametrize(("highest", "notices"), [(900, 0), (900.000001, 1)])
def test_the_bound_of_silence_is_strict(highest: float, notices: int) -> None:
    """Last event time + resolve_after_s must lie below the shard's highest event time."""
    assert len(play([S(0, 5)], fixed(), notice_at={0: highest}).messages) == 1 + notices


def test_silence_changes_nothing_but_its_own_mark() -> None:
    """What the stream's next samples lead to, sequence included, does not depend on whether silence was told of."""
    feed = [S(0, 5), S(700, 5), S(1400, 7), S(1401), S(1402), S(1403)]
    plain = play(feed, fixed())
    noticed = play(feed, fixed(), notice_at={0: 5000, 1: 5000, 2: 5000})
    assert [m for m in noticed.messages if m.event != "silent"] == plain.messages
    assert (noticed.anomaly, noticed.threshold) == (plain.anomaly, plain.threshold)


def test_a_returning_stream_is_firing_again_with_its_next_message() -> None:
    """After a notice the anomaly goes on; its next message is an ordinary update."""
    run = play([S(0, 5), S(600, 5), S(901, 5)], fixed(), notice_at={0: 5000})
    assert run.said == [(0, "open", "threshold"), (0, "silent", "silent"), (901, "update", "interval")]


def test_a_closed_anomaly_is_not_silent() -> None:
    """Only open anomalies have their slots among the open ones."""
    run = play([S(0, 5), S(1), S(2), S(3)], fixed())
    assert open_slots(run.rows).tolist() == []
    assert open_slots(play([S(0, 5)], fixed()).rows).tolist() == [0]


def test_notices_come_in_the_order_of_last_positions() -> None:
    """Slots differ from run to run, positions do not."""
    how = fixed()
    rows, band = initial_decide(how, 3), np.zeros((3, 2, 1))
    decide(rows, band, wave_of([0, 1, 2], [S(0, 5)] * 3, [0.0] * 3, [30, 10, 20]), how)
    assert [m.position for m in silence(rows, np.array([2, 0, 1]), ns(9999), how)] == [10, 20, 30]


def test_messages_of_a_wave_come_in_order_of_position() -> None:
    """A close by gap stands before the opening of the same sample."""
    how = fixed()
    rows, band = initial_decide(how, 3), np.zeros((3, 2, 1))
    decide(rows, band, wave_of([0, 1], [S(0, 5)] * 2, [0.0] * 2, [1, 2]), how)
    decision = decide(rows, band, wave_of([0, 1, 2], [S(1000, 5)] * 3, [1000.0] * 3, [9, 7, 8]), how)
    assert [(m.position, m.event) for m in decision.messages] == [
        (7, "close"),
        (7, "open"),
        (8, "open"),
        (9, "close"),
        (9, "open"),
    ]
    assert (decision.closed, decision.opened) == ([0, 1], [0, 1, 2])


def test_durations_beyond_all_times_do_not_overflow() -> None:
    """A duration of a thousand years is long, not negative."""
    how = fixed(cool_down_s=3e10, update_every_s=3e10, adapt_after_s=float("inf"), resolve_after_s=3e10)
    run = play([S(0, 5), S(1), S(2), S(3), S(400, 9)], how)
    assert run.said == [(0, "open", "threshold"), (3, "close", "recovered")]
