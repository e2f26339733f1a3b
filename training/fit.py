"""Truncated back-propagation through time, read top to bottom.

The running scale has no weights, so every stream goes through it once, beforehand. Then, epoch after epoch: many
streams side by side, T samples at a time; the hidden state goes on from chunk to chunk and its gradient is cut there.
The loss is the pinball loss of the quantiles of the next sample, per channel, in units of the running change scale;
what is missing or padding does not count. Its *geometric* mean over the streams is made smaller: ten percent less of
a small error are worth as much as ten percent less of a large one, or noise, where nothing can be learnt, would
drown what can be foretold to a hundredth of a change. After each epoch the later span of every stream is forecast;
training stops when that has not become better for a while, and the best weights are put back: perhaps those that it
started from.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from detector.errors import TidewardenError
from training.data.series import Series
from training.graph.detector import Detector
from training.graph.forecaster import Forecaster
from training.progress import Progress
from training.settings import FitSettings
from training.spans import Span, batches, side_by_side, standardise

_LEAST = 3e-3  # change scales; a loss below it is as good as none
_FAR = 100.0  # change scales; how far off a target may count: one jump after a constant stretch is a million


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is logged of one pass over the data."""

    epoch: int
    train_loss: float
    validation_loss: float
    gradient_norm_median: float
    gradient_norm_max: float
    clipped_ratio: float
    """Share of the steps whose gradient was longer than `clip_norm`."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """How training went; the detector itself holds the best weights."""

    epochs: list[Epoch]
    """The first, number 0, is how good the forecaster was before."""
    best: Epoch
    persistence_loss: float
    """Loss of the last value as a forecast, with the constant quantiles of its errors: the floor to beat."""


def fit(detector: Detector, series: Sequence[Series], zone: str, settings: FitSettings, progress: Progress) -> Fitted:
    """Train the detector's forecaster in place.

    Args:
        detector: Its forecaster ends with the best weights that were seen.
        series: Streams, each with its cut between training and validation span.
        zone: Time zone of the clock features.
        settings: Epochs, chunk, batch and so on.
        progress: Told of each epoch as it ends.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    forecaster, levels = detector.forecaster, torch.tensor(detector.shape.quantile_levels)
    train, validation = standardise(detector, series, zone, settings, progress.over("standardising"))
    floor = persistence_loss(levels, train, validation)
    optimiser = torch.optim.AdamW(
        forecaster.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs + 1, settings.learning_rate / 20)
    progress.says(f"persistence: validation loss {floor:.4f}")
    epochs: list[Epoch] = []
    best, weights = None, forecaster.state_dict()
    for number in progress.over("training")(range(settings.epochs + 1)):
        started = time.perf_counter()
        if number:
            train_loss, norms = _pass(forecaster, levels, optimiser, train, rng, settings)
            schedule.step()
        else:
            train_loss, norms = validate(forecaster, levels, train, settings), torch.zeros(1)
        loss = validate(forecaster, levels, validation, settings)
        epochs.append(_epoch(number, train_loss, loss, norms, settings.clip_norm, time.perf_counter() - started))
        progress.says(_line(epochs[-1]))
        if best is None or loss < best.validation_loss:
            best, weights = epochs[-1], copy.deepcopy(forecaster.state_dict())
        if number - best.epoch >= settings.patience:
            break
    forecaster.load_state_dict(weights)
    return Fitted(epochs, best or epochs[-1], floor)


def _pass(
    forecaster: Forecaster,
    levels: Tensor,
    optimiser: torch.optim.Optimizer,
    spans: Sequence[Span],
    rng: np.random.Generator,
    settings: FitSettings,
) -> tuple[float, Tensor]:
    """One epoch: its mean loss, and the gradient's norm before clipping at each step."""
    norms, lost, counted = [], 0.0, 0
    for batch in map(side_by_side, batches(spans, settings.batch, rng)):
        hidden = forecaster.initial_hidden(len(batch.target), batch.target.shape[2])
        usual = _Usual()
        for chunk in batch.chunks(settings.chunk):
            quantiles, hidden = forecaster.unroll(chunk.inputs, chunk.query, chunk.observed, hidden)
            if count := int(chunk.counted.sum()):
                losses = pinball(quantiles, chunk, levels).sum(dim=1)
                weights = 1 / usual.of(losses.detach(), chunk.counted.sum(dim=1))
                optimiser.zero_grad()
                ((weights * losses).sum() / count).backward()
                norms.append(clip_grad_norm_(forecaster.parameters(), settings.clip_norm))
                optimiser.step()
                lost, counted = lost + losses.sum().item(), counted + count
            hidden = hidden.detach()  # the memory goes on, the gradient ends here
    if not np.isfinite(lost):
        raise TidewardenError("fit", "the loss is no longer finite", hint="lower fit.learning_rate or fit.clip_norm")
    return lost / counted, torch.stack(norms)


class _Usual:
    """How large the loss of each stream and channel has been in this pass.

    A loss in units of that has the gradient of its logarithm: this is what makes the mean a geometric one.
    """

    def __init__(self) -> None:
        self.lost: Tensor | float = 0.0
        self.counted: Tensor | float = 0.0

    def of(self, lost: Tensor, counted: Tensor) -> Tensor:
        """Add the sums (N, C) of a chunk; the mean loss so far (N, C)."""
        self.lost, self.counted = self.lost + lost, self.counted + counted
        return self.lost / self.counted.clamp(min=1) + _LEAST


@torch.no_grad()
def validate(forecaster: Forecaster, levels: Tensor, spans: Sequence[Span], settings: FitSettings) -> float:
    """Mean loss on the later spans."""
    lost, counted = 0.0, 0
    for batch in map(side_by_side, batches(spans, settings.batch)):
        hidden = forecaster.initial_hidden(len(batch.target), batch.target.shape[2])
        quantiles, _ = forecaster.unroll(batch.inputs, batch.query, batch.observed, hidden)
        lost, counted = lost + pinball(quantiles, batch, levels).sum().item(), counted + int(batch.counted.sum())
    return lost / counted


def pinball(quantiles: Tensor, span: Span, levels: Tensor) -> Tensor:
    """Mean pinball loss over quantiles of each cell, 0 where it does not count. Koenker and Bassett 1978.

    Args:
        quantiles: (..., Q) forecast.
        span: Targets and what counts of them, (...).
        levels: (Q,) such as 0.01, 0.5, 0.99.
    """
    error = span.target.clamp(-_FAR, _FAR)[..., None] - quantiles
    loss = torch.maximum(levels * error, (levels - 1) * error).mean(dim=-1)
    return torch.where(span.counted, loss, 0.0)


@torch.no_grad()
def persistence_loss(levels: Tensor, train: Sequence[Span], validation: Sequence[Span]) -> float:
    """Loss on the later spans of the last value, widened by the quantiles of its errors on the training spans."""
    errors = torch.cat([span.target[span.counted] for span in train])
    errors = errors[:: max(1, len(errors) // 1_000_000)]  # torch sorts at most 16 million at once
    quantiles = torch.quantile(errors.double(), levels.double()).float()
    lost = sum(pinball(quantiles.expand(*span.target.shape, -1), span, levels).sum().item() for span in validation)
    return lost / sum(int(span.counted.sum()) for span in validation)


def _epoch(number: int, train_loss: float, loss: float, norms: Tensor, clip_norm: float, seconds: float) -> Epoch:
    clipped = (norms > clip_norm).float().mean()
    return Epoch(number, train_loss, loss, norms.median().item(), norms.max().item(), clipped.item(), seconds)


def _line(epoch: Epoch) -> str:
    return (
        f"epoch {epoch.epoch}: loss {epoch.train_loss:.4f}, validation {epoch.validation_loss:.4f}, "
        f"gradient norm {epoch.gradient_norm_median:.2f} (largest {epoch.gradient_norm_max:.2f}), {epoch.seconds:.1f} s"
    )
