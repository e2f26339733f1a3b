"""Own evidence: a channel measured by itself, its light features and the errors of its predictor by one covariance.

q = z' (C + rho I)^-1 z / K               K = 24: 16 features of the light bank, 6 of the predictor, 2 nothing
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.graph.bank import FEATURES as BANK
from training.graph.bank import LEVEL_16, Bank, Heard
from training.graph.evidence import STEPS, Covariance, Normal
from training.graph.layout import Field
from training.graph.predictor import FEATURES as PREDICTED
from training.graph.predictor import HORIZON, Predictor
from training.graph.reference import Reference

_WIDTH = BANK["light"]
_FEATURES = 24  # the next width whose sums do not depend on the wave
_SPREAD, _ROUGHNESS = slice(0, 1), slice(4, 5)  # the quickest wobble and change among the features
_CLIP_LEVEL = 10.0  # deviations


class Own(NamedTuple):
    """What a channel says of itself; every tensor (B, C, ...)."""

    q: Tensor
    """(B, C, 1) distance, 1 in the mean."""
    errors: Tensor
    """(B, C, 6) of the predictor."""
    nats: Tensor
    """(B, C, 1) evidence of a level that is not the usual one."""


class OwnEvidence(nn.Module):
    """Bank, predictor, reference and covariance of one channel."""

    widen: Tensor

    def __init__(self, steps: int = STEPS) -> None:
        super().__init__()
        self.bank, self.predictor, self.reference = Bank("light"), Predictor(_WIDTH), Reference()
        self.normal, self.errors = Normal(_WIDTH), Normal(PREDICTED, "error_")
        self.covariance = Covariance("covariance", _FEATURES, steps)
        # The errors and two times nothing, by a product: quicker than to make the nothing as wide as the wave.
        self.register_buffer("widen", torch.eye(PREDICTED, _FEATURES - _WIDTH), persistent=False)
        self.fields = (
            *self.reference.fields,
            *self.bank.fields,
            *self.predictor.fields,
            *self.normal.fields,
            *self.errors.fields,
            Field("history", HORIZON * _FEATURES),
        )
        self.wide = (*self.predictor.wide, self.covariance.field)
        """Fields that stay as they are, to the bit, at a rate of 0: nobody need select between old and new."""

    @property
    def learnt(self) -> list[str]:
        """The fields that a new channel starts from as others ended: calibration pools them."""
        return [*self.normal.names, *self.errors.names, self.covariance.field.name, "weights", "cross"]

    def forward(self, heard: Heard, rate: Tensor, old: dict[str, Tensor]) -> tuple[Own, dict[str, Tensor]]:
        """Take one sample, learning at `rate` (..., 1)."""
        features, averages = self.bank(heard, old)
        z, statistics = self.normal(features, rate, old)
        matrix = self.covariance.unfold(old["covariance"])
        foretold = torch.cat([heard.z.clamp(-_CLIP_LEVEL, _CLIP_LEVEL), z[..., _SPREAD], z[..., _ROUGHNESS]], dim=-1)
        block = matrix[..., :_WIDTH, :_WIDTH]
        before, history = old["history"].split([_FEATURES, (HORIZON - 1) * _FEATURES], dim=-1)
        errors, predicted = self.predictor(foretold, before[..., :_WIDTH], block, rate, heard.count, old)
        error_z, sizes = self.errors(errors, rate, old)
        z = torch.cat([z, error_z @ self.widen], dim=-1)
        distance, flat = self.covariance(z, rate, matrix, before)
        history = torch.cat([history, z], dim=-1)
        nats, usual = self.reference(averages[self.bank.averages][..., LEVEL_16], heard.count, rate, old)
        new = averages | statistics | predicted | sizes | usual | {"history": history, "covariance": flat}
        return Own(distance.q, errors, nats), new
