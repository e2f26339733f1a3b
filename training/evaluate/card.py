"""One series as a part of the report: what was measured, what others made of it, and the data of its plot.

The browser draws the plot from that data (`report.js`), once the reader comes near it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from html import escape
from typing import TypeAlias

import numpy as np

from training.evaluate.measured import VUS_PR
from training.evaluate.measures.events import Rows, intervals
from training.evaluate.results import CaseResult, SuiteResult
from training.evaluate.thinning import Edges, edges, extremes, packed

Json: TypeAlias = dict[str, object]
Looks: TypeAlias = dict[str, Rows]
"""Stretches that a reader may zoom to, by the name of the button."""

_EVENTS, _FALSE_ALARMS = 6, 4  # the first ones get finer buckets and a button
_MARGIN_MIN = 60  # rows around an event that are shown with it
_ALARM_MARGIN = 150  # rows on each side of a false alarm, for the same
_RUNS_DRAWN = 200  # more of them are merged where they lie close
FINER_SHARE = 1 / 6
"""Buckets of one such stretch, for one of the whole series."""
LOOKS_MOST = _EVENTS + _FALSE_ALARMS
"""Of them in a series."""
_NAME_MOST = 32  # letters of a channel's name above its panel: what a phone has room for


def card(result: CaseResult, suite: SuiteResult, places: Mapping[str, int], buckets: int) -> str:
    """The series as HTML.

    Args:
        result: What came of it.
        suite: The suite that it is of.
        places: Its place in each order that the reader may choose.
        buckets: Into which its curves are thinned.
    """
    case = result.case
    size = f"{len(case):,} rows, {len(case.channels)} channel{'s' if len(case.channels) > 1 else ''}"
    order = "".join(f' data-{name}="{place}"' for name, place in places.items())
    looks = _looks(result)
    return (
        f'<article data-family="{escape(case.family)}"{order}><h3>{escape(case.name)}</h3>'
        f'<p class="soft">{escape(case.family)}, {case.split}, {size}</p>{_figures(result, suite)}'
        f'{_buttons(looks)}<div class="plot" role="img" aria-label="{escape(_in_words(result))}"></div>'
        f'<script type="application/json">{_json(_data(result, looks, buckets))}</script></article>'
    )


def ranked_by(suite: SuiteResult) -> str:
    """The measure by which series are compared: the suite's lead, or VUS-PR where that is none of single series."""
    return suite.lead if any(suite.lead in result.measures for result in suite.cases) else VUS_PR


def best_of_others(result: CaseResult, suite: SuiteResult) -> float:
    """What the best other method reached on this series; NaN where none is known."""
    return _best({**result.published, **_run_here(result, suite)}, suite)[1]


def _best(figures: Mapping[str, float], suite: SuiteResult) -> tuple[str, float]:
    """The best method and its figure; NaN where none is known."""
    known = [(figure, method) for method, figure in figures.items() if not math.isnan(figure)]
    figure, method = (max if suite.is_higher_better else min)(known, default=(math.nan, ""))
    return method, figure


def _run_here(result: CaseResult, suite: SuiteResult) -> dict[str, float]:
    return {method: measures.get(ranked_by(suite), math.nan) for method, measures in result.baselines.items()}


def _figures(result: CaseResult, suite: SuiteResult) -> str:
    """Ours, as far as they are in the suite's table, and beside it the best of each kind of others; as a list."""
    tabled = {ranked_by(suite), *(name for row in suite.rows for name in row.figures)}
    ours = sorted(result.measures.items(), key=lambda item: item[0] != ranked_by(suite))
    items = [f"{escape(name)} <b>{figure:.3g}</b>" for name, figure in ours if name in tabled]
    for kind, figures in (("best published", result.published), ("best run here", _run_here(result, suite))):
        method, figure = _best(figures, suite)
        if method:
            items.append(f"{kind} <b>{figure:.3g}</b> {escape(method)}")
    return f'<ul class="figures">{"".join(f"<li>{item}</li>" for item in items)}</ul>'


def _looks(result: CaseResult) -> Looks:
    """The whole series, the first events with what is around them, the first false alarms."""
    rows, truth, wrong = len(result.case), result.case.events[:_EVENTS], _alarms(result)[1][:_FALSE_ALARMS].tolist()
    looks: Looks = {"whole series": (0, rows)}
    for n, (first, end) in enumerate(truth, 1):
        margin = max(2 * (end - first), _MARGIN_MIN)
        looks[f"event {n}"] = first - margin, end + margin
    for n, row in enumerate(wrong, 1):
        looks[f"false alarm {n}"] = row - _ALARM_MARGIN, row + _ALARM_MARGIN
    return {name: (max(0, first), min(rows, end)) for name, (first, end) in looks.items()}


def _buttons(looks: Looks) -> str:
    """One for each stretch; thumbs and keyboards zoom as well as a mouse."""
    buttons = (
        f'<button type="button" data-range="[{first},{end - 1}]">{name}</button>'
        for name, (first, end) in looks.items()
    )
    return f'<p class="looks">{"".join(buttons)}</p>'


def _in_words(result: CaseResult) -> str:
    right, wrong = _alarms(result)
    events = len(result.case.events)
    return (
        f"{result.case.name}: values with their expected band, above the score and its threshold. "
        f"{events} labelled event{'' if events == 1 else 's'}, {len(right)} alarms in them, {len(wrong)} outside."
    )


def _alarms(result: CaseResult) -> tuple[np.ndarray, np.ndarray]:
    """Rows at which alarms opened, in events and outside of them."""
    opened, is_true = np.asarray(result.verdict.opened), np.zeros(len(result.case), bool)
    for first, end in result.case.events:
        is_true[first:end] = True
    return opened[is_true[opened]], opened[~is_true[opened]]


def _data(result: CaseResult, looks: Looks, buckets: int) -> Json:
    case, verdict = result.case, result.verdict
    focus = [run for run in looks.values() if run != (0, len(case))]
    cut = edges(len(case), buckets, focus, int(buckets * FINER_SHARE))
    curves = {
        "observed": case.values[:, verdict.channel],
        **{name: getattr(verdict, name) for name in ("expected", "lower", "upper", "score", "threshold")},
    }
    name = case.channels[verdict.channel]
    right, wrong = ({"x": rows.tolist(), "y": verdict.score[rows].tolist()} for rows in _alarms(result))
    return {
        "channel": name if len(name) <= _NAME_MOST else f"{name[: _NAME_MOST - 1]}…",
        "length": len(case),
        "train": max(case.train, case.begin),
        "truth": _drawn(result.case.events, len(case)),
        "open": _drawn(intervals(verdict.anomaly), len(case)),
        "right": right,
        "wrong": wrong,
        "curves": {name: _thinned(curve, cut) for name, curve in curves.items()},
    }


def _thinned(curve: np.ndarray, cut: Edges) -> Json:
    return packed(extremes(curve, cut), curve)


def _drawn(runs: list[Rows], rows: int) -> list[Rows]:
    """Runs less gaps that nobody sees, where there are too many to draw one by one."""
    gap = rows // _RUNS_DRAWN if len(runs) > _RUNS_DRAWN else 0
    merged: list[Rows] = []
    for first, end in runs:
        if merged and first - merged[-1][1] < gap:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((first, end))
    return merged


def _json(data: Json) -> str:
    """JSON as it may stand in a script element of HTML; there are no NaN in it."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
