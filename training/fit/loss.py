"""What training makes smaller: the pinball loss of the quantiles of the next sample, in change scales.

Of a pass, the *geometric* mean over streams and channels is made smaller: ten percent less of a small error are worth
as much as ten percent less of a large one, or noise, where nothing can be learnt, would drown what can be foretold to a
hundredth of a change. What is missing or padding does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.spans import Span

_LEAST = 3e-3  # change scales; a loss below it is as good as none
_FAR = 100.0  # change scales; how far off a target may count: one jump after a constant stretch is a million


def pinball(quantiles: Tensor, span: Span, levels: Tensor) -> Tensor:
    """Mean pinball loss over quantiles of each cell, 0 where it does not count. Koenker and Bassett 1978.

    Args:
        quantiles: (..., Q) forecast.
        span: Targets and what counts of them, (...).
        levels: (Q,) such as 0.01, 0.5, 0.99.
    """
    error = span.target.clamp(-_FAR, _FAR)[..., None] - quantiles
    loss = torch.maximum(levels * error, (levels - 1) * error).mean(dim=-1)
    return torch.where(span.counted, loss, 0.0)


class Usual:
    """How large the loss of each stream and channel has been in this pass.

    A loss in units of that has the gradient of its logarithm: this is what makes the mean a geometric one.
    """

    def __init__(self) -> None:
        self.lost: Tensor | float = 0.0
        self.counted: Tensor | float = 0.0

    def of(self, lost: Tensor, counted: Tensor) -> Tensor:
        """Add the sums (N, C) of a chunk; the mean loss so far (N, C)."""
        self.lost, self.counted = self.lost + lost, self.counted + counted
        return self.lost / self.counted.clamp(min=1) + _LEAST


@torch.no_grad()
def persistence_loss(levels: Tensor, train: Sequence[Span], validation: Sequence[Span]) -> float:
    """Loss on the later spans of the last value, widened by the quantiles of its errors on the training spans."""
    errors = torch.cat([span.target[span.counted] for span in train])
    errors = errors[:: max(1, len(errors) // 1_000_000)]  # torch sorts at most 16 million at once
    quantiles = torch.quantile(errors.double(), levels.double()).float()
    lost = sum(pinball(quantiles.expand(*span.target.shape, -1), span, levels).sum().item() for span in validation)
    return lost / sum(int(span.counted.sum()) for span in validation)
