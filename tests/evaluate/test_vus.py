"""VUS and the period are TSB-AD's own numbers: compared with its code, which only these tests install."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shared_data import benchmark_data
from training.evaluate.measures import vus
from training.evaluate.measures.vus import period, volume, vus_pr, vus_roc

_CLOSE = 1e-9
_FALLBACK = 125


def original(module: str) -> Any:
    """A module of TSB-AD: skipped where it is not installed, unless the environment says that it must be."""
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        if os.environ.get("TIDEWARDEN_REQUIRE_TSB_AD") == "1":
            raise
        pytest.skip(f"{missing}; `pip install --require-hashes --no-deps -r locks/evaluation.txt`")


def original_volume(labels: np.ndarray, scores: np.ndarray, window: int) -> tuple[float, float]:
    """VUS-PR and VUS-ROC as `TSB_AD.evaluation.metrics.get_metrics` asks for them."""
    curve = original("TSB_AD.evaluation.basic_metrics").generate_curve
    *_, roc, pr = curve(labels.astype(int), scores, window, "opt", 250)
    return pr, roc


def original_period(values: np.ndarray) -> int:
    """The window of a series as the benchmark's own programs ask for it."""
    find = original("TSB_AD.utils.slidingWindows").find_length_rank
    with np.errstate(invalid="ignore"):  # it divides by zero where a series is constant, and goes on
        return int(find(values.reshape(-1, 1), rank=1))


def assert_same(labels: np.ndarray, scores: np.ndarray, window: int) -> None:
    ours = volume(labels, scores, window)
    assert (ours.pr, ours.roc) == pytest.approx(original_volume(labels, scores, window), abs=_CLOSE, rel=0)
    assert (vus_pr(labels, scores, window), vus_roc(labels, scores, window)) == (ours.pr, ours.roc)


def labels_of(rows: int, *anomalies: tuple[int, int]) -> np.ndarray:
    labels = np.zeros(rows, np.int8)
    for first, end in anomalies:
        labels[first:end] = 1
    return labels


SCORES: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "random": lambda random, labels: random.random(len(labels)),
    "good": lambda random, labels: labels + random.normal(0, 0.4, len(labels)),
    "wrong": lambda random, labels: -labels.astype(float),
    "three values": lambda random, labels: random.integers(0, 3, len(labels)).astype(float),
    "all tied": lambda random, labels: np.full(len(labels), 0.5),
    "huge": lambda random, labels: 1e300 * random.standard_t(2, len(labels)).clip(-9, 9),
    "float32": lambda random, labels: random.random(len(labels)).astype(np.float32),
    "whole numbers": lambda random, labels: random.integers(-50, 50, len(labels)),
}
BORDERS = {
    "in the middle": labels_of(120, (50, 60)),
    "at both ends": labels_of(120, (0, 7), (110, 120)),
    "single rows at both ends": labels_of(120, (0, 1), (119, 120)),
    "borders that overlap": labels_of(120, (40, 42), (45, 46), (51, 60), (66, 67)),
    "every other row": np.arange(61) % 2,
    "one normal row": labels_of(40, (0, 20), (21, 40)),
    "more rows than thresholds": labels_of(400, (100, 130), (300, 301)),
    "two rows": labels_of(2, (0, 1)),
}


@pytest.mark.parametrize("labels", BORDERS.values(), ids=BORDERS)
@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_vus_equals_the_original_in_awkward_cases(labels: np.ndarray, scores: Callable[..., np.ndarray]) -> None:
    """Ties, short series, labels at the ends and borders that overlap: the original's number, whatever it is."""
    random = np.random.default_rng(5)
    for window in (0, 7):
        assert_same(labels, scores(random, labels), window)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 200),
    anomalies=st.lists(st.tuples(st.integers(0, 199), st.integers(1, 25)), min_size=1, max_size=8),
    kind=st.sampled_from(sorted(SCORES)),
    window=st.integers(0, 18),
    seed=st.integers(0, 999),
)
def test_vus_equals_the_original(
    rows: int, anomalies: list[tuple[int, int]], kind: str, window: int, seed: int
) -> None:
    """For any labels, scores and window."""
    labels = labels_of(rows, *((first % rows, first % rows + length) for first, length in anomalies))
    if labels.all():
        labels[seed % rows] = 0
    assert_same(labels, SCORES[kind](np.random.default_rng(seed), labels), window)


def test_vus_equals_the_original_on_real_series() -> None:
    """The three smallest series of the benchmark, at their own period (at most 40 rows), with a plain detector."""
    found = sorted(benchmark_data("tsb_ad").glob("[UM]/*.npz"), key=lambda path: path.stat().st_size)
    assert len(found) > 3
    for path in found[:3]:
        with np.load(path) as series:
            values, labels = series["X"][:, 0].astype(float), series["y"]
        assert_same(labels, np.abs(np.diff(values, prepend=values[0])), min(period(values), 40))


def without_border(*_: object) -> float:
    return 0.0


def without_share_found(*_: object) -> float:
    return 1.0


@pytest.mark.parametrize(("part", "broken"), [("_border", without_border), ("_found", without_share_found)])
def test_each_part_of_vus_is_seen(monkeypatch: pytest.MonkeyPatch, part: str, broken: Callable[..., float]) -> None:
    """Control: without the soft border, or without the share of anomalies found, the number is another."""
    labels = BORDERS["borders that overlap"]
    scores = SCORES["random"](np.random.default_rng(3), labels)
    monkeypatch.setattr(vus, part, broken)
    assert abs(vus_pr(labels, scores, 15) - original_volume(labels, scores, 15)[0]) > 1e-3


def test_perfect_scores_reach_one() -> None:
    """The anomaly above all else has an area of 1 at any width: the soft border is a licence and no duty."""
    labels = labels_of(1000, (400, 500))
    assert vus_pr(labels, labels, 0) == vus_pr(labels, labels, 100) == pytest.approx(1)


@pytest.mark.parametrize(
    ("labels", "scores", "window", "message"),
    [
        ([0, 0, 0], [1, 2, 3], 2, "at least one anomaly"),
        ([1, 1, 1], [1, 2, 3], 2, "at least one anomaly"),
        ([0, 2, 0], [1, 2, 3], 2, "0 and 1 only"),
        ([0, 1], [1, 2, 3], 2, "shapes"),
        ([0, 1, 0], [1, np.nan, 3], 2, "NaN first at row 1"),
        ([0, 1, 0], [1, 2, 3], -1, "window"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels: list[int], scores: list[float], window: int, message: str) -> None:
    """The original fails with an index error or returns NaN; ours says what is wrong."""
    with pytest.raises(ValueError, match=message):
        volume(labels, scores, window)


def waves(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Series of one length, from noise to exact repetition."""
    time = np.arange(rows)
    return {
        "noise": random.random(rows),
        "wave": np.sin(2 * np.pi * time / random.integers(4, 350)) + random.normal(0, 0.1, rows),
        "steps": random.integers(0, 2, rows).astype(float),
        "walk": np.cumsum(random.normal(0, 1, rows)),
        "pattern repeated": np.resize(random.random(random.integers(2, 350)), rows),
    }


@pytest.mark.parametrize("rows", [6, 50, 403, 1000, 5000, 20001, 25000])
def test_period_equals_the_original(rows: int) -> None:
    """For series shorter than the lags, around the rows that are looked at, and between."""
    random = np.random.default_rng(rows)
    for _ in range(6):
        for name, values in waves(random, rows).items():
            assert period(values) == original_period(values), name


def test_period_equals_the_original_on_all_real_series() -> None:
    """Every series of the benchmark that is there, by its first channel."""
    for path in sorted(benchmark_data("tsb_ad").glob("[UM]/*.npz")):
        with np.load(path) as series:
            values = series["X"][:, 0]
        assert period(values) == original_period(values), path.name


def test_period_of_a_series_without_one_is_the_fallback() -> None:
    """Constant, too short or straight: 125, as the original's exception handler has it."""
    for values in (np.ones(1000), np.arange(5.0), np.arange(2000.0), [1.0]):
        assert period(values) == _FALLBACK


def test_a_required_original_that_is_missing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment requires TSB-AD its absence is an error; elsewhere it is a skip."""
    monkeypatch.setenv("TIDEWARDEN_REQUIRE_TSB_AD", "1")
    with pytest.raises(ImportError):
        original("TSB_AD.no_such_part")
    monkeypatch.delenv("TIDEWARDEN_REQUIRE_TSB_AD")
    with pytest.raises(pytest.skip.Exception, match=r"evaluation\.txt"):
        original("TSB_AD.no_such_part")
