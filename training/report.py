"""The run's HTML report: one file that needs nothing else, readable on light and dark screens.

Given what fit and calibrate measured; plots the learning curve, gradient norms, forecasts on a stretch of the
validation span, the scores against what their definition promises, and the figures behind them.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from detector.records import Float32, Float64, Int64
from training.fit import Epoch

_BLUE, _ORANGE, _GREY, _BAND = "#3b82c4", "#e07b39", "#888888", "rgba(59,130,196,0.22)"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>
  :root {{ --ink: #1d2733; --paper: #ffffff; --line: #d8dee6; }}
  @media (prefers-color-scheme: dark) {{ :root {{ --ink: #d7dde5; --paper: #14191f; --line: #333d49; }} }}
  body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
         color: var(--ink); background: var(--paper); }}
  h1 {{ font-size: 1.5rem }} h2 {{ font-size: 1.1rem; margin-top: 2.2rem }}
  table {{ border-collapse: collapse }} td, th {{ border-bottom: 1px solid var(--line); padding: .25rem 1rem .25rem 0;
         text-align: left; font-variant-numeric: tabular-nums }}
  .plot text {{ fill: var(--ink) !important }}
</style><script>{script}</script></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive samples of one stream as the finished detector saw them; T samples, C channels."""

    stream: str
    channels: tuple[str, ...]
    time_ns: Int64
    values: Float64
    expected: Float64
    lower: Float64
    upper: Float64
    score: Float32


def write_report(
    path: Path,
    title: str,
    tables: dict[str, dict[str, object]],
    epochs: Sequence[Epoch],
    persistence_loss: float,
    nines: dict[float, float],
    stretches: Iterable[Stretch],
) -> None:
    """Write the page.

    Args:
        path: File to write.
        title: Its headline.
        tables: Figures by name, under a headline each.
        epochs: What fit logged.
        persistence_loss: The loss that the last value as a forecast would have.
        nines: From a score to the realised share of samples at or above it.
        stretches: What to draw of the validation span.
    """
    parts = [
        _section("Figures", *(_table(name, rows) for name, rows in tables.items())),
        _section("Learning curve", _plot(_learning_curve(epochs, persistence_loss))),
        _section("Gradient norms before clipping", _plot(_gradient_norms(epochs))),
        _section("Scores: realised against promised", _plot(_realised_nines(nines))),
        *(_section(f"Forecasts: {one.stream}", _plot(_forecasts(one))) for one in stretches),
    ]
    page = _PAGE.format(title=html.escape(title), script=get_plotlyjs(), body="\n".join(parts))
    path.write_text(page, encoding="utf-8")


def _section(headline: str, *content: str) -> str:
    return f"<section><h2>{html.escape(headline)}</h2>{''.join(content)}</section>"


def _table(name: str, rows: dict[str, object]) -> str:
    cells = "".join(
        f"<tr><td>{html.escape(str(key))}</td><td>{html.escape(_text(row))}</td></tr>" for key, row in rows.items()
    )
    return f"<table><tr><th colspan=2>{html.escape(name)}</th></tr>{cells}</table><br>"


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plot(figure: go.Figure) -> str:
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 60, "r": 20, "t": 30, "b": 40},
        legend={"orientation": "h", "y": 1.08},
    )
    figure.update_xaxes(gridcolor="rgba(128,128,128,0.25)", zerolinecolor="rgba(128,128,128,0.4)")
    figure.update_yaxes(gridcolor="rgba(128,128,128,0.25)", zerolinecolor="rgba(128,128,128,0.4)")
    return f'<div class="plot">{figure.to_html(full_html=False, include_plotlyjs=False)}</div>'


def _learning_curve(epochs: Sequence[Epoch], persistence_loss: float) -> go.Figure:
    number = [epoch.epoch for epoch in epochs]
    figure = go.Figure()
    figure.add_scatter(x=number, y=[epoch.train_loss for epoch in epochs], name="training", line_color=_GREY)
    figure.add_scatter(x=number, y=[epoch.validation_loss for epoch in epochs], name="validation", line_color=_BLUE)
    figure.add_hline(y=persistence_loss, line_dash="dot", line_color=_ORANGE, annotation_text="persistence")
    return figure.update_layout(xaxis_title="epoch", yaxis_title="pinball loss, in difference scales", height=360)


def _gradient_norms(epochs: Sequence[Epoch]) -> go.Figure:
    number = [epoch.epoch for epoch in epochs]
    figure = go.Figure()
    figure.add_scatter(x=number, y=[epoch.gradient_norm_median for epoch in epochs], name="median", line_color=_BLUE)
    figure.add_scatter(x=number, y=[epoch.gradient_norm_max for epoch in epochs], name="largest", line_color=_ORANGE)
    return figure.update_layout(xaxis_title="epoch", yaxis_title="norm", yaxis_type="log", height=300)


def _realised_nines(nines: dict[float, float]) -> go.Figure:
    score = [nine for nine, share in nines.items() if share > 0]
    figure = go.Figure()
    figure.add_scatter(
        x=score, y=[10.0**-nine for nine in score], name="promised", line={"dash": "dot", "color": _GREY}
    )
    figure.add_scatter(x=score, y=[nines[nine] for nine in score], name="realised", line_color=_BLUE)
    return figure.update_layout(
        xaxis_title="score, nines", yaxis_title="share at or above", yaxis_type="log", height=360
    )


def _forecasts(one: Stretch) -> go.Figure:
    rows = len(one.channels) + 1
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, subplot_titles=[*one.channels, "score"], vertical_spacing=0.04
    )
    time = one.time_ns.astype("datetime64[ns]").astype("datetime64[ms]")
    for row in range(1, rows):
        c, first = row - 1, row == 1
        band = {"x": time, "row": row, "col": 1, "legendgroup": "band"}
        figure.add_scatter(y=one.upper[:, c], line={"width": 0}, showlegend=False, hoverinfo="skip", **band)
        figure.add_scatter(
            y=one.lower[:, c], line={"width": 0}, fill="tonexty", fillcolor=_BAND, name="band", showlegend=first, **band
        )
        for values, name, colour in ((one.expected, "expected", _BLUE), (one.values, "observed", _ORANGE)):
            figure.add_scatter(
                x=time, y=values[:, c], name=name, legendgroup=name, showlegend=first,
                line={"color": colour, "width": 1.2}, row=row, col=1,
            )  # fmt: skip
    figure.add_scatter(x=time, y=np.asarray(one.score), line_color=_GREY, showlegend=False, row=rows, col=1)
    return figure.update_layout(height=150 * rows + 80)
