"""The detector that ours is measured against: it must be a fair one, cost what it costs, and be the same every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from detector.model.bundle import read_bundle
from detector.model.session import Session
from training.evaluate.dynamic_threshold import alarms, smooth
from training.evaluate.measures.events import intervals
from training.evaluate.race import race
from training.evaluate.suites import Case
from training.evaluate.windowed_lstm import WindowedResult, WindowedSettings, scores

SMALL = WindowedSettings(window=12, units=16, horizon=2, dropout=0.05, epochs=10, batch=16)
FAULT = slice(1_000, 1_040)


def case(values: np.ndarray, train: int = 600, target: int | None = None) -> Case:
    """A stream of one sample a second with these values (T,) or (T, C)."""
    values = values.reshape(len(values), -1).astype(np.float64)
    names = tuple(f"c{c}" for c in range(values.shape[1]))
    time_ns, labels = np.arange(len(values)) * 10**9, np.zeros(len(values), np.uint8)
    return Case("made up", "sine", "one", "dev", time_ns, values, labels, train, names, 1.0, target=target)


@pytest.fixture(scope="module")
def sine() -> np.ndarray:
    """A noisy sine of 1,400 rows that stands still in FAULT."""
    rows = np.arange(1_400)
    values = np.sin(2 * np.pi * rows / 12) + 0.02 * np.random.default_rng(0).normal(size=1_400)
    values[FAULT] = values[FAULT.start]
    return values


@pytest.fixture(scope="module")
def found(sine: np.ndarray) -> WindowedResult:
    return scores(case(sine), SMALL, seed=1)


def test_it_finds_a_stuck_sine(found: WindowedResult) -> None:
    """The highest score falls on the fault or just after it, and stands out of what was there before."""
    assert FAULT.start <= int(np.argmax(found.scores)) < FAULT.stop + SMALL.window
    assert found.scores.max() > 3 * found.scores[600 : FAULT.start].max()


def test_without_the_fault_nothing_stands_out(sine: np.ndarray) -> None:
    """The control: on the sine alone the highest score is an ordinary one."""
    healthy = np.where(np.arange(1_400) < FAULT.start, sine, np.roll(sine, 600))
    calm = scores(case(healthy), SMALL, seed=1)
    assert calm.scores[600:].max() < 2 * calm.scores[600 : FAULT.start].max()


def test_the_same_seed_gives_the_same_scores(sine: np.ndarray, found: WindowedResult) -> None:
    """Bit by bit, and without leaving a trace in torch's own generator; another seed gives others."""
    import torch

    before = torch.random.get_rng_state()
    assert scores(case(sine), SMALL, seed=1).scores.tobytes() == found.scores.tobytes()
    assert torch.equal(before, torch.random.get_rng_state())
    assert scores(case(sine), replace(SMALL, epochs=1), seed=2).scores.tobytes() != found.scores.tobytes()


def test_scores_know_nothing_of_the_future(sine: np.ndarray, found: WindowedResult) -> None:
    """A series cut short has the scores that it had as part of the whole one (to rounding of a batch of other size)."""
    cut = scores(case(sine[:1_020]), SMALL, seed=1)
    np.testing.assert_allclose(cut.scores, found.scores[:1_020], rtol=1e-4, atol=1e-6)
    assert not found.scores[: SMALL.window].any()


def test_it_takes_what_a_stream_may_bring(sine: np.ndarray) -> None:
    """Gaps, a spike of 1e30, a constant channel, no declared training part, few rows: finite scores of full length."""
    wild = np.stack([sine, np.full(1_400, 5.0)], axis=1)
    wild[700:720, 0], wild[0, 1], wild[800, 0] = np.nan, np.nan, 1e30
    quick = replace(SMALL, epochs=1)
    for values, train in ((wild, 600), (sine[:400], 0), (sine[:30], 10), (sine[:6], 3)):
        result = scores(case(values, train), quick)
        assert result.scores.shape == result.anomaly.shape == (len(values),)
        assert np.isfinite(result.scores).all()


def test_a_declared_target_alone_is_forecast(sine: np.ndarray) -> None:
    """Noise beside the target is read, not judged: it does not drown the fault."""
    noise = np.random.default_rng(3).normal(size=1_400)
    both = np.stack([sine, noise], axis=1)
    told, untold = (scores(case(both, target=target), replace(SMALL, epochs=4), seed=1) for target in (0, None))
    assert FAULT.start <= int(np.argmax(told.scores)) < FAULT.stop + SMALL.window
    assert told.scores[FAULT].mean() / np.median(told.scores) > untold.scores[FAULT].mean() / np.median(untold.scores)


def test_smoothing_by_hand() -> None:
    """A span of 3 halves the weight at each row: (1), (1/2 + 0) / (3/2), (1/4 + 0 + 1) / (7/4)."""
    assert smooth(np.array([1.0, 0.0, 1.0]), span=3) == pytest.approx([1, 1 / 3, 5 / 7])


def test_the_dynamic_threshold_reports_the_peak_that_stands_out() -> None:
    """One high run among ordinary errors is reported, with its surroundings, in the rows that had arrived by then."""
    rng = np.random.default_rng(0)
    errors = 0.1 + 0.01 * rng.normal(size=3_000)
    errors[2_000:2_030] = 1.0
    told = intervals(alarms(errors, rng.normal(size=3_000), start=0))
    assert len(told) == 1
    first, end = told[0]
    assert 1_901 <= first <= 2_000
    assert 2_030 <= end <= 2_129


def test_the_dynamic_threshold_is_silent_without_one() -> None:
    """Ordinary errors, constant ones, and high ones that are small beside the values themselves report nothing."""
    rng = np.random.default_rng(0)
    errors, values = 0.1 + 0.01 * rng.normal(size=3_000), rng.normal(size=3_000)
    assert not alarms(errors, values, start=0).any()
    assert not alarms(np.full(3_000, 0.1), values, start=0).any()
    small = errors.copy()
    small[2_000:2_030] = 1.0
    assert not alarms(small / 10, 1_000 * values, start=0).any()


def test_alarms_of_a_batch_do_not_change_with_what_follows() -> None:
    """Rows are judged in batches of 70 by what had arrived: cut after a whole batch, the flags are the same."""
    rng = np.random.default_rng(5)
    errors, values = rng.gamma(2.0, 0.1, 2_100), rng.normal(size=2_100)
    whole = alarms(errors, values, start=0)
    assert whole.any()
    assert (alarms(errors[:1_400], values[:1_400], start=0) == whole[:1_400]).all()


def test_the_race_times_both_in_turn() -> None:
    """Every wave has positive times, quartiles around the median, and a ratio that fits them."""
    session = Session(read_bundle(Path(__file__).parents[1] / "golden" / "tiny-any.onnx"))
    for lap in race(session, replace(SMALL, window=50), waves=(8, 1)):
        for spread in (lap.ours_us, lap.windowed_us, lap.times_faster):
            assert 0 < spread.lower <= spread.median <= spread.upper
        ratios = lap.windowed_us.lower / lap.ours_us.upper, lap.windowed_us.upper / lap.ours_us.lower
        assert ratios[0] <= lap.times_faster.upper
        assert lap.times_faster.lower <= ratios[1]
