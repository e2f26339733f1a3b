"""Truncated back-propagation through time, read top to bottom.

The running scale has no weights, so `standardise` sends every stream through it once and keeps what the forecaster
is to see. Then, epoch after epoch: many streams side by side, T samples at a time; the hidden state goes on from
chunk to chunk and its gradient is cut there. The loss is the pinball loss of the quantiles of the next sample, per
channel, in units of the running difference scale; what is missing or padding does not count. After each epoch the
later span of every stream is forecast; training stops when that has not become better for a while, and the best
weights are put back.

Axes: N streams of a batch, T samples, C channels, F inputs, G what is known when the next sample is asked for, Q quantiles.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence

from detector.errors import TidewardenError
from training.data.batches import blocks
from training.data.series import Series
from training.graph.detector import Detector
from training.settings import FitSettings

_SEGMENT_CHUNKS = 64  # a longer stream is cut into segments of so many chunks, trained side by side
_LEAD_CHUNKS = 8  # chunks that the hidden state is given to settle before the validation span counts


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
    best: Epoch
    persistence_loss: float
    """Loss of the last value as a forecast, with the constant quantiles of its errors: the floor to beat."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one stream, standardised, or several padded side by side (then N comes first)."""

    inputs: Tensor
    """(T, C, F)"""
    query: Tensor
    """(T, C, G)"""
    target: Tensor
    """(T, C) the next sample, in units of the running difference scale."""
    mask: Tensor
    """(T, C) True where a target was measured."""
    counted: Tensor
    """(T, C) True where it counts in the loss."""

    def __len__(self) -> int:
        return len(self.mask)

    def part(self, when: slice) -> Span:
        """Some of its samples."""
        return self._each(lambda tensor: tensor[when])

    def chunks(self, length: int) -> Iterator[Span]:
        """Streams side by side, `length` samples at a time."""
        for at in range(0, self.mask.shape[1], length):
            yield self._each(lambda tensor, at=at: tensor[:, at : at + length])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Span:
        return Span(*(change(getattr(self, field.name)) for field in fields(self)))


def fit(
    detector: Detector, series: Sequence[Series], zone: str, settings: FitSettings, tell: Callable[[Epoch], None]
) -> Fitted:
    """Train the detector's forecaster in place.

    Args:
        detector: Its weights end as the best that were seen.
        series: Streams, each with its cut between training and validation span.
        zone: Time zone of the clock features.
        settings: Epochs, chunk, batch and so on.
        tell: Told of each epoch as it ends.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    train, validation = standardise(detector, series, zone, settings)
    floor = persistence_loss(detector, train, validation)
    optimiser = torch.optim.AdamW(
        detector.forecaster.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    epochs: list[Epoch] = []
    best, weights = None, None
    for number in range(1, settings.epochs + 1):
        started = time.perf_counter()
        train_loss, norms = _train(detector, optimiser, train, rng, settings)
        loss = _validate(detector, validation, settings)
        epoch = Epoch(
            number, train_loss, loss, float(np.median(norms)), float(np.max(norms)),
            float(np.mean(norms > settings.clip_norm)), time.perf_counter() - started,
        )  # fmt: skip
        epochs.append(epoch)
        tell(epoch)
        if best is None or loss < best.validation_loss:
            best, weights = epoch, copy.deepcopy(detector.forecaster.state_dict())
        if number - best.epoch >= settings.patience:
            break
    detector.forecaster.load_state_dict(weights)
    return Fitted(epochs, best, floor)


def standardise(
    detector: Detector, series: Sequence[Series], zone: str, settings: FitSettings
) -> tuple[list[Span], list[Span]]:
    """Send every stream through the running scale: spans to train on, and spans to validate on with their lead."""
    train, validation = [], []
    longest, lead = _SEGMENT_CHUNKS * settings.chunk, _LEAD_CHUNKS * settings.chunk
    for block in blocks(series, zone, settings.batch):
        prepared = detector.prepare(*map(torch.from_numpy, (block.values, block.observed, block.elapsed, block.clock)))
        for row, one in enumerate(block.series):
            whole = Span(*(tensor[row] for tensor in prepared[:4]), prepared.mask[row])
            train += [whole.part(slice(at, min(at + longest, one.cut))) for at in range(0, one.cut, longest)]
            if one.cut < len(one):
                start = max(0, one.cut - lead)
                later = whole.part(slice(start, len(one)))
                later.counted &= (torch.arange(start, len(one)) >= one.cut)[:, None]
                validation.append(later)
    return train, validation


def batches(spans: Sequence[Span], most: int, rng: np.random.Generator | None) -> Iterator[Span]:
    """Spans of like shape padded side by side, `most` at a time; in random order where a generator is given."""
    groups: dict[tuple[int, int], list[Span]] = defaultdict(list)
    for at in range(len(spans)) if rng is None else rng.permutation(len(spans)):
        span = spans[at]
        groups[span.mask.shape[1], len(span).bit_length()].append(span)
    batched = [group[at : at + most] for group in groups.values() for at in range(0, len(group), most)]
    for at in range(len(batched)) if rng is None else rng.permutation(len(batched)):
        yield _pad(batched[at])


def _pad(spans: Sequence[Span]) -> Span:
    names = [field.name for field in fields(Span)]
    return Span(*(pad_sequence([getattr(span, name) for span in spans], batch_first=True) for name in names))


def _train(
    detector: Detector,
    optimiser: torch.optim.Optimizer,
    spans: Sequence[Span],
    rng: np.random.Generator,
    settings: FitSettings,
) -> tuple[float, np.ndarray]:
    """One epoch: its mean loss, and the gradient's norm before clipping at each step."""
    detector.train()
    norms, lost, counted = [], 0.0, 0.0
    for batch in batches(spans, settings.batch, rng):
        hidden = None
        for chunk in batch.chunks(settings.chunk):
            quantiles, hidden = detector.forecaster.unroll(chunk.inputs, chunk.query, chunk.mask, hidden)
            count = chunk.counted.sum().item()
            if count:
                loss = pinball(quantiles, chunk, detector.levels) / count
                optimiser.zero_grad()
                loss.backward()
                norms.append(clip_grad_norm_(detector.forecaster.parameters(), settings.clip_norm).item())
                optimiser.step()
                lost, counted = lost + loss.item() * count, counted + count
            hidden = _without_gradient(hidden)
    if not np.isfinite(lost):
        raise TidewardenError("fit", "the loss is no longer finite", hint="lower fit.learning_rate or fit.clip_norm")
    return lost / counted, np.array(norms)


@torch.no_grad()
def _validate(detector: Detector, spans: Sequence[Span], settings: FitSettings) -> float:
    detector.eval()
    lost, counted = 0.0, 0.0
    for batch in batches(spans, settings.batch, None):
        hidden = None
        for chunk in batch.chunks(settings.chunk):
            quantiles, hidden = detector.forecaster.unroll(chunk.inputs, chunk.query, chunk.mask, hidden)
            lost += pinball(quantiles, chunk, detector.levels).item()
            counted += chunk.counted.sum().item()
    return lost / counted


def pinball(quantiles: Tensor, span: Span, levels: Tensor) -> Tensor:
    """Sum over counted cells of the mean pinball loss over quantiles. Koenker and Bassett 1978.

    Args:
        quantiles: (..., Q) forecast.
        span: Targets and what counts of them, (...).
        levels: (Q,) such as 0.01, 0.5, 0.99.
    """
    error = span.target[..., None] - quantiles
    loss = torch.maximum(levels * error, (levels - 1) * error).mean(dim=-1)
    return torch.where(span.counted, loss, 0.0).sum()


@torch.no_grad()
def persistence_loss(detector: Detector, train: Sequence[Span], validation: Sequence[Span]) -> float:
    """Loss on the validation spans of the last value, widened by the quantiles of its errors on the training spans."""
    errors = torch.cat([span.target[span.counted] for span in train])
    stride = max(1, len(errors) // 1_000_000)  # torch sorts at most 16 million at once
    quantiles = torch.quantile(errors[::stride].double(), detector.levels.double()).float()
    lost = sum(pinball(quantiles.expand(*span.target.shape, -1), span, detector.levels).item() for span in validation)
    return lost / sum(span.counted.sum().item() for span in validation)


def _without_gradient(hidden: object) -> object:
    """The same hidden state, cut from what led to it."""
    if isinstance(hidden, Tensor):
        return hidden.detach()
    return type(hidden)(map(_without_gradient, hidden)) if isinstance(hidden, tuple | list) else hidden
