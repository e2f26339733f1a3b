"""Evidence: is this channel doing what it usually does, on several time scales at once?

Sixteen *features* are moving averages of five quantities (residual, level, their energies, size of change) over half-lives from one sample to 64.
Each is then measured by its own running mean and variance in this very channel, learnt at every sample, also during anomalies:
a study on public series found that to be worth more than any forecaster, and gating it to be worth much less. The
mean square of the standardised features is the channel's strangeness q, about 1 when all is as usual.

Features and q are separate steps (`features`, `strangeness`), so that another way of measuring may be put between them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.graph.layout import Field
from training.graph.scale import MEMORY

FEATURES = 16
PRIOR_WEIGHT = 64.0  # samples that the calibrated feature statistics count for in a new stream

_AT_ONCE = 1e-6  # samples; a half-life that forgets everything before
_QUANTITIES = ("residual", "level", "energy", "change", "wobble")
# One row per feature: which quantity, over what half-life in samples.
_SIGNED = [("residual", _AT_ONCE), ("residual", 4), ("residual", 16), ("residual", 64),
           ("level", _AT_ONCE), ("level", 4), ("level", 16), ("level", 64)]  # fmt: skip
_POSITIVE = [("energy", 4), ("energy", 16), ("energy", 64),
             ("change", 1), ("change", 4), ("change", 16), ("change", 64), ("wobble", 32)]  # fmt: skip
_FLOOR = {"energy": 1e-3, "change": 0.02, "wobble": 1e-3}  # of what stands under a logarithm: two decades below normal
_LEVEL_16 = 6  # the feature that wobble is measured from
_NEVER_DENORMAL = 1e-6  # averages of an exact 0 would decay into denormal floats, which are slow
_CLIP = 8.0  # standard deviations; what a single feature may count for
_SPREAD_FLOOR = 0.05  # features differ by more than this between samples, or do not differ


class Evidence(nn.Module):
    """The features of a channel and how strange they are for it."""

    FIELDS = (
        Field("averages", FEATURES),
        Field("feature_mean", FEATURES),
        Field("feature_variance", FEATURES, initial=1.0),
    )
    spread: Tensor
    decay: Tensor
    floor: Tensor
    positive: Tensor
    signed: Tensor

    def __init__(self) -> None:
        super().__init__()
        rows = _SIGNED + _POSITIVE
        spread = torch.tensor([[float(name == row) for row, _ in rows] for name in _QUANTITIES])
        positive = torch.tensor([float(name in _FLOOR) for name, _ in rows])
        self.register_buffer("spread", spread, persistent=False)
        self.register_buffer("decay", torch.tensor([-math.log(2) / half for _, half in rows]), persistent=False)
        self.register_buffer("floor", torch.tensor([_FLOOR.get(name, 1.0) for name, _ in rows]), persistent=False)
        self.register_buffer("positive", positive, persistent=False)
        self.register_buffer("signed", 1 - positive, persistent=False)

    def features(
        self, r: Tensor, z: Tensor, g: Tensor, steps: Tensor, rate: Tensor, averages: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Average the quantities and shape the averages into features.

        Args:
            r: Residual in half bands (..., C, 1).
            z: Level in standard deviations.
            g: Change in change scales.
            steps: Time since the channel's last observed sample in periods.
            rate: 1 / samples seen; averages of a new stream are plain means.
            averages: (..., C, FEATURES) before this sample.

        Returns:
            The features (..., C, FEATURES) and the averages after this sample.
        """
        wobble = (z - averages[..., _LEVEL_16 : _LEVEL_16 + 1]).square()
        quantities = torch.cat([r, z, r.square(), g.abs(), wobble], dim=-1) + _NEVER_DENORMAL
        rates = torch.maximum(1 - (steps * self.decay).exp(), rate)
        averages = averages + rates * (quantities @ self.spread - averages)
        return self.signed * averages + self.positive * torch.maximum(averages, self.floor).log(), averages

    def strangeness(self, features: Tensor, count: Tensor, old: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Measure features (..., C, FEATURES) by their own history.

        Returns:
            q (..., C, 1), and the statistics after this sample.
        """
        mean, variance = old["feature_mean"], old["feature_variance"]
        rate = (1 / (count + PRIOR_WEIGHT)).clamp(min=1 / MEMORY)
        deviation = features - mean
        standardised = (deviation / (variance.sqrt() + _SPREAD_FLOOR)).clamp(-_CLIP, _CLIP)
        q = standardised.square().sum(dim=-1, keepdim=True) / FEATURES
        return q, {
            "feature_mean": mean + rate * deviation,
            "feature_variance": variance + rate * (deviation.square() - variance),
        }
