"""Evidence: is this channel doing what it usually does, on several time scales at once?

Sixteen *features* are moving averages of five quantities (residual, level, their energies, size of change) over
half-lives from one sample to 64. Each is then measured by its own running mean and variance in this very channel,
learnt at every sample, also during anomalies: a study on public series found that to be worth more than any
forecaster, and gating it to be worth much less. The channel's strangeness is its strangest feature, in that feature's
own standard deviations: one kind of fault moves one or two features, and a mean over all would drown it
(docs/decisions/0005-strangest-feature.md).

Features and strangeness are separate steps (`features`, `strangeness`), so that another way of measuring may be put
between them.
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
# What the features of noise, walks, waves and shots settle at: where a detector starts that was not calibrated.
_USUAL_MEAN = (0.0,) * 8 + (-1.7, -1.7, -1.7, 0.0, 0.0, 0.0, 0.0, -0.4)
_USUAL_VARIANCE = (0.2, 0.03, 0.02, 0.015, 1.0, 0.3, 0.2, 0.1, 0.3, 0.15, 0.1, 0.3, 0.1, 0.05, 0.03, 0.2)
_LEVEL_16 = 6  # the feature that wobble is measured from
_FLOOR = 0.003  # of what stands under a logarithm: some two decades below normal
_NEVER_DENORMAL = 1e-6  # averages of an exact 0 would decay into denormal floats, which are slow
_CLIP = 12.0  # standard deviations; what a single feature may count for
_SPREAD_FLOOR = 0.05  # features differ by more than this between samples, or do not differ


class Evidence(nn.Module):
    """The features of a channel and how strange they are for it."""

    FIELDS = (
        Field("averages", FEATURES),
        Field("feature_mean", FEATURES, _USUAL_MEAN),
        Field("feature_variance", FEATURES, _USUAL_VARIANCE),
    )
    spread: Tensor
    forgetting: Tensor
    ones: Tensor

    def __init__(self) -> None:
        super().__init__()
        rows = _SIGNED + _POSITIVE
        spread = torch.tensor([[float(name == row) for row, _ in rows] for name in _QUANTITIES])
        half_lives = torch.tensor([[-math.log(2) / half for _, half in rows], [-1.0] * FEATURES])
        # Products with constant matrices widen numbers to features: ONNX Runtime is slower at broadcasting short rows.
        self.register_buffer("spread", spread, persistent=False)
        self.register_buffer("forgetting", half_lives, persistent=False)
        self.register_buffer("ones", torch.ones(1, FEATURES), persistent=False)

    def features(
        self, r: Tensor, z: Tensor, g: Tensor, steps: Tensor, count: Tensor, averages: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Average the quantities and shape the averages into features.

        Args:
            r: Residual in half bands (..., 1).
            z: Level in standard deviations.
            g: Change in change scales.
            steps: Time since the channel's last observed sample in periods.
            count: Samples seen before; averages of a new stream are nearly plain means.
            averages: (..., FEATURES) before this sample.

        Returns:
            The features (..., FEATURES) and the averages after this sample.
        """
        wobble = z - averages[..., _LEVEL_16 : _LEVEL_16 + 1]
        quantities = torch.cat([r, z, r * r, g.abs(), wobble * wobble], dim=-1) + _NEVER_DENORMAL
        now = quantities @ self.spread
        youth = 1 / count.clamp(min=0.02)
        averages = now + (torch.cat([steps, youth], dim=-1) @ self.forgetting).exp() * (averages - now)
        signed, positive = averages.split(FEATURES // 2, dim=-1)
        return torch.cat([signed, positive.clamp(min=_FLOOR).log()], dim=-1), averages

    def strangeness(self, features: Tensor, count: Tensor, old: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Measure features (..., C, FEATURES) by their own history.

        Returns:
            Standard deviations of the strangest feature (..., 1), and the statistics after this sample.
        """
        mean, variance = old["feature_mean"], old["feature_variance"]
        rate = (1 / (count + PRIOR_WEIGHT)).clamp(min=1 / MEMORY) @ self.ones
        deviation = features - mean
        standardised = deviation / (variance.sqrt() + _SPREAD_FLOOR)
        return standardised.abs().amax(dim=-1, keepdim=True).clamp(max=_CLIP), {
            "feature_mean": mean + rate * deviation,
            "feature_variance": variance + rate * (deviation * deviation - variance),
        }
