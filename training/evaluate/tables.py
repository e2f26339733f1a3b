"""From cases to the lines of a suite's table: means with intervals, pooled ratios, what alarms are like.

A figure over series comes with its 95 % bootstrap interval over series. Counts are pooled over series before a ratio is
taken, as the leader boards do. Published figures stand beside, where the same series were measured by the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.evaluate.baselines import FLOORS
from training.evaluate.measured import BY_TRAINING, F1, HIT_RATE, HIT_RATE_OF_ROWS, NAB, US_PER_ROW, VUS_PR
from training.evaluate.measures import delay, events, skab, ucr
from training.evaluate.measures.bootstrap import Interval, mean_interval
from training.evaluate.published import WHOLE_SUITE, as_interval
from training.evaluate.results import OURS, CaseResult, Kind, Row
from training.evaluate.suites import Pooled, Suite

LEAD: dict[Pooled | None, str] = {None: VUS_PR, "nab": NAB, "hits": HIT_RATE, "points": F1, "events": VUS_PR}
"""What the methods of a suite are ranked by."""

ALARMS = ("detected", "delay, rows", "false alarms/day", "realised/promised")
"""Figures of ours by its own alarms: share of events told of, median rows from begin to alarm with quartiles, false
alarms per stream-day, and those over what the budget lets expect."""

_DRAWS = 2_000
_GRACE = 200  # rows after an event in which an alarm is neither right nor wrong: what the event left in the memory
Values = Mapping[str, float]


def rows_of(
    suite: Suite,
    cases: Sequence[CaseResult],
    budget_per_day: float,
    further: Mapping[str, Mapping[str, Interval]],
    published: Sequence[Row] = (),
) -> list[Row]:
    """The lines of a suite's table, best first.

    Args:
        suite: What they are of.
        cases: All that could be scored.
        budget_per_day: Alarms per stream-day that were promised.
        further: Figures by method that do not follow from the cases one by one.
        published: Lines of what others published, beside those that follow from the cases.
    """
    methods = dict.fromkeys(method for case in cases for method in _methods(case))
    lines = [_row(suite, cases, method, budget_per_day, further.get(method, {})) for method in methods]
    lines += [_same_series(suite, cases, row.method) for row in lines if row.kind == "baseline"]
    lines += [*published, *_published(suite, cases)]
    lead = LEAD[suite.pooled]
    return sorted(lines, key=lambda row: -row.figures[lead].mean if lead in row.figures else math.inf)


def _methods(case: CaseResult) -> dict[str, Values]:
    return {OURS: case.measures, **case.baselines}


def _row(
    suite: Suite,
    cases: Sequence[CaseResult],
    method: str,
    budget_per_day: float,
    further: Mapping[str, Interval],
    *,
    alarms: bool = True,
) -> Row:
    """One method that ran here, over the cases that it ran on."""
    found = [(case, _methods(case)[method]) for case in cases if method in _methods(case)]
    values = [each for _, each in found]
    figures = {**further, **_POOLED[suite.pooled](values)}
    figures |= {name: mean_interval([each.get(name, math.nan) for each in values]) for name in (VUS_PR, US_PER_ROW)}
    if method == OURS and alarms:
        figures |= alarm_figures(cases, budget_per_day)
    kind: Kind = "ours" if method == OURS else "floor" if method in FLOORS else "baseline"
    lead = LEAD[suite.pooled]
    families: dict[str, list[float]] = {}
    for case, each in found:
        families.setdefault(case.case.family, []).append(each.get(lead, math.nan))
    return Row(method, kind, _known(figures), _means(families))


def _same_series(suite: Suite, cases: Sequence[CaseResult], method: str) -> Row:
    """Ours on the series that a baseline ran on."""
    ran = [case for case in cases if method in case.baselines]
    return replace(_row(suite, ran, OURS, 1.0, {}, alarms=False), method=f"{OURS}, where {method} ran")


def _published(suite: Suite, cases: Sequence[CaseResult]) -> list[Row]:
    """Per series where its authors say it, else for the whole suite."""
    lines = [
        Row(each.method, "published", {name: as_interval(figure) for name, figure in each.figures.items()})
        for each in WHOLE_SUITE.get(suite.name, ())
    ]
    for method in dict.fromkeys(method for case in cases for method in case.published):
        families: dict[str, list[float]] = {}
        for case in cases:
            families.setdefault(case.case.family, []).append(case.published.get(method, math.nan))
        every = [figure for figures in families.values() for figure in figures]
        lines.append(Row(method, "published", _known({VUS_PR: mean_interval(every)}), _means(families)))
    return lines


def _known(figures: Mapping[str, Interval]) -> dict[str, Interval]:
    return {name: figure for name, figure in figures.items() if not math.isnan(figure.mean)}


def _means(families: Mapping[str, Sequence[float]]) -> dict[str, float]:
    means = {family: mean_interval(figures).mean for family, figures in sorted(families.items())}
    return {family: mean for family, mean in means.items() if not math.isnan(mean)}


# What a suite's community looks at


def _hits(values: Sequence[Values]) -> dict[str, Interval]:
    return {
        name: ucr.hit_rate([each[name] == 1.0 for each in values if name in each])
        for name in (HIT_RATE, HIT_RATE_OF_ROWS)
    }


def _points(values: Sequence[Values]) -> dict[str, Interval]:
    """By a method's own rule, and by the training rows' threshold."""
    return _rates(values) | _rates(values, BY_TRAINING)


def _rates(values: Sequence[Values], by: str = "") -> dict[str, Interval]:
    counts = _counts(values, f"{by}rows", skab.PointCount._fields)
    return {
        f"{by}{F1}": pooled_interval(counts, lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn)),
        f"{by}FAR %": pooled_interval(counts, lambda tp, fp, fn, tn: 100 * fp / (fp + tn)),
        f"{by}MAR %": pooled_interval(counts, lambda tp, fp, fn, tn: 100 * fn / (fn + tp)),
    }


def _events(values: Sequence[Values]) -> dict[str, Interval]:
    counts = _counts(values, "events", events.EventCount._fields)
    return {
        "event precision": pooled_interval(counts, lambda tp, fp, fn: tp / (tp + fp)),
        "event recall": pooled_interval(counts, lambda tp, fp, fn: tp / (tp + fn)),
        "FAR %": _rates(values)["FAR %"],
    }


def _nothing(values: Sequence[Values]) -> dict[str, Interval]:
    return {}


_POOLED: dict[Pooled | None, Callable[[Sequence[Values]], dict[str, Interval]]] = {
    None: _nothing,
    "nab": _nothing,  # follows from all scores at once: nab_table.py
    "hits": _hits,
    "points": _points,
    "events": _events,
}


def _counts(values: Sequence[Values], prefix: str, names: Sequence[str]) -> NDArray[np.float64]:
    """Counts (N cases, names) to be pooled."""
    return np.array([[each.get(f"{prefix} {name}", 0.0) for name in names] for each in values]).reshape(-1, len(names))


def pooled_interval(counts: NDArray[np.float64], ratio: Callable[..., NDArray[np.float64]], seed: int = 0) -> Interval:
    """A ratio of counts pooled over series, with its 95 % bootstrap interval over series.

    Args:
        counts: (N, k), one row per series.
        ratio: Takes the k sums and gives the ratio.
        seed: Of the draws.
    """
    series = len(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(ratio(*counts.sum(axis=0)))
        if series < 2:
            return Interval(value, math.nan, math.nan, series)
        draws = np.random.default_rng(seed).multinomial(series, np.full(series, 1 / series), _DRAWS)
        spread = ratio(*(draws @ counts).T)
    spread = spread[np.isfinite(spread)]
    low, high = np.quantile(spread, [0.025, 0.975]).tolist() if len(spread) else (math.nan, math.nan)
    return Interval(value, low, high, series)


# What it is like to be called


def alarm_figures(cases: Sequence[CaseResult], budget_per_day: float) -> dict[str, Interval]:
    """Events detected and how late, false alarms per stream-day and against the budget; by `decide`'s own alarms."""
    delays = delay.pool_delays(
        delay.detection_delay(each.verdict.opened, each.case.events, each.case.period_s) for each in cases
    )
    alarms = delay.pool_alarms([_false_alarms(each) for each in cases])
    figures = (delays.share, _median(delays.samples), alarms.per_day, alarms.realised_ratio(budget_per_day))
    return dict(zip(ALARMS, figures, strict=True))


def _false_alarms(each: CaseResult) -> delay.FalseAlarms:
    case = each.case
    return delay.alarms_per_day(
        each.verdict.opened, case.events, len(case), case.period_s, start=case.begin, grace=_GRACE
    )


def _median(values: Sequence[int]) -> Interval:
    """Median with its quartiles in place of an interval."""
    if not values:
        return Interval(math.nan, math.nan, math.nan, 0)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Interval(middle, low, high, len(values))
