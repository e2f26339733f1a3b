"""The calibration table finds honest scores honest, and dishonest ones out; the bundle in the box is honest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from detector.model.bundle import Bundle
from detector.records import Float32, Float64
from detector.scoring import open_bundle
from training.evaluate import calibration
from training.evaluate.calibration import Row, calibration_table
from training.synthetic.stationary import KINDS, stationary


@dataclass(frozen=True, slots=True)
class Says:
    """A step of a model that says what it is told to."""

    score: Float32
    blame: Float32
    expected: Float64
    lower: Float64
    upper: Float64
    next_state: Float32


def saying(monkeypatch: pytest.MonkeyPatch, *, sense: float, burst: int = 1) -> None:
    """Let the model tell nines that come as often as they say, times `sense`, in bursts of equal ones."""

    def steps(_: Bundle, values: Float64) -> Iterator[Says]:
        rng, streams = np.random.default_rng(3), values.shape[1]
        for t in range(len(values)):
            if t % burst == 0:
                nines = rng.exponential(1 / math.log(10), streams).astype(np.float32) * np.float32(sense)
            ones = np.ones((streams, 1))
            yield Says(nines, ones.astype(np.float32), 0 * ones, -1e9 * ones, 1e9 * ones, ones.astype(np.float32))

    monkeypatch.setattr(calibration, "_steps", steps)
    monkeypatch.setattr(calibration, "CALIBRATED_AFTER", 2_000)  # for a bundle that does not say


def table(samples: int, **further: object) -> dict[str, Row]:
    """The rows of one kind by promise."""
    rows = calibration_table(replace(open_bundle("default"), metadata={}), 12, samples, kinds=["gaussian"], **further)  # type: ignore[arg-type]  # the test's own
    return {row.promise: row for row in rows}


def test_honest_nines_are_found_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    """All promises are kept: nines before and after calibration, and budgets, although scores come in bursts."""
    saying(monkeypatch, sense=1.0, burst=4)
    rows = table(7_000, budgets=(1.0, 10.0))
    assert {row.promise for row in rows.values() if not row.is_kept} == set()
    assert rows["2 nines"].ratio == pytest.approx(1.0, rel=0.3)
    assert rows["10 a day at 60 s"].promised > 16


def test_nines_that_do_not_follow_the_stream_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores half as large again, as of a tail that never learnt: the nines break, and the budget's loop makes good."""
    saying(monkeypatch, sense=1.5)
    rows = table(7_000, budgets=(10.0,))
    assert not rows["2 nines"].is_kept
    assert not rows["3 nines"].is_kept
    assert rows["10 a day at 60 s"].is_kept


def test_without_the_correction_the_budget_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same scores, the loop left open."""
    saying(monkeypatch, sense=1.5)
    monkeypatch.setattr("detector.stages.decide.transitions.rise", lambda correction, _: correction)
    monkeypatch.setattr("detector.stages.decide.transitions.fall", lambda correction, *_: correction)
    assert not table(7_000, budgets=(10.0,))["10 a day at 60 s"].is_kept


def test_the_bundle_in_the_box_is_honest_from_early_on() -> None:
    """Of each kind, 2 nines come at most 5 times too often while the stream is young: it rather errs to the calm."""
    rows = calibration_table(open_bundle("default"), 6, 2_500, budgets=(10.0,))
    early = [row for row in rows if row.promise == "2 nines, early"]
    assert len(early) == len(KINDS)
    assert [row for row in early if row.realised > row.factor * row.promised] == []


def test_streams_repeat_and_stay_as_they_are() -> None:
    """A seed gives one stream; its halves have the same spread and level, near enough for what it is."""
    for kind in KINDS:
        first = stationary(kind, 40_000, 1)
        assert (first == stationary(kind, 40_000, 1)).all()
        halves = first.reshape(2, -1)
        assert np.std(halves[0]) / np.std(halves[1]) == pytest.approx(1.0, rel=0.4), kind
        assert abs(np.mean(halves[0]) - np.mean(halves[1])) < 0.5 * np.std(first), kind
