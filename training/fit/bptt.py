"""A pass over the data by back-propagation through time (Werbos 1990), and one without, for validation.

Streams lie side by side, and a step of the optimiser is made after every k1 samples (`fit.chunk`). Its gradient goes
back k2 samples (`fit.back`); before that the hidden state is a number that was carried there, and no more (Williams and
Peng 1990):

    k2 = k1          each sample is seen once; the gradient of a chunk's first sample goes back one sample
    k2 = m * k1      each is seen m times, and every gradient reaches k2 - k1 samples back at least
    `bptt: full`     a step for each segment, whose gradient reaches its beginning

Memory grows with k2. With `recompute`, only the states between pieces of so many samples are kept, and what lies within
a piece is computed again on the way back (Chen et al. 2016).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.fit.loss import Usual, pinball
from training.fit.processes import Team
from training.fit.records import DivergedError
from training.fit.regularise import penalty
from training.fit.state import Training
from training.graph.forecaster import Forecaster
from training.settings import FitSettings
from training.spans import AnySpan, Span, all_side_by_side, batches

_NAMED = 8  # streams that a message names


class Unroll(nn.Module):
    """The forecaster over a stretch: a module, because that is what DistributedDataParallel wraps.

    Args:
        forecaster: What is to be trained.
        settings: Of training.
    """

    def __init__(self, forecaster: Forecaster, settings: FitSettings) -> None:
        super().__init__()
        self.forecaster = forecaster
        self._piece, self._device = settings.recompute, settings.device
        self._half = settings.precision == "bfloat16"

    def forward(self, span: Span, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Quantiles (N, T, C, Q) and the hidden state after the last sample, from the state before the first."""
        with torch.autocast(self._device, torch.bfloat16, enabled=self._half):
            if not (self._piece and torch.is_grad_enabled()):
                return self._over(span, hidden)
            quantiles = []
            for piece in span.chunks(self._piece):
                found, hidden = checkpoint(self._over, piece, hidden, use_reentrant=False)
                quantiles.append(found)
            return torch.cat(quantiles, dim=1), hidden

    def _over(self, span: Span, hidden: Tensor) -> tuple[Tensor, Tensor]:
        quantiles, hidden = self.forecaster.unroll(span.inputs, span.query, span.observed, hidden)
        return quantiles.float(), hidden.float()


class Step(NamedTuple):
    """What is measured of a step of the optimiser."""

    lost: float
    """Sum over what counts; over all processes."""
    counted: int
    norm: Tensor
    """Of the gradient, before clipping."""
    clipped: bool


class Bptt:
    """Passes over spans, with what training has come to.

    Args:
        training: What the steps change.
        levels: Of the forecaster's quantiles (Q,).
        settings: Of training.
        team: The processes that train together.
    """

    def __init__(self, training: Training, levels: Tensor, settings: FitSettings, team: Team) -> None:
        self._training, self._settings, self._team = training, settings, team
        self._levels = levels.to(settings.device)
        self._unroll = Unroll(training.forecaster, settings)
        self._shared = team.share(self._unroll)

    def train(self, spans: Sequence[AnySpan]) -> Iterator[Step]:
        """One epoch: a step for every chunk of every batch.

        Raises:
            DivergedError: a loss or a gradient is no longer finite.
        """
        training, settings, steps = self._training, self._settings, 0
        training.forecaster.train()
        plan = batches(spans, settings.batch, training.rng, settings.padding)
        for number, (chosen, padded) in enumerate(zip(plan, all_side_by_side(plan), strict=True)):
            batch = padded.to(settings.device)
            rows, usual = self._team.rows(batch), Usual()
            for when, quantiles in self._walk(rows):
                if count := int(batch.samples(when).counted.sum()):
                    chunk = rows.samples(when)
                    losses = pinball(quantiles, chunk, self._levels).sum(dim=1)
                    weights = 1 / usual.of(losses.detach(), chunk.counted.sum(dim=1))
                    share = (number + when.start / batch.target.shape[1]) / len(plan)
                    norm, clipped = self._step((weights * losses).sum() / count, share)
                    steps, lost = steps + 1, self._team.total(losses.detach().sum()).item()
                    if not (math.isfinite(lost) and norm.isfinite()):
                        raise _diverged(f"epoch {training.number}, step {steps}", number + 1, chosen)
                    yield Step(lost, count, norm, clipped)

    def _walk(self, batch: Span) -> Iterator[tuple[slice, Tensor]]:
        """Chunk by chunk: where it lies, and its quantiles, from which a gradient may go back."""
        settings, length = self._settings, batch.target.shape[1]
        whole = settings.bptt == "full"
        chunk, back = (length, length) if whole else (settings.chunk, settings.back or settings.chunk)
        start = self._training.forecaster.initial_hidden(len(batch.target), batch.target.shape[2])
        remembered = deque([start], maxlen=back // chunk)  # the hidden states before each of the last k2 / k1 chunks
        for at in range(0, length, chunk):
            lead = min(at, back - chunk)
            quantiles, hidden = self._shared(batch.samples(slice(at - lead, at + chunk)), remembered[0])
            yield slice(at, at + chunk), quantiles[:, lead:]
            remembered.append(hidden.detach())  # the memory goes on, the gradient ends here

    def _step(self, loss: Tensor, share: float) -> tuple[Tensor, bool]:
        """Follow the gradient of a loss down; the gradient's norm, and whether it was cut short.

        Args:
            loss: Of this process's rows.
            share: Of the epoch that is over.
        """
        training, parameters = self._training, list(self._training.forecaster.parameters())
        training.pace(share)
        training.optimiser.zero_grad()
        (loss * self._team.size + penalty(parameters, self._settings)).backward()
        norm, clipped = training.clip(parameters)
        training.optimiser.step()
        return norm, clipped

    @torch.no_grad()
    def validate(self, spans: Sequence[AnySpan]) -> float:
        """Mean loss over spans, each in one go; every process looks at all, so that all come to the same end.

        Raises:
            DivergedError: it is not finite.
        """
        forecaster, lost, counted = self._training.forecaster.eval(), 0.0, 0
        plan = batches(spans, self._settings.batch, most_padding=self._settings.padding)
        for number, (chosen, padded) in enumerate(zip(plan, all_side_by_side(plan), strict=True)):
            batch = padded.to(self._settings.device)
            hidden = forecaster.initial_hidden(len(batch.target), batch.target.shape[2])
            quantiles, _ = self._unroll(batch, hidden)
            lost += pinball(quantiles, batch, self._levels).sum().item()
            counted += int(batch.counted.sum())
            if not math.isfinite(lost):
                raise _diverged(f"epoch {self._training.number}, validation", number + 1, chosen)
        return lost / counted


def _diverged(when: str, batch: int, spans: Sequence[AnySpan]) -> DivergedError:
    streams = dict.fromkeys(stream for span in spans for stream in span.streams)
    return DivergedError(
        "fit",
        f"{when}: the loss is no longer finite",
        got=f"batch {batch}: {len(streams)} streams, {', '.join(list(streams)[:_NAMED])}",
        hint="lower fit.learning_rate or clip harder; look at these streams' values",
    )
