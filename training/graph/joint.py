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
        over = torch.ones_like(target).transpose(1, 2)
        n = over @ target
        share = target / n.sqrt().clamp(min=1.0)
        parts = torch.cat([heard.z, heard.g, heard.y, heard.residual, said.own.errors], dim=-1)
        z, g, y, residual, errors = (over @ (share * parts)).split([1, 1, 1, 1, PREDICTED], dim=-1)
        first = (over @ (target * torch.cat([heard.steps, heard.count], dim=-1))) / n.clamp(min=1.0)
        steps, count = first.split(1, dim=-1)
        alone, new = self.bank(Heard(z, g, y, residual, steps, count), old)

        signs = self.signs[torch.arange(target.shape[1]) % _TABLE] * share
        parts = torch.cat([heard.z.clamp(-_CLIP, _CLIP) * signs, heard.y.clamp(-_CLIP, _CLIP) * signs], dim=-1)
        mixed = over @ parts
        averages = old["mixture"] + _RATE * (mixed[..., :_AVERAGED] - old["mixture"])
        several = (n > 1.5).float()
        mixture = torch.cat([mixed, averages], dim=-1)
        matrix = self.covariance.unfold(flat)
        features = torch.cat([alone + several * (mixture - alone), errors], dim=-1)
        features, statistics = self.normal(features, rate, old)
        distance, flat = self.covariance(features, rate, matrix)

        pull = distance.solution / (old[self.normal.variance].sqrt() + 0.05)
        pull = pull[..., : 2 * _MIXTURES]
        shares = (parts * pull).sum(dim=-1, keepdim=True) / FEATURES
        shares = target * distance.q + several * (shares - target * distance.q)
        new |= statistics | {"mixture": averages}
        return Together(distance.q, shares), torch.where(said.present > 0, self.layout.join(new), block), flat
