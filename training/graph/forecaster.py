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

from training.cells import Cell

INPUTS = 5  # z, g, ratio, youth, mask: what the cell hears of each channel
TIMING = 5  # gap and four clock features: what cell and head hear of the moment
LEVERS = 2  # back, momentum: what the head may pull and push
QUERY = TIMING + LEVERS
QUANTILES = 5

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
    """One set of weights for every channel, each channel with its own memory."""

    def __init__(self, cell: type[Cell], hidden: int, layers: int) -> None:
        super().__init__()
        self.cell = cell(INPUTS + TIMING, hidden, layers)
        self.head = nn.Linear(hidden + TIMING, _HEAD)
        self.hidden_width = self.cell.state_width
        _start_as_persistence(self.head)

    def initial_hidden(self, rows: int, channels: int) -> Tensor:
        """Hidden state of new streams."""
        return self.head.weight.new_zeros(rows, channels, self.hidden_width)

    def step(
        self, inputs: Tensor, timing: Tensor, levers: tuple[Tensor, Tensor], hidden: Tensor
    ) -> tuple[Forecast, Tensor]:
        """One sample; see `Forecaster.step`."""
        # Rows and channels are alike to shared weights; flat, they make the matrix products that ORT is fastest at.
        timing, memory = timing.flatten(0, 1), hidden.flatten(0, 1)
        head = self._ask(self.cell.output(memory), timing)
        memory = self.cell.step(torch.cat([inputs.flatten(0, 1), timing], dim=-1), memory)
        return _forecast(head.unflatten(0, inputs.shape[:2]), *levers), memory.unflatten(0, inputs.shape[:2])

    def unroll(self, inputs: Tensor, query: Tensor, mask: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """T samples; see `Forecaster.unroll`."""
        N, T, C, _ = inputs.shape
        timing, levers = query.split([TIMING, LEVERS], dim=-1)
        x = torch.cat([inputs, timing], dim=-1).transpose(1, 2).reshape(N * C, T, -1)
        before, last = _remember(self.cell, x, mask.transpose(1, 2).reshape(N * C, T), hidden.reshape(N * C, -1))
        head = self._ask(before.unflatten(0, (N, C)).transpose(1, 2), timing)
        return _forecast(head, *levers.split(1, dim=-1)).quantiles, last.unflatten(0, (N, C))

    def _ask(self, memory: Tensor, timing: Tensor) -> Tensor:
        return self.head(torch.cat([memory, timing], dim=-1))


class JointForecaster(Forecaster):
    """One net over all channels, which sees how they move together."""

    def __init__(self, cell: type[Cell], hidden: int, layers: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.cell = cell(channels * (INPUTS + 1) + TIMING - 1, hidden, layers)
        self.head = nn.Linear(hidden, channels * _HEAD)
        self.timing_head = nn.Linear(TIMING, _HEAD)
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
        before, last = _remember(self.cell, self._side_by_side(inputs, timing), mask.any(dim=-1), hidden.squeeze(1))
        return _forecast(self._ask(before, timing), *levers.split(1, dim=-1)).quantiles, last.unsqueeze(1)

    def _side_by_side(self, inputs: Tensor, timing: Tensor) -> Tensor:
        """All channels' inputs and gaps, and the clock once: (..., width of the cell's input)."""
        gap, clock = timing[..., 0], timing[..., 0, 1:]
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


def _remember(cell: Cell, x: Tensor, mask: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Walk a cell over the observed ones of T inputs.

    The kernels cannot skip a sample, so the observed ones are moved to the front, and afterwards every sample looks up
    the output of the last one observed before it.

    Returns:
        The output *before* each sample (M, T, hidden), and the last state (M, state_width).
    """
    first = cell.output(start).unsqueeze(1)
    if bool(mask.all()):
        outputs, last = cell.unroll(x, start)
        return torch.cat([first, outputs[:, :-1]], dim=1), last
    seen = mask.sum(dim=1)
    order = torch.argsort(~mask, dim=1, stable=True).unsqueeze(-1)
    outputs, last = cell.unroll(x.gather(1, order.expand(x.shape)), start, seen.clamp(min=1).cpu())
    history = torch.cat([first, outputs], dim=1)  # output after 0, 1, ... observed samples
    before = (mask.cumsum(dim=1) - mask.long()).unsqueeze(-1)
    return history.gather(1, before.expand(-1, -1, cell.hidden)), torch.where(seen.unsqueeze(-1) > 0, last, start)
