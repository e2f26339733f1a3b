"""The usual recurrent detector, to be measured against: a windowed LSTM in Telemanom's manner (Hundman et al. 2018).

One network per series, trained on its training part to forecast the next rows from the latest 250; the error of the
one-step forecast, smoothed, is the score. What makes it *windowed*: for every sample the hidden state is rebuilt from
nothing by running through the whole window again, so that a sample costs 250 steps of the network, not one.

Architecture, sizes and training follow the paper and telemanom's `config.yaml`. Where no target channel is declared,
all channels are forecast and their errors averaged, as is usual elsewhere (LSTMAD). Values are scaled to [-1, 1] over
the *training part*, where telemanom's data came scaled over train and test: a stream does not know its future range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import process_time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.evaluate.dynamic_threshold import alarms, smooth

if TYPE_CHECKING:
    from training.evaluate.suites import Case

_SCORE_BATCH = 256  # windows side by side in scoring: the best that this detector can do on a processor
_WINDOW_MIN = 4  # rows; below it there is nothing to learn from
_SCALED_MOST = 1e4  # training ranges; what a spike of 1e30 is cut to, so that errors stay finite in float32


@dataclass(frozen=True, slots=True)
class WindowedSettings:
    """Telemanom's own settings; the second block is ours, for time."""

    window: int = 250
    """Rows that the state is rebuilt from."""
    horizon: int = 10
    """Rows forecast at once; the first of them gives the error."""
    units: int = 80
    layers: int = 2
    dropout: float = 0.3
    batch: int = 64
    """Windows per gradient step."""
    validation_share: float = 0.2
    patience: int = 10
    """Epochs without gain after which training stops."""
    min_gain: float = 3e-4
    """Fall of the validation loss that counts as a gain."""
    epochs: int = 35

    train_windows: int | None = None
    """Windows per epoch, drawn anew each time; None: all of them, as telemanom."""
    train_share: float = 0.15
    """Share of the series that is the training part where the suite declares none."""


FULL = WindowedSettings()
REDUCED = WindowedSettings(epochs=10, train_windows=1_024)
"""For runs over many series: full training takes about 3 ms per window and epoch on one core, hours for a suite.
Network, window and scoring are those of the paper; only the training is shorter, which costs accuracy, not time per
event."""


@dataclass(frozen=True, slots=True)
class WindowedResult:
    """What it made of one series, and what that took."""

    scores: NDArray[np.float32]
    """(T,) smoothed errors; 0 for the rows of the first window."""
    anomaly: NDArray[np.uint8]
    """(T,) 1 where its own dynamic threshold reports an anomaly."""
    seconds_fit: float
    seconds_score: float
    events: int
    """Rows that were forecast and scored in `seconds_score`."""

    @property
    def microseconds_per_event(self) -> float:
        """Windows side by side, the way that is cheapest for it."""
        return 1e6 * self.seconds_score / max(self.events, 1)


class WindowedLstm(nn.Module):
    """Stacked LSTM with a linear head on its last state.

    Args:
        channels: C, channels read.
        outputs: Figures forecast: rows ahead times channels forecast.
        settings: Sizes.
    """

    def __init__(self, channels: int, outputs: int, settings: WindowedSettings) -> None:
        super().__init__()
        shape = {"num_layers": settings.layers, "dropout": settings.dropout if settings.layers > 1 else 0.0}
        self.lstm = nn.LSTM(channels, settings.units, batch_first=True, **shape)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.units, outputs)

    def forward(self, windows: Tensor) -> Tensor:
        """Forecast what follows windows (B, W, C): (B, outputs)."""
        steps, _ = self.lstm(windows)
        forecast: Tensor = self.head(self.dropout(steps[:, -1]))
        return forecast


def scores(case: Case, settings: WindowedSettings = FULL, seed: int = 0) -> WindowedResult:
    """Train on the training part of a case, then score all of it.

    The same seed gives the same scores on the same machine. Where the training part is shorter than two windows,
    half of it is the window; where it has fewer than 8 rows, all scores are 0.
    """
    train = case.train or int(settings.train_share * len(case))
    window = min(settings.window, train // 2)
    if window < _WINDOW_MIN:
        return WindowedResult(np.zeros(len(case), np.float32), np.zeros(len(case), np.uint8), 0.0, 0.0, 0)
    scaled = _scaled(case.values, train)
    targets = list(range(scaled.shape[1])) if case.target is None else [case.target]
    with _seeded(seed):
        began = process_time()
        horizon = min(settings.horizon, train - window - 1)
        lesson = _Lesson(torch.from_numpy(scaled[:train]), targets, window, horizon)
        network = _fit(lesson, settings, np.random.default_rng(seed))
        fitted = process_time()
        forecast = _forecasts(network, scaled, window, len(targets))
        errors = np.abs(forecast - scaled[window:, targets])  # (T - W, targets)
        smoothed = np.mean([smooth(column.astype(np.float64)) for column in errors.T], axis=0)
        ended = process_time()
    lead, value = np.zeros(window), scaled[:, targets].mean(axis=1, dtype=np.float64)
    score = np.concatenate([lead, smoothed])
    flags = alarms(score, value, start=max(window, train))
    return WindowedResult(score.astype(np.float32), flags, fitted - began, ended - fitted, len(smoothed))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's generator set for the block, and put back after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _scaled(values: NDArray[np.float64], train: int) -> NDArray[np.float32]:
    """Values (T, C) with gaps filled by the last one, in [-1, 1] over the training part."""
    filled = np.where(np.isfinite(values), values, np.nan)
    latest = np.maximum.accumulate(np.where(np.isnan(filled), 0, np.arange(len(filled))[:, None]), axis=0)
    filled = np.nan_to_num(np.take_along_axis(filled, latest, axis=0))
    low, high = filled[:train].min(axis=0), filled[:train].max(axis=0)
    half = np.where(high > low, (high - low) / 2, 1.0)
    scaled: NDArray[np.float32] = np.clip((filled - (low + high) / 2) / half, -_SCALED_MOST, _SCALED_MOST)
    return scaled.astype(np.float32)


class _Lesson(NamedTuple):
    """What there is to learn: stretches of one series, by their first rows."""

    series: Tensor
    """(T, C)"""
    targets: list[int]
    window: int
    horizon: int

    def starts(self) -> int:
        """How many stretches there are."""
        return len(self.series) - self.window - self.horizon + 1

    def loss(self, network: WindowedLstm, at: NDArray[np.int64]) -> Tensor:
        """Mean squared error of the forecasts after the windows that begin at these rows."""
        stretch = self.series[torch.from_numpy(at)[:, None] + torch.arange(self.window + self.horizon)]
        truth = stretch[:, self.window :, self.targets]  # (B, horizon, targets)
        return nn.functional.mse_loss(network(stretch[:, : self.window]).reshape(truth.shape), truth)


def _fit(lesson: _Lesson, settings: WindowedSettings, rng: np.random.Generator) -> WindowedLstm:
    """Adam on shuffled windows; stops early by the loss on a share of them that is kept apart."""
    network = WindowedLstm(lesson.series.shape[1], lesson.horizon * len(lesson.targets), settings)
    optimiser, best, idle = torch.optim.Adam(network.parameters()), math.inf, 0
    starts = rng.permutation(lesson.starts())
    validation, fitted = np.split(starts, [math.ceil(settings.validation_share * len(starts))])
    for _ in range(settings.epochs):
        network.train()
        for batch in _batches(rng.permutation(fitted)[: settings.train_windows], settings.batch):
            optimiser.zero_grad()
            lesson.loss(network, batch).backward()
            optimiser.step()
        network.eval()
        with torch.inference_mode():
            parts = _batches(validation[: settings.train_windows], _SCORE_BATCH)
            current = float(np.mean([lesson.loss(network, part) for part in parts]))
        best, idle = (current, 0) if current < best - settings.min_gain else (best, idle + 1)
        if idle == settings.patience:
            break
    return network


def _batches(items: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    return [items[at : at + most] for at in range(0, len(items), most)]


def _forecasts(network: WindowedLstm, scaled: NDArray[np.float32], window: int, targets: int) -> NDArray[np.float32]:
    """One step ahead for every row after the first window (T - W, targets): one run through the window for each."""
    windows = torch.from_numpy(scaled).unfold(0, window, 1)[:-1].transpose(1, 2)  # (T - W, W, C), a view
    with torch.inference_mode():
        parts = [
            network(windows[at : at + _SCORE_BATCH].contiguous())[:, :targets]
            for at in range(0, len(windows), _SCORE_BATCH)
        ]
    return torch.cat(parts).numpy()
