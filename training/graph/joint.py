"""Joint evidence: a stream's targets measured together, whatever their number, by one covariance of fixed size.

One target is measured by the full bank of its own. Of several, 16 random mixtures of their levels and of their changes
are, and the mixtures' averages: how channels move together is what a mixture keeps, and a single channel's own habits
are measured apart (Achlioptas 2003 on random signs). So 64 channels cost no more here than two.

The predictor adds the errors of what the stream expects of itself. All 48 features are standardised and enter

    J = z' (C + rho I)^-1 z / K
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.graph.bank import FEATURES as BANK
from training.graph.bank import Bank, Heard
from training.graph.evidence import Covariance, Normal
from training.graph.layout import Field
from training.graph.predictor import FEATURES as PREDICTED
from training.graph.predictor import Predictor

FEATURES = BANK["full"] + PREDICTED

_MIXTURES, _AVERAGED = 16, 12
_TABLE = 64  # channels with signs of their own; the 65th has those of the first
_SEED = 5
_RATE = 1 - 2 ** (-1 / 16)
_CLIP = 8.0  # deviations or change scales of a channel in a mixture
_CLIP_LEVEL = 10.0


class Channels(NamedTuple):
    """What the channels say of a sample; every tensor (B, C, 1)."""

    heard: Heard
    target: Tensor
    """1 for a target that was observed, else 0."""


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
        self.bank, self.predictor = Bank("full"), Predictor(FEATURES)
        self.normal, self.covariance = Normal(FEATURES, "joint_"), Covariance("joint_covariance", FEATURES)
        self.fields = (
            Field("mixture", _AVERAGED), *self.bank.fields, *self.predictor.fields, *self.normal.fields,
        )  # fmt: skip
        generator = torch.Generator().manual_seed(_SEED)
        signs = torch.randint(0, 2, (_TABLE, _MIXTURES), generator=generator) * 2.0 - 1.0
        self.register_buffer("signs", signs, persistent=False)

    def forward(
        self, channels: Channels, rate: Tensor, flat: Tensor, old: dict[str, Tensor]
    ) -> tuple[Together, dict[str, Tensor], Tensor]:
        """Take one sample.

        Args:
            channels: What they say.
            rate: (B, 1, 1) at which the stream learns.
            flat: (B, 1, K * K) the covariance.
            old: The joint fields.

        Returns:
            What came of it, the joint fields and the covariance after this sample. Where no target was observed, they
            are to be dropped.
        """
        heard, target = channels
        over = torch.ones_like(target).transpose(1, 2)
        n = over @ target
        share = target / n.sqrt().clamp(min=1.0)
        together = over @ torch.cat([share * part for part in (heard.z, heard.g, heard.y, heard.residual)], dim=-1)
        z, g, y, residual = together.split(1, dim=-1)
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
        errors, predicted = self.predictor(z.clamp(-_CLIP_LEVEL, _CLIP_LEVEL), matrix, rate, old)
        features = torch.cat([alone + several * (mixture - alone), errors], dim=-1)
        features, statistics = self.normal(features, rate, old)
        distance, flat = self.covariance(features, rate, matrix)

        pull = distance.solution / (old[self.normal.variance].sqrt() + 0.05)
        pull = pull[..., : 2 * _MIXTURES]
        shares = (parts * pull).sum(dim=-1, keepdim=True) / FEATURES
        shares = target * distance.q + several * (shares - target * distance.q)
        history = self.predictor.remember(old["history"], features)
        new |= predicted | statistics | {"mixture": averages, "history": history}
        return Together(distance.q, shares), new, flat
