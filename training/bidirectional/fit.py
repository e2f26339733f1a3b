"""Training: measured cells are hidden, and the network is judged by what it says of them, and of those it was shown.

Windows are drawn at random from before the cut, gaps anew for each. The loss is the pinball loss of the quantiles in
spreads (Koenker and Bassett 1978), of which the geometric mean over windows and channels is made smaller, as in the
forecaster's training (training/fit/loss.py). It stops when the loss over the later spans, with gaps that are always the
same, has not become better for a while; the best weights are put back.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detector.errors import ConfigurationError
from training.bidirectional.estimate import Stretch, known_of
from training.bidirectional.hide import hide
from training.bidirectional.known import Bools
from training.bidirectional.model import BothSided
from training.fit.clipping import Clip
from training.fit.optimisers import optimiser
from training.fit.schedules import Moment, rate
from training.progress import Progress
from training.settings import FitSettings

WINDOW = 256
"""Samples that are read from both ends at once: four of the longest usual gaps, hence always something around one."""

_MOST_WINDOWS = 512  # of the later spans, evenly chosen
_LEAST = 3e-3  # spreads; a loss below it is as good as none
_FAR = 100.0  # spreads; how far off a target may count
_UNUSED = ("bptt", "chunk", "back", "recompute", "padding", "curriculum", "l1", "l2", "device", "precision")


@dataclass(frozen=True, slots=True)
class Epoch:
    """A pass over the data; number 0 only measures."""

    epoch: int
    train_loss: float
    validation_loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _Batch:
    """N windows, W samples each."""

    stretches: list[Stretch]
    starts: list[int]
    hidden: Bools
    """(N, W, C)."""


def check(settings: FitSettings) -> None:
    """Raise ConfigurationError for a key that means nothing here."""
    for key in _UNUSED:
        default = FitSettings.model_fields[key].default
        if getattr(settings, key) != default:
            expected = f"{default} (model.direction: both does not use it)"
            raise ConfigurationError("fit", key, expected=expected, got=getattr(settings, key))


def fit(
    model: BothSided,
    train: Sequence[Stretch],
    later: Sequence[Stretch],
    settings: FitSettings,
    progress: Progress,
) -> list[Epoch]:
    """Train in place; the model ends with the best weights that were seen.

    Args:
        model: What is trained.
        train: Spans before the cut.
        later: Spans after it.
        settings: Epochs, batch, optimiser and so on.
        progress: Told of each epoch as it ends.

    Raises:
        ConfigurationError: a loss is not finite.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    clip, parameters = Clip(settings), list(model.parameters())
    steps = optimiser(parameters, settings)
    judged = list(_evenly(np.random.default_rng(0), later, settings.batch))
    epochs: list[Epoch] = []
    best = copy.deepcopy(model.state_dict())
    for number in progress.over("training")(range(settings.epochs + 1)):
        started, lost = time.perf_counter(), []
        batches = list(_drawn(rng, train, settings.batch)) if number else []
        for at, batch in enumerate(batches):
            moment = Moment(number - 1 + at / len(batches), [one.validation_loss for one in epochs])
            for group in steps.param_groups:
                group["lr"] = rate(moment, settings)
            steps.zero_grad()
            loss = _loss(model, batch)
            loss.backward()
            clip(parameters)
            steps.step()
            lost.append(loss.item())
        epochs.append(_measured(model, judged, number, lost, steps.param_groups[0]["lr"], started))
        progress.says(_line(epochs[-1]))
        if epochs[-1].validation_loss <= min(one.validation_loss for one in epochs):
            best = copy.deepcopy(model.state_dict())
        if number - min(epochs, key=lambda one: one.validation_loss).epoch >= settings.patience:
            break
    model.load_state_dict(best)
    return epochs


@torch.no_grad()
def _measured(
    model: BothSided, judged: Sequence[_Batch], number: int, lost: Sequence[float], at_rate: float, started: float
) -> Epoch:
    later = float(np.exp(np.mean([_loss(model, batch).item() for batch in judged])))
    if not np.isfinite([later, *lost]).all():
        hint = "lower fit.learning_rate"
        raise ConfigurationError("fit", "loss", expected="a finite one", got=f"{later} in epoch {number}", hint=hint)
    trained = float(np.exp(np.mean(lost))) if lost else later
    return Epoch(number, trained, later, at_rate, time.perf_counter() - started)


def _line(one: Epoch) -> str:
    return f"epoch {one.epoch}: loss {one.train_loss:.4f}, validation {one.validation_loss:.4f}, {one.seconds:.1f} s"


def _loss(model: BothSided, batch: _Batch) -> Tensor:
    """Log of the geometric mean over windows and channels; hidden cells of a window weigh as much as shown ones."""
    measured = np.zeros(batch.hidden.shape, bool)
    values = np.zeros(batch.hidden.shape)
    for row, (one, start) in enumerate(zip(batch.stretches, batch.starts, strict=True)):
        part = one.values[start : start + WINDOW]
        values[row, : len(part)], measured[row, : len(part)] = part, ~np.isnan(part)
    known = known_of(batch.stretches, measured & ~batch.hidden, batch.starts, WINDOW)
    off = np.where(measured, (values - known.line) / known.spread, 0.0).clip(-_FAR, _FAR)
    quantiles = model(known)
    error = torch.from_numpy(off.astype(np.float32))[..., None] - quantiles
    levels = quantiles.new_tensor(model.shape.levels)
    loss = torch.maximum(levels * error, (levels - 1) * error).mean(dim=-1)
    means = []
    for cells in (measured & batch.hidden, measured & ~batch.hidden):
        counted = torch.from_numpy(cells)
        mean = (loss * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        means.append((mean[counted.any(dim=1)] + _LEAST).log())
    return torch.stack([mean.mean() for mean in means if len(mean)]).mean()


def _drawn(rng: np.random.Generator, stretches: Sequence[Stretch], size: int) -> Iterator[_Batch]:
    """As many windows as the data have room for, drawn at random."""
    lengths = np.array(list(map(len, stretches)))
    count = max(1, int(lengths.sum()) // WINDOW)
    chosen = rng.choice(len(stretches), count, p=lengths / lengths.sum())
    starts = [int(rng.integers(max(1, lengths[at] - WINDOW + 1))) for at in chosen]
    yield from _batched(rng, [(stretches[at], start) for at, start in zip(chosen, starts, strict=True)], size)


def _evenly(rng: np.random.Generator, stretches: Sequence[Stretch], size: int) -> Iterator[_Batch]:
    """Windows one after the other."""
    windows = [(one, start) for one in stretches for start in range(0, max(1, len(one) - WINDOW // 2), WINDOW)]
    yield from _batched(rng, windows[:: -(-len(windows) // _MOST_WINDOWS)], size)


def _batched(rng: np.random.Generator, windows: Sequence[tuple[Stretch, int]], size: int) -> Iterator[_Batch]:
    for first in range(0, len(windows), size):
        some = windows[first : first + size]
        hidden = hide(rng, (len(some), WINDOW, some[0][0].values.shape[1]))
        yield _Batch([one for one, _ in some], [start for _, start in some], hidden)
