"""Infer: the clock's features, and rows that are gathered, stepped and put back."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from detector.model.session import StepOutput
from detector.stages.infer import WallClock, WaveInput, infer
from tests.engine_feed import PlainModel


def plainly(time_zone: str, event_ns: int) -> list[float]:
    """The features from a calendar."""
    local = datetime.fromtimestamp(event_ns // 10**9, ZoneInfo(time_zone))
    minute = local.hour * 60 + local.minute
    day, week = minute / 1440, (local.weekday() * 1440 + minute) / 10_080
    return [np.sin(2 * np.pi * day), np.cos(2 * np.pi * day), np.sin(2 * np.pi * week), np.cos(2 * np.pi * week)]


@pytest.mark.parametrize(
    "time_zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/New_York"]
)
def test_the_clock_is_the_calendars(time_zone: str) -> None:
    """Also around changes of summer time, and on both sides of them in one wave."""
    random = np.random.default_rng(1)
    seconds = [
        1_711_846_799,
        1_711_846_800,
        1_729_990_799,
        1_729_990_800,
        0,
        1_712_415_600,
        1_712_415_599,
        1_730_613_600,
        *random.integers(0, 4_000_000_000, 200).tolist(),
    ]
    event_ns = np.array(seconds) * 10**9 + 999_999_999
    features = WallClock(time_zone).features(event_ns)
    assert features.dtype == np.float32
    expected = np.array([plainly(time_zone, int(one)) for one in event_ns])
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_the_clock_of_a_sample_does_not_depend_on_its_wave() -> None:
    """Alone and among others a time has the same bits."""
    clock = WallClock("Europe/Berlin")
    event_ns = np.arange(0, 3 * 10**17, 10**15)
    together = clock.features(event_ns)
    assert all(np.array_equal(clock.features(event_ns[i : i + 1])[0], together[i]) for i in range(len(event_ns)))


def test_only_the_rows_of_the_wave_are_stepped() -> None:
    """Each by its own sample; a missing value is unobserved."""
    state = np.tile(np.array([0, 1, 0, 0], np.float32), (5, 1))
    before = state.copy()
    wave = WaveInput(
        slots=np.array([1, 3]),
        values=np.array([[2.0, np.nan], [5.0, 7.0]]),
        elapsed_s=np.array([0.0, 60.0]),
        event_ns=np.array([0, 60 * 10**9]),
    )
    step = infer(PlainModel(), state, wave, WallClock("UTC"))
    assert np.array_equal(state[[0, 2, 4]], before[[0, 2, 4]])
    assert np.array_equal(state[[1, 3]], step.next_state)
    assert state[[1, 3], 2:].tolist() == [[2, 0], [5, 7]]
    assert step.score.tolist() == [2, 7]


def test_rows_of_another_type_never_enter_the_arena() -> None:
    """They would be taken for other numbers."""

    class Doubles(PlainModel):
        def step(self, *wave: Any) -> StepOutput:
            step = super().step(*wave)
            return step._replace(next_state=step.next_state.astype(np.float64))

    wave = WaveInput(np.array([0]), np.ones((1, 1)), np.zeros(1), np.zeros(1, np.int64))
    with pytest.raises(TypeError, match="expected float32"):
        infer(Doubles(), np.zeros((2, 3), np.float32), wave, WallClock("UTC"))
