"""Predictor: a linear forecast that every stream learns for itself, from its own features, while it runs.

    e = x - w' f                              f: the joint features eight samples ago, standardised; x: the level now
    c <- c + rate (f x - c)                   what the features had to do with the level that followed
    w: (C + rho I) w = c                      with the covariance C that is kept anyway

w stays in the row and follows by one step of steepest descent a sample, from where it was: the system moves slowly, so
that it is never far behind. Eight samples ahead a smooth stream is not yet foretold by its own smoothness. What the
trained forecaster knows of all streams, this learns of one: on series that repeat themselves, or are chaotic, its
errors are the best single piece of evidence (docs/experiments.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.graph.evidence import image
from training.graph.layout import Field

FEATURES = 4

_HORIZON = 8  # samples
_RIDGE = 0.001
_HALF_LIVES = (4.0, 16.0, 64.0)  # samples
_CLIP = 6.0  # deviations; what a single error may count for in the usual size of errors
_FLOOR = 1e-4
_LEAST = 1e-6
_TINY = 1e-12
_SAFE = 16  # numbers in a logarithm; of other widths it would depend on the wave


class Predictor(nn.Module):
    """The weights of one stream and the size of its errors."""

    rates: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.fields = (
            Field("prediction", width),
            Field("cross", width),
            Field("history", _HORIZON * width),
            Field("error_size", initial=1.0),
            Field("error_energies", len(_HALF_LIVES), 1.0),
        )
        rates = [1 - 2 ** (-1 / half) for half in _HALF_LIVES]
        self.register_buffer("rates", torch.tensor([rates]), persistent=False)

    def forward(
        self, x: Tensor, matrix: Tensor, rate: Tensor, old: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare the level with what was predicted of it.

        Args:
            x: The level (..., 1), in deviations.
            matrix: The covariance of the features (..., K, K), before this sample.
            rate: How fast to learn (..., 1).
            old: The fields before this sample.

        Returns:
            Four features: the error, and its energy over three half-lives; and the fields after this sample, but for
            `history`: see `remember`.
        """
        weights, before = old["prediction"], old["history"][..., : self.width]
        error = x - (weights * before).sum(dim=-1, keepdim=True)
        square = error * error
        variance = old["error_size"]
        energies = old["error_energies"]
        energies = energies + self.rates * (square - energies)
        features = self._features(error / (variance.sqrt() + _LEAST), energies / (variance + _LEAST))
        cross = old["cross"] + rate * (before * x - old["cross"])
        return features, {
            "prediction": weights + (rate > 0).float() * self._step(matrix, cross, weights),
            "cross": cross,
            "error_size": variance + rate * (torch.minimum(square, variance * _CLIP**2 + _LEAST) - variance),
            "error_energies": energies,
        }

    def remember(self, history: Tensor, features: Tensor) -> Tensor:
        """Put features (..., K) behind those of the last samples, and forget the oldest (..., horizon * K)."""
        return torch.cat([history[..., self.width :], features], dim=-1)

    def _step(self, matrix: Tensor, cross: Tensor, weights: Tensor) -> Tensor:
        """One step towards the solution, as long as is best along the residual."""
        residual = cross - image(matrix, weights, _RIDGE)
        energy = (residual * residual).sum(dim=-1, keepdim=True)
        resistance = (residual * image(matrix, residual, _RIDGE)).sum(dim=-1, keepdim=True)
        return energy / resistance.clamp(min=_TINY) * residual

    def _features(self, error: Tensor, energies: Tensor) -> Tensor:
        under = torch.cat([error.abs() + 1.0, energies + _FLOOR], dim=-1)
        padding = torch.ones_like(energies[..., :1]).expand(*energies.shape[:-1], _SAFE - FEATURES)
        logs = torch.cat([under, padding], dim=-1).log()
        return torch.cat([logs[..., :1] * error.sign(), 0.5 * logs[..., 1:FEATURES]], dim=-1)
