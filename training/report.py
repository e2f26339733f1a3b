"""The run's HTML report: one file that needs nothing else, readable on light and dark screens.

Given what fit and calibrate measured; plots the learning curve, gradient norms, forecasts on a stretch of the
validation span, the scores against what their definition promises, and the figures behind them.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from training.calibrate import Calibration
from training.fit import Epoch, Fitted
from training.rollout import Run

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


_DRAWN_STREAMS, _DRAWN_SAMPLES = 4, 600


def write_report(path: Path, title: str, metrics: Mapping[str, Any], fitted: Fitted, calibration: Calibration) -> None:
    """Write the page.

    Args:
        path: File to write.
        title: Its headline.
        metrics: Figures by name, in sections.
        fitted: What fit logged.
        calibration: What calibrate measured, with the runs to draw.
    """
    realised = calibration.realised
    parts = [
        _section("Figures", *(_table(name, _flat(rows)) for name, rows in metrics.items())),
        _section("Learning curve", _plot(_learning_curve(fitted))),
        _section("Gradient norms before clipping", _plot(_gradient_norms(fitted.epochs))),
        _section("Scores: promised and realised", _nines_table(realised), _plot(_realised_nines(realised))),
        *(_section(f"Forecasts: {run.series.stream}", _plot(_forecasts(run))) for run in _drawn(calibration.runs)),
    ]
    page = _PAGE.format(title=html.escape(title), script=get_plotlyjs(), body="\n".join(parts))
    path.write_text(page, encoding="utf-8")


def _drawn(runs: Sequence[Run]) -> Sequence[Run]:
    """A few streams, evenly chosen."""
    return runs[:: -(-len(runs) // _DRAWN_STREAMS)]


def _flat(rows: Mapping[str, Any]) -> dict[str, object]:
    return {
        name: ", ".join(f"{k} {_text(v)}" for k, v in row.items()) if isinstance(row, dict) else row
        for name, row in rows.items()
    }


def _nines_table(realised: Mapping[float, float]) -> str:
    rows = "".join(
        f"<tr><td>{nines:g}</td><td>{10**-nines:.2g}</td><td>{share:.2g}</td></tr>" for nines, share in realised.items()
    )
    return f"<table><tr><th>score, nines</th><th>promised share</th><th>realised share</th></tr>{rows}</table>"


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


def _learning_curve(fitted: Fitted) -> go.Figure:
    epochs = fitted.epochs
    number = [epoch.epoch for epoch in epochs]
    figure = go.Figure()
    figure.add_scatter(x=number, y=[epoch.train_loss for epoch in epochs], name="training", line_color=_GREY)
    figure.add_scatter(x=number, y=[epoch.validation_loss for epoch in epochs], name="validation", line_color=_BLUE)
    figure.add_hline(y=fitted.persistence_loss, line_dash="dot", line_color=_ORANGE, annotation_text="persistence")
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


def _forecasts(run: Run) -> go.Figure:
    """Each channel with its band, and the score below; the stretch around the highest score."""
    peak = int(np.argmax(run.score))
    start = min(max(0, peak - _DRAWN_SAMPLES // 2), max(0, len(run.score) - _DRAWN_SAMPLES))
    when, channels = slice(start, start + _DRAWN_SAMPLES), run.series.channels
    time = run.series.time_ns[when].astype("datetime64[ns]").astype("datetime64[ms]")
    rows = len(channels) + 1
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, subplot_titles=[*channels, "score, nines"], vertical_spacing=0.25 / rows
    )
    for c in range(len(channels)):
        _channel(figure, c, time, run, when)
    figure.add_scatter(x=time, y=run.score[when], line_color=_GREY, showlegend=False, row=rows, col=1)
    return figure.update_layout(height=150 * rows + 80)


def _channel(figure: go.Figure, c: int, time: np.ndarray, run: Run, when: slice) -> None:
    at = {"x": time, "row": c + 1, "col": 1, "showlegend": c == 0}
    edge = {"line": {"width": 0}, "hoverinfo": "skip", "legendgroup": "band", "name": "band"}
    figure.add_scatter(y=run.upper[when, c], **edge, **{**at, "showlegend": False})
    figure.add_scatter(y=run.lower[when, c], fill="tonexty", fillcolor=_BAND, **edge, **at)
    for values, name, colour in ((run.expected, "expected", _BLUE), (run.series.values, "observed", _ORANGE)):
        line = {"color": colour, "width": 1.2}
        figure.add_scatter(y=values[when, c], name=name, legendgroup=name, line=line, **at)
