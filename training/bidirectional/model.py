"""The network that reads history from both ends: Schuster and Paliwal 1997; for gaps, Cao et al. 2018 (BRITS).

Two networks of the registry read the same stretch, one onward, one backward. What is said of a cell comes from the
memory of the one before it, that of the other after it, and from the other channels at its own moment, never from the
cell itself. So every measured cell has an estimate too, by which it can be judged.

    u = tanh(A [h before, h after] + B query + sum over other channels of what they tell)
    centre = line + spread * (bias + levers by gains),  lower, upper = centre -+ spread * exp(width)    all by u

An untrained head is linear interpolation with the band of a Brownian bridge (known.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn

from detector.stages.infer import CLOCK_FEATURES
from training.bidirectional.known import HEARD, LEVERS, QUERY, TOLD, Known
from training.cells import Network
from training.shapes import Architecture, build

_HEAD = 1 + LEVERS + 2  # bias, gains, two widths
_LOG_WIDTH = 6.0  # widths lie within exp(+-6) spreads
_AT_ONCE = 4_096  # samples that are read without a gradient in one go


@dataclass(frozen=True)
class Shape:
    """All that the weights depend on."""

    network: Architecture
    channels: tuple[str, ...]
    band_level: float
    """The probability that `lower`..`upper` is to hold."""

    @property
    def levels(self) -> tuple[float, float, float]:
        """Of the quantiles, rising."""
        return (1 - self.band_level) / 2, 0.5, (1 + self.band_level) / 2


class BothSided(nn.Module):
    """Estimates every cell of a stretch from what is around it."""

    strangers: Tensor
    """(C, 1, C, 1) 0 where a channel would be told of itself."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        C, K = len(shape.channels), shape.network.hidden
        gaps = slice((HEARD - 1) * C, HEARD * C)
        self.onward, self.backward = (build(shape.network, HEARD * C + CLOCK_FEATURES, gaps) for _ in range(2))
        self.remember = nn.Linear(self.onward.width + self.backward.width, C * K)
        self.ask = nn.Linear(QUERY, K)
        self.others = nn.Parameter(torch.zeros(C, TOLD, C, K))
        self.head = nn.Parameter(torch.randn(C, K, _HEAD) * 0.01)
        self.start = nn.Parameter(torch.zeros(C, _HEAD))
        self.register_buffer("strangers", 1 - torch.eye(C)[:, None, :, None], persistent=False)
        with torch.no_grad():
            self.start[:, -2:] = torch.tensor(NormalDist().inv_cdf(shape.levels[-1])).log()

    def forward(self, known: Known) -> Tensor:
        """Quantiles (N, T, C, 3) in spreads off the line, rising."""
        onward, backward, query, told = (
            torch.from_numpy(one).to(self.head.device)
            for one in (known.onward, known.backward, known.query, known.told)
        )
        memory = torch.cat([_read(self.onward, onward), _read(self.backward, backward.flip(1)).flip(1)], dim=-1)
        beside = torch.einsum("ntik,ikcu->ntcu", told, self.others * self.strangers)
        u = torch.tanh(self.remember(memory).unflatten(-1, beside.shape[-2:]) + self.ask(query) + beside)
        head = torch.einsum("ntcu,cuh->ntch", u, self.head) + self.start
        bias, gains, log_widths = head.split([1, LEVERS, 2], dim=-1)
        centre = bias + (gains * query[..., :LEVERS]).sum(dim=-1, keepdim=True)
        down, up = log_widths.clamp(-_LOG_WIDTH, _LOG_WIDTH).exp().split(1, dim=-1)
        return torch.cat([centre - down, centre, centre + up], dim=-1)


def _read(network: Network, heard: Tensor) -> Tensor:
    """What the network remembers before each sample (N, T, width)."""
    state = heard.new_zeros(len(heard), network.state_width)
    said = [network.output(state).unsqueeze(1)]
    for part in heard.split(heard.shape[1] if torch.is_grad_enabled() else _AT_ONCE, dim=1):
        outputs, state = network.unroll(part, state)
        said.append(outputs)
    return torch.cat(said, dim=1)[:, :-1]
