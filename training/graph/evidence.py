"""Evidence: how unlike itself is this? Features measured by their own online mean, variance and covariance.

    z = (f - mean) / deviation                    each feature in its own standard deviations
    q = z' (C + rho I)^-1 z / K                   the Mahalanobis distance (1936), 1 in the mean
    C <- C + rate (z z' - C)                      after q is known, at every sample, also during anomalies

No inverse is kept: it drifts in float32. y = (C + rho I)^-1 z is found anew each time by eight steps of conjugate
gradients from zero (Hestenes and Stiefel 1952), all of them products with the matrix itself. The terms z_i y_i of q are
what each feature owes to it.

A study on public series found that learning during anomalies is worth more than any forecaster, that refreshing an
inverse now and then or starting the solve from the last solution costs much of the accuracy, and that fewer features
do too (docs/decisions/0008-evidence-bank.md).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.graph.layout import Field
from training.graph.scale import MEMORY

PRIOR_WEIGHT = 64.0  # samples that the calibrated statistics count for in a new stream

_RIDGE = 0.03  # rho; small, for what hardly ever moves together is the evidence
STEPS = 8
_CLIP = 8.0  # standard deviations; what a single feature may count for
_SPREAD_FLOOR = 0.05  # features differ by more than this between samples, or do not differ
_TINY = 1e-12


class Distance(NamedTuple):
    """What the features say together."""

    q: Tensor
    """(..., 1), 1 in the mean."""
    solution: Tensor
    """y (..., K): feature i owes z_i y_i / K to q."""


def rate_of(count: Tensor) -> Tensor:
    """How much a sample counts after so many others."""
    return (1 / (count + PRIOR_WEIGHT)).clamp(min=1 / MEMORY)


class Normal(nn.Module):
    """Running mean and variance of features; standardises them."""

    def __init__(self, width: int, of: str = "feature_") -> None:
        super().__init__()
        self.mean, self.variance = f"{of}mean", f"{of}variance"
        self.fields = (Field(self.mean, width), Field(self.variance, width, 1.0))
        self.names = (self.mean, self.variance)
        self.register_buffer("ones", torch.ones(1, width), persistent=False)

    ones: Tensor

    def spread(self, old: dict[str, Tensor]) -> Tensor:
        """What a standardised 1 stands for (..., K)."""
        return old[self.variance].sqrt() + _SPREAD_FLOOR

    def forward(self, features: Tensor, rate: Tensor, old: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Standardise features (..., K) by what was usual before them; `rate` (..., 1)."""
        mean, variance = old[self.mean], old[self.variance]
        deviation = features - mean
        z = (deviation / self.spread(old)).clamp(-_CLIP, _CLIP)
        rate = rate @ self.ones
        return z, {
            self.mean: mean + rate * deviation,
            self.variance: variance + rate * (deviation * deviation - variance),
        }


class Covariance(nn.Module):
    """The online covariance of K standardised features; (..., K, K), kept flat in the row."""

    def __init__(self, name: str, width: int, steps: int = STEPS) -> None:
        super().__init__()
        self.width, self.steps = width, steps
        self.field = Field(name, width * width, tuple(torch.eye(width).flatten().tolist()))

    def unfold(self, flat: Tensor) -> Tensor:
        """The matrix (..., K, K) of what the row keeps (..., K * K)."""
        return flat.unflatten(-1, (self.width, self.width))

    def forward(
        self, z: Tensor, rate: Tensor, matrix: Tensor, learnt_from: Tensor | None = None
    ) -> tuple[Distance, Tensor]:
        """Measure, then learn.

        Args:
            z: Standardised features (..., K).
            rate: At which to learn (..., 1).
            matrix: The covariance before (..., K, K).
            learnt_from: What to learn from, if not from z.

        Returns:
            What they say together, and the next matrix flat (..., K * K).
        """
        distance = conjugate_gradients(matrix, z, _RIDGE, self.steps)
        # Each side takes the root of the rate, which keeps the matrix symmetric to the last bit.
        seen = rate.sqrt() * (z if learnt_from is None else learnt_from)
        outer = seen.unsqueeze(-1) @ seen.unsqueeze(-2)
        return distance._replace(q=distance.q / self.width), ((1 - rate).unsqueeze(-1) * matrix + outer).flatten(-2)


def conjugate_gradients(matrix: Tensor, right: Tensor, ridge: float, steps: int) -> Distance:
    """Solve (matrix + ridge I) y = right, nearly, from zero.

    Args:
        matrix: (..., K, K) symmetric, no negative eigenvalues.
        right: (..., K).
        ridge: What is added to the diagonal.
        steps: Each one product with the matrix.

    Returns:
        right' y, which every step raises by what it gains (Hestenes and Stiefel's own estimate), and y.
    """
    # A row times the matrix, which is symmetric: ONNX Runtime takes a third of the time of matrix times column.
    residual = direction = right.unsqueeze(-2)
    energy = _square(residual)
    q, y = [], []
    for step in range(steps):
        along = direction @ matrix + ridge * direction
        length = energy / _dot(direction, along).clamp(min=_TINY)
        q.append(length * energy)
        y.append(length * direction)
        if step + 1 < steps:
            residual = residual - length * along
            left = _square(residual)
            direction = residual + left / energy * direction
            energy = left
    return Distance(sum(q[1:], q[0]).squeeze(-2), sum(y[1:], y[0]).squeeze(-2))


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Of vectors (..., K), as (..., 1).

    Along the last axis: over any other, ONNX Runtime adds up in another order when the wave is a single row.
    """
    return (one * other).sum(dim=-1, keepdim=True)


def _square(one: Tensor) -> Tensor:
    """Of a vector with itself, and never nothing."""
    return _dot(one, one).clamp(min=_TINY)
