"""What large weights cost, as part of the loss: L1 makes them few, L2 makes them small.

Weight decay is another thing, and the optimiser's: it does not pass through Adam's scaling, L2 does. What is inside the
network (dropout, zoneout, normalisation) belongs to the cells and the shapes.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from training.settings import FitSettings


def penalty(parameters: Iterable[nn.Parameter], settings: FitSettings) -> Tensor | float:
    """`l1` times the sum of the weights' sizes and `l2` times that of their squares; biases cost nothing."""
    if not (settings.l1 or settings.l2):
        return 0.0
    weights = [one for one in parameters if one.ndim > 1]
    return sum(settings.l1 * one.abs().sum() + settings.l2 * one.square().sum() for one in weights)
