"""The figures of the report. A candidate has the same colour in all of them; a key above says which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from training.compare.choose import LOSS, Measure
from training.compare.costs import Cost
from training.compare.finding import Drawn, Finding, Learnt
from training.compare.result import Result
from training.page import BAND, BLUE, GREY, HALF_DECADES, ORANGE

COLOURS = (BLUE, ORANGE, "#4f9a4f", "#9a6fd0", "#d0524f", "#2a9d8f", "#a08a1c", "#c2569a")
"""Of the candidates that are told apart; the others are grey. They stand out on both kinds of paper."""
FAULT, SCORE, THRESHOLD = "rgba(207,34,46,.20)", GREY, "#9a6fd0"


def colours(result: Result) -> dict[int, str]:
    """By number: the one that is taken, then the best ones."""
    ordered = [result.choice.taken, *(one for one in result.done if one is not result.choice.taken)]
    return {one.number: colour for one, colour in zip(ordered, COLOURS, strict=False)}


def costs(result: Result) -> go.Figure:
    """Accuracy against time and against memory, each with its Pareto front."""
    lead, coloured = result.choice.lead, colours(result)
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.2)
    for row, (name, of) in enumerate(_COSTS.items(), 1):
        points = [(of(result.costs[one.number]), lead.mean(one), one) for one in result.done]
        line = _front([(x, lead.sign * y) for x, y, _ in points])
        figure.add_scatter(
            x=[x for x, _ in line], y=[lead.sign * y for _, y in line], mode="lines", hoverinfo="skip",
            line={"color": GREY, "width": 1, "dash": "dot"}, row=row, col=1,
        )  # fmt: skip
        for x, y, one in [*points, (of(result.costs[result.floor.number]), lead.mean(result.floor), result.floor)]:
            taken = one is result.choice.taken
            marker = {
                "color": coloured.get(one.number, GREY),
                "size": 14 if taken else 9,
                "symbol": "diamond" if taken else "circle-open" if one is result.floor else "circle",
            }
            label = f"{one.label}: {y:.4g}, {x:,.4g}"
            figure.add_scatter(x=[x], y=[y], mode="markers", marker=marker, hovertext=label, hoverinfo="text",
                               row=row, col=1)  # fmt: skip
        figure.update_xaxes(title_text=name, rangemode="tozero", nticks=6, row=row, col=1)
    figure.update_yaxes(title_text=_title(lead))
    return figure.update_layout(height=620, showlegend=False)


_COSTS: Mapping[str, Callable[[Cost], float]] = {
    "microseconds per sample": lambda cost: cost.fleet_us,
    "bytes per stream": lambda cost: cost.bytes_per_stream,
}


def _title(measure: Measure) -> str:
    return f"{measure.name} ({'more' if measure.sign > 0 else 'less'} is better)"


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (cost, the more the better) that no other one beats in both, by cost."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or y > kept[-1][1]:
            kept.append((x, y))
    return kept


def learning_curves(result: Result) -> go.Figure:
    """Validation loss over time, all on one clock, for that is what was equal."""
    figure = _over_time(result, lambda epoch: epoch.validation_loss)
    if result.floor.persistence_loss:
        figure.add_hline(y=result.floor.persistence_loss, line={"color": GREY, "dash": "dash", "width": 1.2})
    return figure.update_layout(yaxis_title=_title(LOSS))


def gradient_norms(result: Result) -> go.Figure:
    """Median gradient norm of each epoch, before clipping."""
    figure = _over_time(result, lambda epoch: epoch.gradient_norm or None)
    return figure.update_layout(yaxis_title="gradient norm", yaxis_type="log", yaxis_dtick=HALF_DECADES)


def _over_time(result: Result, of: Callable[[Learnt], float | None]) -> go.Figure:
    """A line per candidate that learnt anything; those without a colour of their own below the others."""
    coloured, figure = colours(result), go.Figure()
    learnt = [one for one in result.candidates if one.epochs]
    for one in sorted(learnt, key=lambda one: one.number in coloured):
        width = 1.6 if one.number in coloured else 0.8
        figure.add_scatter(
            x=[epoch.spent_s for epoch in one.epochs], y=[of(epoch) for epoch in one.epochs], mode="lines+markers",
            marker={"size": 3}, line={"color": coloured.get(one.number, GREY), "width": width}, name=one.label,
        )  # fmt: skip
    return figure.update_layout(xaxis_title="seconds of training", height=380, showlegend=False)


def forecasts(drawn: Drawn) -> go.Figure:
    """A stretch of one channel with the band, and the score below; faults are shaded."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.65, 0.35])
    time = np.array(drawn.time_ms, "datetime64[ms]")
    edge = {"line": {"width": 0}, "hoverinfo": "skip"}
    curves = (
        (drawn.upper, edge, 1),
        (drawn.lower, {**edge, "fill": "tonexty", "fillcolor": BAND}, 1),
        (drawn.expected, {"name": "expected", "line": {"color": BLUE, "width": 1.2}}, 1),
        (drawn.observed, {"name": "observed", "line": {"color": ORANGE, "width": 1.2}}, 1),
        (drawn.score, {"name": "score", "line": {"color": SCORE, "width": 1.2}}, 2),
        (drawn.threshold, {"name": "threshold", "line": {"color": THRESHOLD, "width": 1.2, "dash": "dot"}}, 2),
    )
    for curve, look, row in curves:
        figure.add_scatter(x=time, y=curve, mode="lines", row=row, col=1, **look)
    for first, end in drawn.wrong:
        figure.add_vrect(x0=time[first], x1=time[end - 1], fillcolor=FAULT, line_color=FAULT, layer="below")
    figure.update_xaxes(nticks=5).update_yaxes(title_text="score, nines", row=2, col=1)
    figure.update_yaxes(range=_heights(drawn), row=1, col=1)
    return figure.update_layout(height=380, showlegend=False)


def _heights(drawn: Drawn) -> list[float] | None:
    """What shows all that was observed; a band far beyond it is cut off."""
    seen = [value for value in drawn.observed if value is not None]
    if not seen:
        return None
    air = (max(seen) - min(seen) or abs(seen[0]) or 1.0) / 4
    return [min(seen) - air, max(seen) + air]


def shown(result: Result) -> list[Finding]:
    """Whose forecasts are drawn: the one that is taken, the best by each measure, and the floor; each once."""
    chosen = [result.choice.taken, *(step.best for step in result.choice.steps), result.floor]
    return [one for one in {one.number: one for one in chosen}.values() if one.drawn]
