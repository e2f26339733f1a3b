"""What attention explains: how much each forecast rested on each of the samples before it, read off the stream's row.

Given a trained detector whose network attends to its own past (shapes `attention` and `hybrid`), gives the weights for
the stretches that the report draws: as heat maps for people, as CSV for programs. Weights are shares of 1 among the
last samples of the channel, or of the stream where one network hears all channels; what was not there has none.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from detector.records import Float32, Int64
from training.data.batches import Block
from training.data.series import Series
from training.graph.detector import Detector
from training.rollout import Run, choose
from training.shapes.attention import heeded_by

_ALL = "all channels"  # of a network that hears them together
_HEAD = 90  # pixels above the maps, for the bar that says what the colours are
_BAR = {
    "orientation": "h", "thickness": 10, "nticks": 5, "title": {"text": "share, by samples back", "side": "top"},
    "yref": "container", "y": 1, "yanchor": "top",
}  # fmt: skip
_SCALE = ((0.0, "rgba(59,130,196,0)"), (1.0, "rgba(59,130,196,1)"))


@dataclass(frozen=True, slots=True)
class LookedBack:
    """The weights of one stream; n samples, C channels or one for all, k samples of memory."""

    stream: str
    channels: tuple[str, ...]
    time_ns: Int64
    """(n,) event times of the samples that were forecast."""
    weights: Float32
    """(n, C, k) newest first: the first is the sample before."""


def look_back(detector: Detector, runs: Sequence[Run], series: Sequence[Series], zone: str) -> list[LookedBack]:
    """Read the weights of every sample of some runs; nothing where the network does not attend.

    Args:
        detector: As it is to be explained, on the CPU.
        runs: Stretches of few streams.
        series: Among them these streams, from their first sample on.
        zone: Time zone of the clock features.
    """
    cell = detector.forecaster.cell
    if heeded_by(cell, torch.zeros(1, cell.state_width)) is None:
        return []
    when = {run.series.stream: run.series.time_ns for run in runs}
    blocks = choose([one for one in series if one.stream in when], zone)
    return [_during(one, when[one.stream]) for block in blocks for one in _of_block(detector, block)]


def _during(looked: LookedBack, time_ns: Int64) -> LookedBack:
    kept = np.isin(looked.time_ns, time_ns)
    return replace(looked, time_ns=looked.time_ns[kept], weights=looked.weights[kept])


def _of_block(detector: Detector, block: Block) -> Iterator[LookedBack]:
    weights = torch.stack(list(_unrolled(detector, block)), dim=1).numpy()  # (N, T, C, k)
    for row, one in enumerate(block.series):
        channels = one.channels if detector.shape.mode == "any" else (_ALL,)
        yield LookedBack(one.stream, channels, one.time_ns, weights[row, : len(one), : len(channels)])


@torch.no_grad()
def _unrolled(detector: Detector, block: Block) -> Iterator[Tensor]:
    """Weights (N, C, k) before each sample."""
    forecaster = detector.forecaster.eval()
    arrays = (block.values, block.observed, block.elapsed, block.clock)
    prepared = detector.prepare(*map(torch.from_numpy, arrays))
    hidden = forecaster.initial_hidden(len(block.series), block.values.shape[2])
    for t in range(block.values.shape[1]):
        now = slice(t, t + 1)
        heeded = heeded_by(forecaster.cell, hidden[..., : forecaster.cell.state_width])
        assert heeded is not None
        yield heeded
        _, hidden = forecaster.unroll(prepared.inputs[:, now], prepared.query[:, now], prepared.mask[:, now], hidden)


def write_csv(path: Path, looked: Sequence[LookedBack]) -> None:
    """Write a row for each sample and channel: `1` is the weight of the sample before, `2` of the one before that."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stream", "time_ns", "channel", *range(1, 1 + looked[0].weights.shape[-1])])
        for one in looked:
            for time_ns, sample in zip(one.time_ns.tolist(), one.weights, strict=True):
                for channel, weights in zip(one.channels, sample, strict=True):
                    writer.writerow([one.stream, time_ns, channel, *(f"{weight:.4g}" for weight in weights)])


def heat_maps(looked: LookedBack) -> go.Figure:
    """A map for each channel: time along, samples back downwards, the darker the more it was heeded."""
    rows = len(looked.channels)
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, subplot_titles=looked.channels, vertical_spacing=0.25 / rows
    )
    time = looked.time_ns.astype("datetime64[ns]").astype("datetime64[ms]")
    back = np.arange(1, 1 + looked.weights.shape[-1])
    for c in range(rows):
        heat = go.Heatmap(x=time, y=back, z=looked.weights[:, c].T, coloraxis="coloraxis", name="")
        figure.add_trace(heat, row=c + 1, col=1)
    figure.update_xaxes(showgrid=False, nticks=5).update_yaxes(autorange="reversed", showgrid=False, title_text="back")
    most = float(looked.weights.max())
    figure.update_layout(coloraxis={"colorscale": _SCALE, "cmin": 0.0, "cmax": most, "colorbar": _BAR})
    return figure.update_layout(height=110 * rows + 150, margin_t=_HEAD)
