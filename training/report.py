"""The run's HTML report: one file that needs nothing else, readable on light and dark screens.

Given what fit and calibrate measured; plots the learning curve, gradient norms, forecasts on a stretch of the
validation span, what they looked back on where the network attends to its past, the scores against what their
definition promises, and the figures behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from training.attention import LookedBack, heat_maps
from training.calibrate import Calibration
from training.data.look import Finding
from training.findings import as_section
from training.fit import Epoch, Fitted
from training.page import BAND, BLUE, GREY, HALF_DECADES, ORANGE, facts, page, plot, section, text
from training.rollout import Run

_DRAWN_STREAMS, _DRAWN_SAMPLES = 4, 600


def stretches(runs: Sequence[Run]) -> list[Run]:
    """What is drawn: of a few streams, evenly chosen, the samples around the highest score."""
    return [run.part(_around_highest(run)) for run in runs[:: -(-len(runs) // _DRAWN_STREAMS)]]


def _around_highest(run: Run) -> slice:
    start = min(max(0, int(np.argmax(run.score)) - _DRAWN_SAMPLES // 2), max(0, len(run.score) - _DRAWN_SAMPLES))
    return slice(start, start + _DRAWN_SAMPLES)


def write_report(
    path: Path,
    title: str,
    metrics: Mapping[str, Any],
    fitted: Fitted,
    calibration: Calibration,
    drawn: Sequence[Run],
    looked: Sequence[LookedBack],
    findings: Sequence[Finding] = (),
) -> None:
    """Write the page.

    Args:
        path: File to write.
        title: Its headline.
        metrics: Figures by name, in sections.
        fitted: What fit logged.
        calibration: What calibrate measured.
        drawn: The stretches whose forecasts are drawn.
        looked: What these looked back on; nothing where the network does not attend.
        findings: What was found in the data.
    """
    realised = calibration.realised
    parts = [
        section("Figures", *(facts(name, _flat(rows)) for name, rows in metrics.items())),
        as_section(findings, metrics["data"]["streams"]),
        section("Learning curve", plot(_learning_curve(fitted))),
        section("Gradient norms before clipping", plot(_gradient_norms(fitted.epochs))),
        *([section("How far back gradients reach", plot(_reach(fitted)))] if any(fitted.reach.values()) else []),
        section("Scores: promised and realised", _nines_table(realised), plot(_realised_nines(realised))),
        *(part for run in drawn for part in _stretch(run, looked)),
    ]
    path.write_text(page(title, parts), encoding="utf-8")


def _stretch(run: Run, looked: Sequence[LookedBack]) -> Iterator[str]:
    stream = run.series.stream
    yield section(f"Forecasts: {stream}", plot(_forecasts(run)))
    for one in looked:
        if one.stream == stream:
            yield section(f"What these forecasts look back on: {stream}", plot(heat_maps(one)))


def _flat(rows: Mapping[str, Any]) -> dict[str, object]:
    return {
        name: ", ".join(f"{k} {text(v)}" for k, v in row.items()) or "none" if isinstance(row, dict) else row
        for name, row in rows.items()
        if name != "realised"  # has a section of its own
    }


def _nines_table(realised: Mapping[float, float]) -> str:
    rows = "".join(
        f"<tr><td>{nines:g}</td><td>{10**-nines:.2g}</td><td>{share:.2g}</td></tr>" for nines, share in realised.items()
    )
    return f"<table><tr><th>score, nines</th><th>promised share</th><th>realised share</th></tr>{rows}</table>"


def _learning_curve(fitted: Fitted) -> go.Figure:
    epochs = fitted.epochs
    number = [epoch.epoch for epoch in epochs]
    figure = go.Figure()
    figure.add_scatter(x=number, y=[epoch.train_loss for epoch in epochs], name="training", line_color=GREY)
    figure.add_scatter(x=number, y=[epoch.validation_loss for epoch in epochs], name="validation", line_color=BLUE)
    figure.add_hline(y=fitted.persistence_loss, line_dash="dot", line_color=ORANGE, annotation_text="persistence")
    return figure.update_layout(xaxis_title="epoch", yaxis_title="pinball loss, in difference scales", height=360)


def _gradient_norms(epochs: Sequence[Epoch]) -> go.Figure:
    taught = [epoch for epoch in epochs if epoch.gradient_norm_max > 0]  # the first has only measured
    number = [epoch.epoch for epoch in taught]
    figure = go.Figure()
    figure.add_scatter(x=number, y=[epoch.gradient_norm_median for epoch in taught], name="median", line_color=BLUE)
    figure.add_scatter(x=number, y=[epoch.gradient_norm_max for epoch in taught], name="largest", line_color=ORANGE)
    return figure.update_layout(
        xaxis_title="epoch", yaxis_title="norm", yaxis_type="log", yaxis_dtick=HALF_DECADES, height=300
    )


def _reach(fitted: Fitted) -> go.Figure:
    """On this axis a gradient that vanishes is a straight line down, one that explodes a line upward."""
    figure = go.Figure()
    for (name, norms), colour in zip(fitted.reach.items(), (GREY, BLUE), strict=False):
        figure.add_scatter(x=list(range(1, len(norms) + 1)), y=norms, name=name, line_color=colour)
    return figure.update_layout(
        xaxis_title="samples back, k",
        yaxis_title="norm of d loss(t) / d state(t - k)",
        yaxis_type="log",
        yaxis_exponentformat="power",
        height=340,
    )


def _realised_nines(nines: dict[float, float]) -> go.Figure:
    score = [nine for nine, share in nines.items() if share > 0]
    figure = go.Figure()
    figure.add_scatter(x=score, y=[10.0**-nine for nine in score], name="promised", line={"dash": "dot", "color": GREY})
    figure.add_scatter(x=score, y=[nines[nine] for nine in score], name="realised", line_color=BLUE)
    return figure.update_layout(
        xaxis_title="score, nines", yaxis_title="share at or above", yaxis_type="log", yaxis_dtick=1, height=360
    )


def _forecasts(run: Run) -> go.Figure:
    """Each channel with its band, and the score below."""
    channels, time = run.series.channels, run.series.time_ns.astype("datetime64[ns]").astype("datetime64[ms]")
    rows = len(channels) + 1
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, subplot_titles=[*channels, "score, nines"], vertical_spacing=0.25 / rows
    )
    for c in range(len(channels)):
        _channel(figure, c, time, run)
    figure.add_scatter(x=time, y=run.score, line_color=GREY, showlegend=False, row=rows, col=1)
    return figure.update_layout(height=150 * rows + 80)


def _channel(figure: go.Figure, c: int, time: np.ndarray, run: Run) -> None:
    at = {"x": time, "row": c + 1, "col": 1, "showlegend": c == 0}
    edge = {"line": {"width": 0}, "hoverinfo": "skip", "legendgroup": "band", "name": "band"}
    figure.add_scatter(y=run.upper[:, c], **edge, **{**at, "showlegend": False})
    figure.add_scatter(y=run.lower[:, c], fill="tonexty", fillcolor=BAND, **edge, **at)
    for values, name, colour in ((run.expected, "expected", BLUE), (run.series.values, "observed", ORANGE)):
        line = {"color": colour, "width": 1.2}
        figure.add_scatter(y=values[:, c], name=name, legendgroup=name, line=line, **at)
