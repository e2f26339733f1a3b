"""The trained part: what the next sample will be, as quantiles, from what the recurrent cell remembers.

The forecast for a sample is made when the sample arrives, from the hidden state before it and a small *query*: how
long the gap was and what time it is. So an irregular stream is asked the right question, and no pending forecast
waits in the row. A forecast is a change since the last value in units of the channel's own change scale, built as

    centre = bias + pull * (way back to the mean) + push * (last change),    all three by the head
    quantiles = centre + (-w1 - w0, -w1, 0, w2, w2 + w3),                   w = exp(head) > 0, so they never cross

An untrained head is persistence with the spread of a Gaussian walk. `SharedForecaster` has one set of weights for
every channel and remembers in the channel's block: bundles for any channels. `JointForecaster` is one net over all
channels and remembers in the joint block: bundles for fixed channels. `step` is exported; `unroll` is the same over
T samples, for training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.cells import Network
from training.cells.wrapped import Fade
from training.shapes import Architecture, build

INPUTS = 5  # z, g, ratio, youth, mask: what the cell hears of each channel
TIMING = 5  # gap and four clock features: what cell and head hear of the moment
LEVERS = 2  # back, momentum: what the head may pull and push
QUERY = TIMING + LEVERS
QUANTILES = 5

_LEVELS, _CHANGES = 32, 8  # samples that the line holds
_LINE = _LEVELS + _CHANGES
_HEAD = 1 + LEVERS + 4  # bias, pull, push, four widths
_WIDTHS = (1.6, 1.3)  # change scales from median to the 90 % and on to the 99 % quantile of a Gaussian walk
_LOG_WIDTH = 6.0  # widths lie within exp(+-6) change scales
# Offsets of the five quantiles from the centre as sums of the four widths: inner down, outer down, inner up, outer up.
_REACH = ((-1.0, -1.0, 0.0, 0.0, 0.0), (-1.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0, 1.0))


class Forecast(NamedTuple):
    """In change scales, relative to the last value."""

    centre: Tensor
    """The median (..., C, 1)."""
    widths: Tensor
    """Steps from quantile to quantile (..., C, 4): inner down, outer down, inner up, outer up; all positive."""

    @property
    def width(self) -> Tensor:
        """Half of what lies between the inner quantiles (..., C, 1)."""
        return 0.5 * (self.widths[..., :1] + self.widths[..., 2:3])

    @property
    def quantiles(self) -> Tensor:
        """The quantiles (..., C, Q), rising."""
        return self.centre + self.widths @ self.widths.new_tensor(_REACH)


class Forecaster(nn.Module, ABC):
    """What both forecasters share."""

    hidden_width: int
    """Floats of hidden state: per channel, or in the joint block."""

    @abstractmethod
    def initial_hidden(self, rows: int, channels: int) -> Tensor:
        """Hidden state of new streams."""

    @abstractmethod
    def step(
        self, inputs: Tensor, timing: Tensor, levers: tuple[Tensor, Tensor], hidden: Tensor
    ) -> tuple[Forecast, Tensor]:
        """Forecast one sample and then take it in.

        Args:
            inputs: (B, C, INPUTS) what the sample was.
            timing: (B, C, TIMING) what was known of it before.
            levers: (B, C, 1) each: back and momentum, known before it.
            hidden: Hidden state before it, (B, C, hidden_width) or (B, 1, hidden_width).

        Returns:
            The forecast of this sample, and the hidden state after it.
        """

    @abstractmethod
    def unroll(self, inputs: Tensor, query: Tensor, mask: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Do `step` for T samples at once.

        Args:
            inputs: (N, T, C, INPUTS).
            query: (N, T, C, QUERY).
            mask: (N, T, C) bool, observed; the memory of what is not observed stays as it is.
            hidden: (N, C, hidden_width) or (N, 1, hidden_width), carried from chunk to chunk.

        Returns:
            Quantiles (N, T, C, Q), and the hidden state after the last sample.
        """


class SharedForecaster(Forecaster):
    """One set of weights for every channel, each channel with its own memory.

    That is the cell's state, and a *line* of the last levels and changes as they were. A delay of twenty samples is
    read off the line; a recurrent cell would have to learn to keep it. Baselines have none, nor has who asks for none.
    """

    def __init__(self, asked: Architecture) -> None:
        super().__init__()
        line = [_LINE] if asked.has_line else []
        self.cell = build(asked, INPUTS + TIMING + sum(line), gaps=slice(INPUTS, INPUTS + 1))
        self.head = nn.Linear(self.cell.width + sum(line) + TIMING, _HEAD)
        self._parts = [self.cell.state_width, *line]
        self.hidden_width = sum(self._parts)
        _start_as_persistence(self.head)

    def initial_hidden(self, rows: int, channels: int) -> Tensor:
        """Hidden state of new streams."""
        return self.head.weight.new_zeros(rows, channels, self.hidden_width)

    def step(
        self, inputs: Tensor, timing: Tensor, levers: tuple[Tensor, Tensor], hidden: Tensor
    ) -> tuple[Forecast, Tensor]:
        """One sample; see `Forecaster.step`."""
        # Rows and channels are alike to shared weights; flat, they make the matrix products that ORT is fastest at.
        inputs, timing, hidden = inputs.flatten(0, 1), timing.flatten(0, 1), hidden.flatten(0, 1)
        state, *line = hidden.split(self._parts, dim=-1)  # the line, where there is one
        asked = torch.cat([self.cell.output(state), *line, timing], dim=-1)
        forecast = _forecast(self.head(asked), *(lever.flatten(0, 1) for lever in levers))
        line = [_moved_on(one, inputs) for one in line]
        state = self.cell.step(torch.cat([inputs, timing, *line], dim=-1), state)
        hidden = torch.cat([state, *line], dim=-1)
        B, C = levers[0].shape[:2]
        return Forecast(*(part.unflatten(0, (B, C)) for part in forecast)), hidden.unflatten(0, (B, C))

    def unroll(self, inputs: Tensor, query: Tensor, mask: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """T samples; see `Forecaster.unroll`."""
        N, _, C, _ = inputs.shape
        inputs, query, mask = (one.transpose(1, 2).flatten(0, 1) for one in (inputs, query, mask))  # (M, T, ...)
        timing, levers = query.split([TIMING, LEVERS], dim=-1)
        state, *line = hidden.flatten(0, 1).split(self._parts, dim=-1)
        walk = _Walk(mask)
        heard = walk.observed(torch.cat([inputs, timing], dim=-1))
        lines = [_lines(heard[..., :2], one) for one in line]
        outputs, last = walk.cell(self.cell, torch.cat([heard, *(one[:, 1:] for one in lines)], dim=-1), state)
        memory = torch.cat([outputs, *lines], dim=-1)  # after 0, 1, ... observed samples
        asked = torch.cat([walk.before(memory), timing], dim=-1)
        forecast = _forecast(self.head(asked), *levers.split(1, dim=-1))
        hidden = torch.cat([last, *map(walk.after, lines)], dim=-1)
        return forecast.quantiles.unflatten(0, (N, C)).transpose(1, 2), hidden.unflatten(0, (N, C))


class JointForecaster(Forecaster):
    """One net over all channels, which sees how they move together.

    It hears of a missing channel where that last stood, and with `decay` where its mean is, the longer ago the more.
    """

    def __init__(self, asked: Architecture, channels: int) -> None:
        super().__init__()
        self.channels = channels
        gaps = slice(channels * INPUTS, channels * (INPUTS + 1))
        self.cell = build(asked, gaps.stop + TIMING - 1, gaps)
        self.head = nn.Linear(self.cell.width, channels * _HEAD)
        self.timing_head = nn.Linear(TIMING, _HEAD)
        self.fade = Fade(channels) if asked.decay else None
        self.hidden_width = self.cell.state_width
        _start_as_persistence(self.head)
        _start_as_persistence(self.timing_head, widths=False)

    def initial_hidden(self, rows: int, channels: int) -> Tensor:
        """Hidden state of new streams."""
        return self.head.weight.new_zeros(rows, 1, self.hidden_width)

    def step(
        self, inputs: Tensor, timing: Tensor, levers: tuple[Tensor, Tensor], hidden: Tensor
    ) -> tuple[Forecast, Tensor]:
        """One sample; see `Forecaster.step`."""
        memory = hidden.squeeze(1)
        head = self._ask(self.cell.output(memory), timing)
        memory = self.cell.step(self._side_by_side(inputs, timing), memory)
        return _forecast(head, *levers), memory.unsqueeze(1)

    def unroll(self, inputs: Tensor, query: Tensor, mask: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """T samples; see `Forecaster.unroll`. A sample with nothing observed is none."""
        timing, levers = query.split([TIMING, LEVERS], dim=-1)
        walk = _Walk(mask.any(dim=-1))
        outputs, last = walk.cell(self.cell, walk.observed(self._side_by_side(inputs, timing)), hidden.squeeze(1))
        head = self._ask(walk.before(outputs), timing)
        return _forecast(head, *levers.split(1, dim=-1)).quantiles, last.unsqueeze(1)

    def _side_by_side(self, inputs: Tensor, timing: Tensor) -> Tensor:
        """All channels' inputs and gaps, and the clock once: (..., width of the cell's input)."""
        gap, clock = timing[..., 0], timing[..., 0, 1:]
        if self.fade is not None:
            z, *rest, known = inputs.split(1, dim=-1)
            inputs = torch.cat([self.fade(z, known, timing[..., :1]), *rest, known], dim=-1)
        return torch.cat([inputs.flatten(-2), gap, clock], dim=-1)

    def _ask(self, memory: Tensor, timing: Tensor) -> Tensor:
        return self.head(memory).unflatten(-1, (self.channels, _HEAD)) + self.timing_head(timing)


def _forecast(head: Tensor, back: Tensor, momentum: Tensor) -> Forecast:
    """Read the head's seven numbers."""
    bias, pull, push, log_widths = head.split([1, 1, 1, 4], dim=-1)
    centre = bias + pull * back + push * momentum
    return Forecast(centre.clamp(-1e4, 1e4), log_widths.clamp(-_LOG_WIDTH, _LOG_WIDTH).exp())


def _start_as_persistence(head: nn.Linear, *, widths: bool = True) -> None:
    """Let the first gradients shape a sane forecast rather than undo a random one."""
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    if widths:
        inner, outer = _WIDTHS
        bias = torch.tensor([0.0, 0.0, 0.0, inner, outer, inner, outer])
        with torch.no_grad():
            head.bias.copy_(torch.where(bias > 0, bias.log(), 0.0).repeat(head.out_features // _HEAD))


def _moved_on(line: Tensor, inputs: Tensor) -> Tensor:
    """The line (M, _LINE) with the level and the change of one more sample in front."""
    return torch.cat([inputs[..., :1], line[..., : _LEVELS - 1], inputs[..., 1:2], line[..., _LEVELS:-1]], dim=-1)


def _lines(heard: Tensor, line: Tensor) -> Tensor:
    """The line (M, T + 1, _LINE) after 0, 1, ... of T samples, from levels and changes (M, T, 2), newest first."""
    levels, changes = line.split([_LEVELS, _CHANGES], dim=-1)
    whole = [
        torch.cat([past.flip(-1), now], dim=-1).unfold(-1, past.shape[-1], 1).flip(-1)
        for past, now in zip((levels, changes), heard.unbind(dim=-1), strict=True)
    ]
    return torch.cat(whole, dim=-1)


class _Walk:
    """A way through T samples of which not all are observed.

    The kernels cannot skip a sample, so the observed ones are moved to the front, and afterwards every sample looks up
    what was remembered after the last one observed before it.

    Args:
        mask: (M, T) bool, observed.
    """

    def __init__(self, mask: Tensor) -> None:
        self._seen = mask.sum(dim=1)
        self._whole = bool(mask.all())
        self._order = torch.argsort(~mask, dim=1, stable=True)
        self._before = mask.cumsum(dim=1) - mask.long()

    def observed(self, x: Tensor) -> Tensor:
        """Move the observed ones of (M, T, width) to the front; what follows them is to be ignored."""
        return x if self._whole else _pick(x, self._order)

    def before(self, history: Tensor) -> Tensor:
        """Of what was remembered after 0, 1, ... observed samples (M, T + 1, width), what each sample found."""
        return history[:, :-1] if self._whole else _pick(history, self._before)

    def after(self, history: Tensor) -> Tensor:
        """And what the last one left (M, width)."""
        return _pick(history, self._seen[:, None]).squeeze(1)

    def cell(self, cell: Network, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Take the observed ones (M, T, inputs); outputs after 0, 1, ... of them (M, T + 1, hidden), and last state."""
        lengths = None if self._whole else self._seen.clamp(min=1).cpu()
        outputs, last = cell.unroll(x, start, lengths)
        last = torch.where(self._seen[:, None] > 0, last, start)
        return torch.cat([cell.output(start).unsqueeze(1), outputs], dim=1), last


def _pick(x: Tensor, where: Tensor) -> Tensor:
    return x.gather(1, where.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
