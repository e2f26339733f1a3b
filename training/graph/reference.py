"""Reference: how far a channel's level lies from where it used to lie, for faults that last.

What learns at every sample forgets: a valve that stays half closed is strange for a minute and then normal. So the
level, averaged over 16 periods, is also measured against a running median and a running median deviation, which a
fault shorter than the past does not move and a longer one does: nothing is gated and nothing can lock.

How much such a distance is worth depends on how often the level has been seen to come back: one that crossed its
median a hundred times is known, a drift that never did is not. Its crossings are the degrees of freedom of a Student
distribution, and the evidence, in nats, its negative log density relative to the centre:

    E = (nu + 1) / 2 ln(1 + t^2 / nu)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.graph.layout import SAFE_LOG, Field

_YOUNG = 100.0  # samples during which nothing is said, and nothing clipped
_CROSSING_AFTER = 16.0
_PER_LOOK = 4.0  # crossings that count for one independent look at the level
_LOOKS_MIN, _LOOKS_MAX = 0.5, 20.0
_CLEARLY = 0.25  # deviations beyond the median from which a side is taken
_CLIPPED_NORMAL = 1.94  # variance of a normal variable over that of the same clipped at one deviation
_LEAST = 1e-3  # standard deviations of the channel


class Reference(nn.Module):
    """Where the level of one channel used to lie."""

    fields = (
        Field("usual_level"),
        Field("usual_variance"),
        Field("crossings"),
        Field("side"),
    )
    ones: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ones", torch.ones(1, SAFE_LOG), persistent=False)

    def forward(
        self, level: Tensor, count: Tensor, rate: Tensor, old: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare the level with the usual one.

        Args:
            level: (..., 1) averaged, in standard deviations.
            count: Samples before.
            rate: At which to learn.
            old: The fields before this sample.

        Returns:
            The evidence in nats, 0 for a young channel, and the fields after this sample.
        """
        learns = (rate > 0).float()
        away = level - old["usual_level"]
        deviation = old["usual_variance"].clamp(min=_LEAST**2).sqrt()
        looks = (old["crossings"] / _PER_LOOK).clamp(_LOOKS_MIN, _LOOKS_MAX)
        t_squared = away * away / (deviation * deviation * (1 + 1 / looks.clamp(min=1.0)))
        mature = (count >= _YOUNG).float()
        nats = (looks + 1) * 0.5 * ((1 + t_squared / looks) @ self.ones).log()[..., :1]

        limit = deviation + (1 - mature) * 1e6
        step = torch.minimum(torch.maximum(away, -limit), limit)
        side = torch.where(away.abs() > _CLEARLY * deviation, away.sign(), old["side"])
        crossed = (side * old["side"] < 0).float() * (count > _CROSSING_AFTER).float()
        return mature * nats, {
            "usual_level": old["usual_level"] + rate * step,
            "usual_variance": old["usual_variance"]
            + rate * (_CLIPPED_NORMAL * (1 - rate) * step * step - old["usual_variance"]),
            "crossings": (old["crossings"] + learns * crossed).clamp(max=1e6),
            "side": old["side"] + learns * (side - old["side"]),
        }
