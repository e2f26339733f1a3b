"""NAB's score: against its published figures, and against the rules written out row by row."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shared_data import benchmark_data
from training.evaluate.measures import nab
from training.evaluate.measures.nab import (
    PROFILES,
    Profile,
    Scored,
    at_threshold,
    crossed,
    frozen,
    one_per_burst,
    optimise,
)

_FILES, _WINDOWS = 31, 57
PUBLISHED = {
    # detector: NAB's standard score of these files, and the threshold in the detector's result files
    "numenta": (71.2, 0.542187690735),
    "windowedGaussian": (36.7, 1.0),
}


def published(detector: str) -> list[Scored]:
    """Raw scores that NAB has published, with its windows, file by file."""
    root = benchmark_data("nab")
    windows = json.loads((root / "combined_windows.json").read_text())
    files = sorted((root / "published_scores" / detector).glob("*/*.csv"))
    assert len(files) == _FILES
    return [published_file(path, windows[f"{path.parent.name}/{path.name}"]) for path in files]


def published_file(path: Path, windows: Sequence[tuple[str, str]]) -> Scored:
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    times = [row["timestamp"] for row in rows]
    found = [(times.index(first[:19]), times.index(last[:19]) + 1) for first, last in windows]
    return Scored([float(row["anomaly_score"]) for row in rows], found)


@pytest.mark.parametrize("detector", PUBLISHED)
def test_published_figures_come_out(detector: str) -> None:
    """Two detectors' raw scores give the figures that NAB gives, at their threshold and by the optimiser."""
    corpus = published(detector)
    figure, threshold = PUBLISHED[detector]
    given = at_threshold(corpus, threshold)
    assert given.score == pytest.approx(figure, abs=0.05)
    assert optimise(corpus).score == pytest.approx(given.score, abs=1e-9)
    assert given.windows == _WINDOWS


def test_profiles_are_those_of_the_benchmark() -> None:
    """The weights in the code are those of NAB's own file."""
    theirs = json.loads((benchmark_data("nab") / "profiles.json").read_text())
    costs = {name: profile["CostMatrix"] for name, profile in theirs.items()}
    assert {
        name: Profile(cost["tpWeight"], cost["fpWeight"], cost["fnWeight"]) for name, cost in costs.items()
    } == PROFILES


@pytest.mark.parametrize(
    ("constant", "other"), [("_PROBATION", 0.0), ("_PROBATION_ROWS", 10**9), ("_FAR", 0.0), ("_STEEPNESS", 2.0)]
)
def test_each_rule_is_seen_in_a_published_figure(monkeypatch: pytest.MonkeyPatch, constant: str, other: float) -> None:
    """Control: without probation, without its limit, without the sigmoid's shape the figure is another."""
    corpus = published("windowedGaussian")
    figure, threshold = PUBLISHED["windowedGaussian"]
    monkeypatch.setattr(nab, constant, other)
    assert abs(at_threshold(corpus, threshold).score - figure) > 0.1


def plain_score(corpus: Sequence[Scored], threshold: float, profile: Profile) -> float:
    """NAB's rules, one row after the other."""
    raw = sum(plain_raw(np.asarray(each.scores), list(each.windows), threshold, profile) for each in corpus)
    windows = sum(len(each.windows) for each in corpus)
    silent, perfect = -profile.miss * windows, profile.hit * windows
    return 100 * (raw - silent) / (perfect - silent)


def plain_raw(scores: np.ndarray, windows: list[tuple[int, int]], threshold: float, profile: Profile) -> float:
    def worth(position: float) -> float:
        return 2 / (1 + math.exp(5 * position)) - 1 if position < 3 else -1.0

    probation = min(math.floor(0.15 * len(scores)), 750)
    total, hit = 0.0, set()
    for row, score in enumerate(scores):
        if row < probation or score < threshold:
            continue
        within = [window for window in windows if window[0] <= row < window[1]]
        passed = [window for window in windows if window[1] <= row]
        if within:
            first, end = within[0]
            if first not in hit:
                total += profile.hit * worth(-(end - row) / (end - first)) / worth(-1)
            hit.add(first)
        elif passed:
            first, end = passed[-1]
            total += profile.false_alarm * worth((row - end + 1) / max(end - first - 1, 1))
        else:
            total -= profile.false_alarm
    return total - profile.miss * (len(windows) - len(hit))


@st.composite
def series(draw: st.DrawFn) -> Scored:
    """A short series with up to three windows; scores of few values, so that ties are common."""
    lengths = draw(st.lists(st.integers(1, 12), min_size=0, max_size=6))
    edges = np.cumsum([draw(st.integers(0, 9)), *lengths]).tolist()
    rows = edges[-1] + draw(st.integers(1, 30))
    scores = draw(st.lists(st.integers(0, 6), min_size=rows, max_size=rows))
    return Scored(np.array(scores) / 2, list(zip(edges[:-1:2], edges[1::2], strict=False)))


corpora = st.lists(series(), min_size=1, max_size=4).filter(lambda corpus: any(each.windows for each in corpus))
profiles = st.sampled_from(list(PROFILES.values()))


@settings(max_examples=150, deadline=None)
@given(corpora, profiles, st.integers(0, 7))
def test_one_sort_gives_what_the_rules_give_row_by_row(corpus: list[Scored], profile: Profile, level: int) -> None:
    """At any threshold, for any windows, ties and all."""
    ours = at_threshold(corpus, level / 2, profile)
    assert ours.score == pytest.approx(plain_score(corpus, level / 2, profile), abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(corpora, profiles)
def test_the_optimiser_finds_the_best_threshold_and_of_equals_the_highest(
    corpus: list[Scored], profile: Profile
) -> None:
    """No threshold gives more, silence included; one that gives as much is not higher."""
    best = optimise(corpus, profile)
    assert best.score == pytest.approx(at_threshold(corpus, best.threshold, profile).score, abs=1e-9)
    for threshold in (math.inf, *np.arange(0, 4, 0.5)):
        other = at_threshold(corpus, threshold, profile).score
        assert other < best.score + 1e-9
        assert other < best.score - 1e-9 or threshold <= best.threshold or math.isinf(threshold)


def spike(rows: int, *at: int) -> np.ndarray:
    scores = np.zeros(rows)
    scores[list(at)] = 1
    return scores


def test_silence_is_zero_and_perfection_a_hundred() -> None:
    """No alarm at all scores 0; one at the start of each window, and nothing else, scores 100."""
    windows = [(200, 260), (700, 701)]
    for profile in PROFILES.values():
        assert at_threshold([Scored(spike(1000, 200, 700), windows)], 1, profile).score == pytest.approx(100)
        assert at_threshold([Scored(spike(1000, 200, 700), windows)], 2, profile).score == 0


def test_an_alarm_earns_less_the_later_it_is() -> None:
    """In its window; behind it a false alarm costs the more the farther it is; in probation it costs nothing."""
    earned = [at_threshold([Scored(spike(1000, row), [(300, 360)])], 1).score for row in range(300, 700)]
    assert (np.diff(earned[:60]) < 0).all()
    assert (np.diff(earned[60:]) <= 0).all()
    assert earned[59] > 0 > earned[60]
    assert at_threshold([Scored(spike(1000, 149), [(300, 360)])], 1).score == 0
    assert at_threshold([Scored(spike(1000, 150), [(300, 360)])], 1).score == pytest.approx(100 * -0.11 / 2)


def test_a_frozen_threshold_comes_from_the_other_series_only() -> None:
    """Series tuned on say the threshold; the series scored do not, and so it can be worse than theirs."""
    tuned_on = [Scored(spike(1000, 300) * 5, [(300, 360)])]
    corpus = [Scored(spike(1000, 300) * 3, [(300, 360)])]
    assert frozen(tuned_on, corpus).threshold == 5
    assert (frozen(tuned_on, corpus).score, optimise(corpus).score) == (0, pytest.approx(100))
    assert frozen(corpus, tuned_on).score == pytest.approx(100)
    assert crossed(tuned_on, corpus) == pytest.approx(50)


def test_alarms_can_be_measured_where_they_open() -> None:
    """Flags of rows at which alarms opened are scores too: the threshold is then theirs, not the optimiser's."""
    result = at_threshold([Scored(spike(1000, 310, 500), [(300, 360)])], 1)
    assert (result.found, result.windows, result.false_alarms) == (1, 1, 1)


nines = st.lists(st.floats(0, 9).map(lambda score: round(score, 1)), max_size=60)


@settings(max_examples=200, deadline=None)
@given(nines, st.integers(1, 40))
def test_one_per_burst_keeps_what_rises_above_a_decayed_maximum(scores: list[float], half_life: int) -> None:
    """The running sum says what a loop says, and of two bursts apart each keeps its first row."""
    maximum, kept = 0.0, []
    for score in scores:
        kept.append(score > maximum * (1 + 1e-12))
        maximum = max(maximum * 2 ** (-1 / half_life), score)
    ours = one_per_burst(scores, half_life)
    assert ours.tolist() == [score if keep else 0 for score, keep in zip(scores, kept, strict=True)]


@settings(max_examples=100, deadline=None)
@given(nines, st.integers(0, 60))
def test_one_per_burst_looks_at_the_past_only(scores: list[float], rows: int) -> None:
    """What comes later changes nothing."""
    assert one_per_burst(scores)[:rows].tolist() == one_per_burst(scores[:rows]).tolist()


@settings(max_examples=100, deadline=None)
@given(nines, st.floats(0.1, 9))
def test_one_per_burst_keeps_each_row_at_which_an_alarm_would_open(scores: list[float], threshold: float) -> None:
    """An alarm latched until the decayed maximum is below the threshold opens at rows that are kept."""
    kept, maximum = one_per_burst(scores, 8), 0.0
    for row, score in enumerate(scores):
        if score >= threshold > maximum:
            assert kept[row] == score
        maximum = max(maximum * 2 ** (-1 / 8), score)


def test_one_per_burst_counts_a_plateau_once() -> None:
    """A score that stays at its limit is one alarm, however long; after a long calm the next is another."""
    scores = np.concatenate([np.zeros(50), np.full(400, 8.0), np.zeros(2000), np.full(30, 8.0)])
    assert np.flatnonzero(one_per_burst(scores)).tolist() == [50, 2450]


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([Scored([1, 2, 3], [])], "at least one window"),
        ([Scored([1, math.nan, 3], [(0, 1)])], "finite numbers, got nan first at row 1"),
        ([Scored([1, 2, 3], [(1, 4)])], "in order within 3"),
        ([Scored([1, 2, 3], [(1, 3), (2, 3)])], "in order within 3"),
        ([Scored([1, 2, 3], [(1, 1)])], "in order within 3"),
    ],
)
def test_what_cannot_be_scored_is_refused(corpus: list[Scored], message: str) -> None:
    """With the reason."""
    with pytest.raises(ValueError, match=message):
        optimise(corpus)
    with pytest.raises(ValueError, match=message):
        at_threshold(corpus, 1)


def test_a_burst_of_what_is_no_score_is_refused() -> None:
    """Negative or missing scores have no decaying maximum."""
    for scores in ([1.0, -1.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match="0 or more"):
            one_per_burst(scores)
