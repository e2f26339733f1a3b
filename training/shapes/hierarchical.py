"""Two clocks: an upper level takes what the lower one says only at every n-th sample. El Hihi and Bengio 1995.

    lower = lower.step(x, lower)                                  at every sample
    upper = upper.step(output of lower, upper) where it ticks     at samples n, 2n, ... of the stream
    y = [output of lower, output of upper]

The way back from now to m samples ago is m / n steps long in the upper level: so it remembers n times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.cells import Network
from training.shapes.base import Architecture, cells_of, register
from training.shapes.stack import stack


class Hierarchical(Network):
    """Two networks, the upper one slower; state = samples since it ticked, then the states of both.

    Args:
        lower: Takes every sample.
        upper: Takes the lower one's output at every n-th.
        every: That n.
    """

    def __init__(self, lower: Network, upper: Network, every: int) -> None:
        self._parts = [1, lower.state_width, upper.state_width]
        super().__init__(lower.inputs, lower.width + upper.width, sum(self._parts))
        self.lower, self.upper, self.every = lower, upper, every

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample."""
        clock, low, up = state.split(self._parts, dim=-1)
        low, clock = self.lower.step(x, low), clock + 1
        ticks = clock > self.every - 0.5
        up = torch.where(ticks, self.upper.step(self.lower.output(low), up), up)
        return torch.cat([torch.where(ticks, 0.0, clock), low, up], dim=-1)

    def output(self, state: Tensor) -> Tensor:
        """What both say."""
        _, low, up = state.split(self._parts, dim=-1)
        return torch.cat([self.lower.output(low), self.upper.output(up)], dim=-1)

    def unroll(self, x: Tensor, state: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T samples: the lower level through all of them, then the upper one through those at which it ticks."""
        clock, low, up = state.split(self._parts, dim=-1)
        below, low = self.lower.unroll(x, low, lengths)
        number = torch.arange(1, x.shape[1] + 1, device=x.device)
        counted = x.shape[1] if lengths is None else lengths.to(x.device)[:, None]
        ticks = ((clock.round() + number) % self.every == 0) & (number <= counted)  # (M, T)
        above, up = self._tick(below, ticks, up)
        return torch.cat([below, above], dim=-1), torch.cat([(clock + counted) % self.every, low, up], dim=-1)

    def _tick(self, below: Tensor, ticks: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The upper level's output after each sample (M, T, width), and its last state."""
        count = ticks.sum(dim=1)
        history = self.upper.output(start).unsqueeze(1)  # after 0, 1, ... ticks
        if most := int(count.max()):
            heard = _pick(below, torch.argsort(~ticks, dim=1, stable=True)[:, :most])
            said, last = self.upper.unroll(heard, start, count.clamp(min=1).cpu())
            history, start = torch.cat([history, said], dim=1), torch.where(count[:, None] > 0, last, start)
        return _pick(history, ticks.cumsum(dim=1)), start


def _pick(x: Tensor, where: Tensor) -> Tensor:
    return x.gather(1, where.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def _hierarchical(asked: Architecture, inputs: int, gaps: slice) -> Network:
    lower = stack(asked, cells_of(asked, inputs, gaps))
    upper = stack(asked, cells_of(asked, asked.hidden))
    return Hierarchical(lower, upper, asked.every)


register("hierarchical", _hierarchical, "cell", "every", "between", "decay")
