"""Predictor: a linear forecast that every channel learns for itself, from its own features, while it runs.

    e = x - w' f                              f: the light features four samples ago, standardised; x: what is foretold
    c <- c + rate (f x - c)                   what the features had to do with what followed
    w: (C + rho I) w = c                      with the covariance C of the features, learnt from the same samples

Foretold are the level, its quick spread and its quick roughness. w stays in the row and follows by one step of steepest
descent a sample, from where it was: the system moves slowly, so that it is never far behind. Four samples ahead a
smooth stream is not yet foretold by its own smoothness. What the trained forecaster knows of all streams, this learns
of one: where a series repeats itself, or is chaotic, the size of its errors is the best single piece of evidence
(docs/experiments.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.graph.layout import SAFE_LOG, Field

FORETOLD = 3
FEATURES = 2 * FORETOLD

HORIZON = 4  # samples
_RIDGE = 0.001
_HALF_LIVES = (8.0, 64.0)  # samples
_UNCLIPPED = 50.0  # samples during which the usual size of errors is learnt from errors of any size
_CLIP = 6.0  # deviations; what a single error counts for afterwards
_FLOOR = 1e-4
_TINY = 1e-12


class Predictor(nn.Module):
    """The weights of one channel and the size of its errors."""

    rates: Tensor
    twice: Tensor
    widen: Tensor
    floor: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.fields = (Field("error_size", FORETOLD, 1.0), Field("error_energies", FEATURES, 1.0))
        self.wide = (Field("weights", FORETOLD * width), Field("cross", FORETOLD * width))
        rates = [1 - 2 ** (-1 / half) for half in _HALF_LIVES for _ in range(FORETOLD)]
        self.register_buffer("rates", torch.tensor(rates), persistent=False)
        # Twice the three numbers side by side: a product with a constant is quicker than a concatenation.
        twice = torch.cat([torch.eye(FORETOLD)] * len(_HALF_LIVES), dim=1)
        self.register_buffer("twice", twice, persistent=False)
        # And six among sixteen, of which the others are ones.
        self.register_buffer("widen", torch.eye(FEATURES, SAFE_LOG), persistent=False)
        floor = torch.tensor([_FLOOR] * FEATURES + [1.0] * (SAFE_LOG - FEATURES))
        self.register_buffer("floor", floor, persistent=False)

    def forward(
        self, foretold: Tensor, before: Tensor, matrix: Tensor, rate: Tensor, count: Tensor, old: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare what came with what was foretold.

        Args:
            foretold: What the forecast is of (..., 3), in deviations.
            before: The standardised features `HORIZON` samples ago (..., K).
            matrix: Their covariance (..., K, K), up to the sample before them.
            rate: How fast to learn (..., 1).
            count: Samples before (..., 1).
            old: The fields before this sample.

        Returns:
            Logarithms of the energies of the three errors, over two half-lives each, in usual energies (..., 6); and
            the fields after this sample.
        """
        weights = old["weights"].unflatten(-1, (FORETOLD, self.width))
        cross = old["cross"].unflatten(-1, (FORETOLD, self.width))
        before = before.unsqueeze(-2)
        error = foretold - (weights * before).sum(dim=-1)
        square = error * error
        size, energies = old["error_size"], old["error_energies"]
        limit = size * _CLIP**2 + (count < _UNCLIPPED).float() * 1e6
        energies = energies + torch.maximum(self.rates, 1 / (count + 1)) * (square @ self.twice - energies)
        cross = cross + rate.unsqueeze(-1) * (before * foretold.unsqueeze(-1) - cross)
        learns = (rate > 0).float().unsqueeze(-1)
        return self._features(energies / (size @ self.twice).clamp(min=_TINY)), {
            "weights": (weights + learns * self._step(matrix, cross, weights)).flatten(-2),
            "cross": cross.flatten(-2),
            "error_size": size + rate * (torch.minimum(square, limit) - size),
            "error_energies": energies,
        }

    def _step(self, matrix: Tensor, cross: Tensor, weights: Tensor) -> Tensor:
        """One step towards the solution, as long as is best along the residual; (..., 3, K), C is symmetric."""
        residual = cross - weights @ matrix - _RIDGE * weights
        image = residual @ matrix + _RIDGE * residual
        energy = (residual * residual).sum(dim=-1, keepdim=True)
        return energy / (residual * image).sum(dim=-1, keepdim=True).clamp(min=_TINY) * residual

    def _features(self, energies: Tensor) -> Tensor:
        return 0.5 * (energies @ self.widen + self.floor).log()[..., :FEATURES]
