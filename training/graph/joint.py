"""Joint evidence: a stream's targets measured together, whatever their number, by one covariance of fixed size.

One target is measured by the full bank of its own. Of several, 16 random mixtures of their levels and of their changes
are, and the mixtures' averages: how channels move together is what a mixture keeps, and a single channel's own habits
are measured apart (Achlioptas 2003 on random signs). So 64 channels cost no more here than two.

To either the errors of the targets' predictors are added. All 48 features are standardised and enter

    J = z' (C + rho I)^-1 z / K
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.graph.bank import FEATURES as BANK
from training.graph.bank import Bank, Heard
from training.graph.evidence import Covariance, Normal
from training.graph.layout import Field, Layout
from training.graph.own import Own
from training.graph.predictor import FEATURES as PREDICTED

FEATURES = BANK["full"] + PREDICTED

_MIXTURES = 16
_AVERAGED = BANK["full"] - 2 * _MIXTURES
_TABLE = 64  # channels with signs of their own; the 65th has those of the first
_SEED = 5
_RATE = 1 - 2 ** (-1 / 16)
_CLIP = 8.0  # deviations or change scales of a channel in a mixture


class Said(NamedTuple):
    """What the channels say of a sample."""

    heard: Heard
    """(B, C, 1) each."""
    own: Own
    """Each channel's evidence by itself; distance 0 where it was not observed, or is no target."""
    target: Tensor
    """(B, C, 1) 1 for a target, else 0; one that is not observed stands where it stood."""
    present: Tensor
    """(B, 1, 1) 1 where any target was observed."""
    over: Tensor
    """(B, 1, C) of ones: a product with it sums over channels, in an order that does not depend on the wave."""


class Together(NamedTuple):
    """What came of it."""

    q: Tensor
    """J (B, 1, 1)."""
    shares: Tensor
    """(B, C, 1) each channel's part of it; some may be negative."""


class Joint(nn.Module):
    """The evidence of a stream's targets together."""

    signs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.bank = Bank("full", "joint_")
        self.normal, self.covariance = Normal(FEATURES, "joint_"), Covariance("joint_covariance", FEATURES)
        own = [Field("mixture", _AVERAGED), *self.bank.fields, *self.normal.fields]
        self.layout = Layout("joint", own)
        generator = torch.Generator().manual_seed(_SEED)
        signs = torch.randint(0, 2, (_TABLE, _MIXTURES), generator=generator) * 2.0 - 1.0
        self.register_buffer("signs", signs, persistent=False)

    @property
    def learnt(self) -> list[str]:
        """The fields that a new stream of one target starts from as others ended: calibration pools them."""
        return [*self.normal.names, self.covariance.field.name]

    def forward(self, said: Said, rate: Tensor, block: Tensor, flat: Tensor) -> tuple[Together, Tensor, Tensor]:
        """Take one sample; where no target was observed, nothing changes.

        Args:
            said: By the channels.
            rate: (B, 1, 1) at which the stream learns; 0 where no target was observed.
            block: (B, 1, width) this layout's fields.
            flat: (B, 1, K * K) the covariance.

        Returns:
            What came of it, and block and covariance after this sample.
        """
        heard, target = said.heard, said.target
        old = self.layout.split(block)
        signs = self.signs[torch.arange(target.shape[1]) % _TABLE] * target
        parts = torch.cat([heard.z.clamp(-_CLIP, _CLIP) * signs, heard.y.clamp(-_CLIP, _CLIP) * signs], dim=-1)
        # One product sums it all, for each costs as much as a solve's step.
        summed = said.over @ torch.cat([target, target * torch.cat([*heard, said.own.errors], dim=-1), parts], dim=-1)
        n, heard_by_all, errors, mixed = summed.split([1, len(heard), PREDICTED, 2 * _MIXTURES], dim=-1)
        n = n.clamp(min=1.0)
        share = 1 / n.sqrt()
        z, g, y, residual, steps, count = heard_by_all.split(1, dim=-1)
        together = Heard(share * z, share * g, share * y, share * residual, steps / n, count / n)
        alone, new = self.bank(together, old)

        errors, mixed = share * errors, share * mixed
        averages = old["mixture"] + _RATE * (mixed[..., :_AVERAGED] - old["mixture"])
        several = (n > 1.5).float()
        mixture = torch.cat([mixed, averages], dim=-1)
        matrix = self.covariance.unfold(flat)
        features = torch.cat([alone + several * (mixture - alone), errors], dim=-1)
        features, statistics = self.normal(features, rate, old)
        distance, flat = self.covariance(features, rate, matrix)

        pull = (distance.solution / self.normal.spread(old))[..., : 2 * _MIXTURES]
        shares = share * (parts * pull).sum(dim=-1, keepdim=True) / FEATURES
        shares = target * distance.q + several * (shares - target * distance.q)
        new |= statistics | {"mixture": averages}
        return Together(distance.q, shares), torch.where(said.present > 0, self.layout.join(new), block), flat
