"""What may be put around a cell: zoneout, and the two decays of GRU-D.

    zoneout   in training each unit stays as it was with probability p; afterwards all of them stay by p.
              Krueger et al. 2017
    decay     h becomes exp(-max(0, w d + b)) h before a sample that comes d periods after the last.
              GRU-D, hidden state decay: Che et al. 2018
    fade      x that is missing is exp(-max(0, w d + b)) times what it was d periods ago, which goes to its mean, 0.
              GRU-D, input decay: the same

Zoneout and decay act on the output vector, the last of the state; what else a cell remembers stays whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.cells.base import Cell, Network

_LONGEST = 0.99  # of a gap as the forecaster says it, d / (1 + d): beyond 99 periods all is the same


class Zoneout(Network):
    """A cell whose units stay as they were now and then.

    Args:
        inner: The cell.
        rate: How likely a unit stays.
    """

    def __init__(self, inner: Cell, rate: float) -> None:
        super().__init__(inner.inputs, inner.width, inner.state_width)
        self.inner, self.rate = inner, rate

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample."""
        before, after = self.output(state), self.inner.step(x, state)
        h = self.output(after)
        stays = (torch.rand_like(h) < self.rate).float() if self.training else self.rate
        return _with_output(after, h + stays * (before - h))


class Decay(Network):
    """A cell that forgets while its stream is silent; how fast, each unit learns.

    Args:
        inner: The cell, or what is around it already.
        gaps: Which of a sample's numbers say how long it was waited for, each d / (1 + d) of d periods.
    """

    def __init__(self, inner: Network, gaps: slice) -> None:
        super().__init__(inner.inputs, inner.width, inner.state_width)
        self.inner, self.gaps = inner, gaps
        self.rate = nn.Linear(len(range(*gaps.indices(inner.inputs))), inner.width)
        nn.init.uniform_(self.rate.weight, 0.0, 0.1)  # negative ones would begin where nothing is learnt

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample."""
        left = torch.exp(-self.rate(_periods(x[..., self.gaps])).clamp(min=0.0))
        return self.inner.step(x, _with_output(state, left * self.output(state)))


class Fade(nn.Module):
    """Channels that are missing go from what they last said to their mean; how fast, each learns.

    Args:
        channels: How many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1).uniform_(0.0, 0.1))
        self.bias = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor, observed: Tensor, gaps: Tensor) -> Tensor:
        """What a network is to hear.

        Args:
            x: (..., C, 1) what each channel last said, as a deviation from its mean.
            observed: (..., C, 1) 1 where it said so now.
            gaps: (..., C, 1) how long ago that is, d / (1 + d) of d periods.
        """
        left = torch.exp(-(self.weight * _periods(gaps) + self.bias).clamp(min=0.0))
        return x * (observed + (1 - observed) * left)


def _periods(gaps: Tensor) -> Tensor:
    gaps = gaps.clamp(0.0, _LONGEST)
    return gaps / (1 - gaps)


def _with_output(state: Tensor, h: Tensor) -> Tensor:
    """The state with another output vector."""
    rest = state.shape[-1] - h.shape[-1]
    return torch.cat([state[..., :rest], h], dim=-1) if rest else h
