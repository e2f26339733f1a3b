"""A forecast on paper: a table of quantiles, and a page with the fan after the latest of what is known."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from detector.records import Float64, Int64
from training.forecast.trajectories import Trajectories
from training.page import BAND, BLUE, GREY, page, plot, section

LEVELS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
"""Quantiles in the table; the fan's bands lie between the first and the last, the second and the last but one, ..."""

_BEFORE = 4  # horizons of history that are drawn
_DRAWN_STREAMS, _DRAWN_CHANNELS, _DRAWN_PATHS = 12, 12, 3


def write_table(path: Path, found: Iterable[Trajectories]) -> int:
    """Write stream, time, channel and a column for each quantile, a row per channel; return how many rows."""
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["stream", "time", "channel", *(f"q{level:g}" for level in LEVELS)])
        for one in found:
            fan = one.quantiles(LEVELS)
            for at, when in enumerate(_iso(one.time_ns)):
                for c, channel in enumerate(one.history.channels):
                    table.writerow([one.history.stream, when, channel, *map(repr, fan[:, at, c].tolist())])
                    rows += 1
    return rows


def write_page(path: Path, title: str, found: Sequence[Trajectories]) -> None:
    """Draw the fans of the first streams, a few trajectories among them."""
    parts = [section(one.history.stream, plot(_fan(one))) for one in found[:_DRAWN_STREAMS]]
    left_out = len(found) - len(parts)
    parts += [f"<p>{left_out} further streams stand in the table.</p>"] if left_out else []
    path.write_text(page(title, parts), encoding="utf-8")


def _fan(one: Trajectories) -> go.Figure:
    names = one.history.channels[:_DRAWN_CHANNELS]
    figure = make_subplots(rows=len(names), cols=1, shared_xaxes=True, subplot_titles=names,
                           vertical_spacing=0.25 / (len(names) + 1))  # fmt: skip
    known = slice(-_BEFORE * len(one.time_ns), None)
    before, after = _shown(one.history.time_ns[known]), _shown(one.time_ns)
    fan = one.quantiles(LEVELS)
    for c in range(len(names)):
        at = {"row": c + 1, "col": 1, "showlegend": c == 0}
        figure.add_scatter(x=before, y=one.history.values[known, c], name="known", line_color=GREY, **at)
        for lower, upper in zip(fan[: len(LEVELS) // 2], fan[: len(LEVELS) // 2 : -1], strict=True):
            _band(figure, after, lower[:, c], upper[:, c], at | {"showlegend": False})
        for path in one.values[:_DRAWN_PATHS, :, c]:
            figure.add_scatter(x=after, y=path, line={"color": GREY, "width": 0.7}, opacity=0.6,
                               **(at | {"showlegend": False}))  # fmt: skip
        figure.add_scatter(x=after, y=fan[len(LEVELS) // 2][:, c], name="median", line_color=BLUE, **at)
    return figure.update_layout(height=220 * len(names) + 80)


def _band(figure: go.Figure, x: object, lower: Float64, upper: Float64, at: dict[str, object]) -> None:
    figure.add_scatter(x=x, y=upper, line_width=0, hoverinfo="skip", **at)
    figure.add_scatter(x=x, y=lower, line_width=0, fill="tonexty", fillcolor=BAND, hoverinfo="skip", **at)


def _iso(time_ns: Int64) -> list[str]:
    return [f"{text}Z" for text in np.datetime_as_string(time_ns.astype("datetime64[ns]"), unit="ms")]


def _shown(time_ns: Int64) -> np.ndarray:
    return time_ns.astype("datetime64[ns]").astype("datetime64[ms]")
