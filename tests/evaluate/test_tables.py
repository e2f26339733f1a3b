"""Tables: pooled before divided, intervals over series, published figures on exactly the series at hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.evaluate import made_up
from tests.shared_data import benchmark_data
from training.evaluate.measured import VUS_PR
from training.evaluate.measures.bootstrap import mean_interval
from training.evaluate.nab_table import nab_table
from training.evaluate.notes import notes
from training.evaluate.results import OURS, CaseResult
from training.evaluate.suites import SUITES, Case
from training.evaluate.suites.tsb_ad import published
from training.evaluate.tables import ALARMS, alarm_figures, pooled_interval, rows_of
from training.evaluate.verdict import Verdict


def verdict(case: Case, opened: tuple[int, ...] = ()) -> Verdict:
    flat = np.zeros(len(case), np.float32)
    rows = np.array(opened, np.int64)
    return Verdict(flat, flat.astype(np.uint8), rows, flat, 0, flat, flat, flat, seconds=1.0)


def result(name: str, figure: float, their: float, family: str = "UCR", opened: tuple[int, ...] = ()) -> CaseResult:
    case = made_up.case(name, family=family)
    return CaseResult(case, verdict(case, opened), {VUS_PR: figure}, {"random": {VUS_PR: 0.1}}, {"POLY": their})


def precision(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    return np.asarray(right / (right + wrong))


def test_counts_are_pooled_before_they_are_divided() -> None:
    """One series with 90 of 100 and one with 0 of 1 have 90 of 101, not the mean of 0.9 and 0."""
    found = pooled_interval(np.array([[90.0, 10.0], [0.0, 1.0]]), precision)
    assert found.mean == pytest.approx(90 / 101)
    assert found.low == 0.0
    assert found.high == pytest.approx(0.9)


def test_series_that_agree_leave_no_doubt_and_one_tells_none() -> None:
    """Equal series give an interval of no width, a single one none at all, and nothing counted is NaN."""
    alike = pooled_interval(np.array([[9.0, 1.0]] * 5), precision)
    assert (alike.mean, alike.low, alike.high) == pytest.approx((0.9, 0.9, 0.9))
    assert math.isnan(pooled_interval(np.array([[9.0, 1.0]]), precision).low)
    assert math.isnan(pooled_interval(np.zeros((3, 2)), precision).mean)


def test_a_table_ranks_by_the_mean_and_breaks_it_up_by_family() -> None:
    """Best first; families are means of their own series; a published figure that is missing costs its series alone."""
    cases = [result("a", 0.9, 0.2), result("b", 0.5, 0.4), result("c", 0.1, math.nan, "WSD")]
    rows = rows_of(SUITES["tsb-ad-u"], cases, 1.0, {})
    assert [row.method for row in rows] == [OURS, "POLY", "random"]
    ours, theirs, _ = rows
    assert ours.figures[VUS_PR].mean == pytest.approx(0.5)
    assert ours.families == pytest.approx({"UCR": 0.7, "WSD": 0.1})
    assert theirs.figures[VUS_PR].mean == pytest.approx(0.3)
    assert theirs.figures[VUS_PR].number == 2
    assert theirs.families == pytest.approx({"UCR": 0.3})


def test_leads_are_taken_in_pairs() -> None:
    """The note compares on the series that both have: 0.7 and 0.1 more, not a difference of means over others."""
    cases = [result("a", 0.9, 0.2), result("b", 0.5, 0.4), result("c", 0.1, math.nan)]
    (line,) = (line for line in notes("tsb-ad-u", cases, 1.0, "auto") if "less" in line)
    assert line.startswith("ours less POLY, VUS-PR: +0.400")
    assert line.endswith("over 2 series")
    (line,) = (
        line for line in notes("tsb-ad-u", [*cases, result("d", 0.5, 0.6, "WSD")], 1.0, "auto") if "less" in line
    )
    assert line.endswith("over 3 series: UCR +0.400, WSD -0.100")


def test_false_alarms_are_those_outside_events_and_their_wake() -> None:
    """Of alarms at rows 10, 305, 400 and 600 the second detects, the third is in the event's wake, two are false."""
    case = made_up.case(values=made_up.wave(1_000))
    told = dict(alarm_figures([CaseResult(case, verdict(case, (10, 305, 400, 600)), {})], budget_per_day=100.0))
    assert list(told) == list(ALARMS)
    assert told["detected"].mean == 1.0
    assert told["delay, rows"].mean == 5.0
    days = (1_000 - 20 - 200) / 86_400
    assert told["false alarms/day"].mean == pytest.approx(2 / days)
    assert told["realised/promised"].mean == pytest.approx(2 / days / 100)
    later = replace(case, begin=50)
    counted = alarm_figures([CaseResult(later, verdict(later, (10, 305, 400, 600)), {})], 100.0)
    assert counted["false alarms/day"].number == 1  # rows before the measured part count for nothing


# On the data itself


@pytest.mark.parametrize(
    ("suite", "folder", "known"),
    [
        ("tsb-ad-u", "U", {"LSTMAD": 0.093, "CNN": 0.139, "KShapeAD": 0.349}),
        ("tsb-ad-m", "M", {"CNN": 0.222, "KMeansAD": 0.224}),
    ],
)
def test_published_means_are_those_that_are_known(suite: str, folder: str, known: dict[str, float]) -> None:
    """Averages over the public series are the figures that this project's issue was set against."""
    table = published(benchmark_data("tsb_ad") / folder, suite)
    names = {one.name for one in SUITES[suite].load(benchmark_data("tsb_ad"))[0]}
    means = {method: mean_interval([figures[name] for name in names]).mean for method, figures in table.items()}
    assert {method: round(means[method], 3) for method in known} == known


def test_published_scores_of_nab_give_their_figure() -> None:
    """Scores of two detectors that lie beside the files give NAB's own numbers for these files."""
    cases, _ = SUITES["nab"].load(benchmark_data("nab"))
    told = nab_table(
        [CaseResult(case, verdict(case), {}) for case in cases], [{} for _ in cases], benchmark_data("nab")
    )
    lines = {row.method: row.figures["NAB"].mean for row in told.published}
    assert lines == {
        "numenta, these files": pytest.approx(71.2, abs=0.05),
        "windowedGaussian, these files": pytest.approx(36.7, abs=0.05),
    }
