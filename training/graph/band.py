"""Band: keeps its promise of coverage whatever the forecaster is worth on this stream.

The forecaster's outer quantiles are widened by a factor kept in the row, which grows at every miss and shrinks at
every hit so that in the long run the promised share of samples falls inside (adaptive conformal inference, Gibbs
and Candes 2021, on a log scale).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.graph.layout import Field

_STEP = 0.03  # relative growth of the factor at a miss
_FACTOR_MIN, _FACTOR_MAX = 0.1, 1e3
_RESIDUAL_CLIP = 12.0  # half bands; a spike must be able to reach any threshold that a budget asks for


class Band(NamedTuple):
    """Limits in change scales about the centre, and where the sample fell."""

    down: Tensor
    up: Tensor
    residual: Tensor
    """Signed, in half bands: within +-1 is inside."""


class Coverage(nn.Module):
    """The factor of one channel."""

    FIELDS = (Field("band_factor", initial=1.0),)

    def __init__(self, band_level: float) -> None:
        super().__init__()
        self.band_level = band_level
        self.register_buffer("sides", torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), persistent=False)

    sides: Tensor

    def forward(self, y: Tensor, centre: Tensor, widths: Tensor, factor: Tensor) -> tuple[Band, Tensor]:
        """Compare a sample with its forecast.

        Args:
            y: What came (..., 1), in change scales.
            centre: The forecast's median.
            widths: (..., 4) steps between its quantiles: inner and outer down, inner and outer up.
            factor: How much the band is widened.

        Returns:
            The band and the residual, and the factor after this sample.
        """
        down, up = (widths @ self.sides).split(1, dim=-1)
        down, up = down * factor, up * factor
        error = y - centre
        residual = (error.clamp(min=0.0) / up + error.clamp(max=0.0) / down).clamp(-_RESIDUAL_CLIP, _RESIDUAL_CLIP)
        missed = (residual.abs() > 1).float()
        growth = missed * _STEP + (1 - _STEP * (1 - self.band_level))
        return Band(down, up, residual), (factor * growth).clamp(_FACTOR_MIN, _FACTOR_MAX)
