"""Runs, filled gaps and labels on paper."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from detector.records import Float64
from training.bidirectional.estimate import Estimate
from training.bidirectional.files import Stream
from training.bidirectional.fit import Epoch
from training.bidirectional.gaps import Row
from training.bidirectional.known import Bools
from training.page import BAND, BLUE, GREY, ORANGE, facts, page, plot, scroll, section, text

_DRAWN_STREAMS, _DRAWN_CHANNELS, _DRAWN_SAMPLES = 8, 8, 600


def write_report(
    path: Path,
    title: str,
    metrics: Mapping[str, Any],
    epochs: Sequence[Epoch],
    gaps: Mapping[str, Sequence[Row]],
) -> None:
    """Write a run's page: figures, learning curve, and how well gaps were filled."""
    told = "Mean absolute error in spreads of the channel, over gaps of the later spans, which were not trained on."
    curve = go.Figure()
    numbers = [one.epoch for one in epochs]
    curve.add_scatter(x=numbers, y=[one.train_loss for one in epochs], name="training", line_color=GREY)
    curve.add_scatter(x=numbers, y=[one.validation_loss for one in epochs], name="validation", line_color=BLUE)
    curve.update_layout(xaxis_title="epoch", yaxis_title="loss", height=320)
    parts = [
        section("Figures", *(facts(name, metrics[name]) for name in ("data", "fit"))),
        section("How well gaps are filled", f"<p>{told}</p>", *(_table(gone, rows) for gone, rows in gaps.items())),
        section("Learning curve", plot(curve)),
    ]
    path.write_text(page(title, parts), encoding="utf-8")


def _table(gone: str, rows: Sequence[Row]) -> str:
    ways = list(rows[0].errors)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in [f"{gone} gone", "cells", *ways, "inside the band"])
    body = ""
    for row in rows:
        first, last = row.lengths
        figures = [row.cells, *(row.errors[way] for way in ways), row.inside]
        cells = "".join(f"<td>{text(cell)}</td>" for cell in figures)
        body += f"<tr><td>{first} to {last} samples</td>{cells}</tr>"
    return scroll(f"<table><tr>{head}</tr>{body}</table>", f"{gone} gone") + "<br>"


def write_filled(
    path: Path, title: str, streams: Sequence[tuple[Stream, Estimate, Bools]], names: Sequence[str]
) -> None:
    """Draw what was filled, the stretch of each stream where most was.

    Args:
        path: The page.
        title: Its headline.
        streams: Each with its estimate and which cells were filled (T, C).
        names: Of the channels.
    """
    shown = [one for one in streams if one[2].any()][:_DRAWN_STREAMS]
    parts = [section(one.name, plot(_figure(one, said, filled, names))) for one, said, filled in shown]
    path.write_text(page(title, parts or ["<p>There was nothing to fill.</p>"]), encoding="utf-8")


def write_labels(
    path: Path, title: str, streams: Sequence[tuple[Stream, Estimate, Float64]], names: Sequence[str], least: float
) -> None:
    """Draw each stream around its strangest sample, what is labelled marked, and its scores below.

    Args:
        path: The page.
        title: Its headline.
        streams: Each with its estimate and its scores (T,).
        names: Of the channels.
        least: Nines from which on a sample is labelled.
    """
    strange = sorted(streams, key=lambda one: -np.nanmax(one[2], initial=0.0))[:_DRAWN_STREAMS]
    parts = [section(one.name, plot(_labelled(one, said, score, names, least))) for one, said, score in strange]
    path.write_text(page(title, parts), encoding="utf-8")


def _figure(one: Stream, said: Estimate, filled: Bools, names: Sequence[str]) -> go.Figure:
    part = _around(_busiest(np.any(filled, axis=1)), len(one.rows))
    figure = _rows(names)
    for c, at in _places(names):
        _known(figure, one, said, part, c, at)
        put = np.where(filled[part, c], said.centre[part, c], np.nan)
        _line(figure, one, part, put, at, name="filled", mode="lines+markers", line_color=BLUE, marker_size=4)
    return figure


def _labelled(one: Stream, said: Estimate, score: Float64, names: Sequence[str], least: float) -> go.Figure:
    part = _around(int(np.nanargmax(np.nan_to_num(score))), len(one.rows))
    figure = _rows([*names[:_DRAWN_CHANNELS], "score, nines"])
    strange = (score >= least)[part]
    for c, at in _places(names):
        _known(figure, one, said, part, c, at)
        marked = np.where(strange, one.values[part, c], np.nan)
        _line(figure, one, part, marked, at, name="labelled", mode="markers", marker_color=ORANGE)
    bottom = {"row": min(len(names), _DRAWN_CHANNELS) + 1, "col": 1, "showlegend": False}
    _line(figure, one, part, score[part], bottom, name="score", line_color=ORANGE)
    figure.add_hline(least, row=bottom["row"], col=1, line_dash="dot", line_color=GREY)
    return figure


def _known(figure: go.Figure, one: Stream, said: Estimate, part: slice, c: int, at: dict[str, Any]) -> None:
    quiet = at | {"showlegend": False}
    _line(figure, one, part, said.upper[part, c], quiet, line_width=0, hoverinfo="skip")
    _line(figure, one, part, said.lower[part, c], at, name="band", line_width=0, fill="tonexty", fillcolor=BAND,
          hoverinfo="skip")  # fmt: skip
    _line(figure, one, part, one.values[part, c], at, name="measured", line_color=GREY)


def _line(figure: go.Figure, one: Stream, part: slice, y: Float64, at: dict[str, Any], **look: Any) -> None:
    x = one.time_ns[part].astype("datetime64[ns]").astype("datetime64[ms]")
    figure.add_scatter(x=x, y=y, **look, **at)


def _rows(names: Sequence[str]) -> go.Figure:
    names = names[: _DRAWN_CHANNELS + 1]
    figure = make_subplots(rows=len(names), cols=1, shared_xaxes=True, subplot_titles=list(names),
                           vertical_spacing=0.25 / (len(names) + 1))  # fmt: skip
    return figure.update_layout(height=200 * len(names) + 80)


def _places(names: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for c in range(min(len(names), _DRAWN_CHANNELS)):
        yield c, {"row": c + 1, "col": 1, "showlegend": c == 0}


def _busiest(marked: Bools) -> int:
    """Where most is marked within what is drawn at once."""
    return int(np.argmax(np.convolve(marked, np.ones(min(_DRAWN_SAMPLES, len(marked))), mode="same")))


def _around(at: int, samples: int) -> slice:
    start = min(max(0, at - _DRAWN_SAMPLES // 2), max(0, samples - _DRAWN_SAMPLES))
    return slice(start, start + _DRAWN_SAMPLES)
