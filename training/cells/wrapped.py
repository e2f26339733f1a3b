"""What may be put around a cell: zoneout, and decay of its memory while nothing comes.

    zoneout   in training each unit stays as it was with probability p; afterwards all of them stay by p.
              Krueger et al. 2017
    decay     h becomes exp(-max(0, w d + b)) h before a sample that comes d periods after the last.
              GRU-D: Che et al. 2018, equations 10 and 11

Both act on the output vector, the last of the state; what else a cell remembers stays whole.
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
        gap = x[..., self.gaps].clamp(0.0, _LONGEST)
        left = torch.exp(-self.rate(gap / (1 - gap)).clamp(min=0.0))
        return self.inner.step(x, _with_output(state, left * self.output(state)))


def _with_output(state: Tensor, h: Tensor) -> Tensor:
    """The state with another output vector."""
    rest = state.shape[-1] - h.shape[-1]
    return torch.cat([state[..., :rest], h], dim=-1) if rest else h
