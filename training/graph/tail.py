"""Tail: how improbable is so much strangeness, for this stream?

Keeps the running median and the running 98 % quantile of the strangeness u, which is in standard deviations, by
stochastic approximation (Robbins and Monro 1951), and the mean excess above the latter. Above it the tail is
exponential:

    nines(u) = 0.3 at the median, 1.7 at the 98 % quantile, linear between; + log10(e) * excess / mean excess above

All starts from the pooled values that calibration writes into the initial row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.graph.layout import Field
from training.graph.scale import MEMORY

_PLACE_WEIGHT = 250.0  # samples that calibrated median and quantile count for in a new stream
_EXCESS_WEIGHT = 1_000.0  # the same for the mean excess, of which only one sample in 50 tells anything
SCORE_MAX = 15.0  # nines

_TAIL = 0.02  # share of samples above the high quantile
_MEDIAN_NINES, _HIGH_NINES = -math.log10(0.5), -math.log10(_TAIL)
_EXCESS_LIMIT = 8.0  # mean excesses; what a single sample may count for
_EXCESS_MIN = 0.05  # standard deviations; keeps the score of a stream without tail finite
_BODY_MIN = 0.1  # standard deviations between median and high quantile


class Tail(nn.Module):
    """Turns strangeness into nines."""

    FIELDS = (Field("median", initial=1.6), Field("high", initial=2.7), Field("excess", initial=0.6))

    def forward(self, u: Tensor, live: Tensor, age: Tensor, old: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Score one sample.

        Args:
            u: Strangeness, in standard deviations (..., 1).
            live: 1 once the warm-up is over, else 0: nothing is scored and nothing learnt.
            age: Samples since the warm-up.
            old: The fields before this sample.

        Returns:
            The score in nines, and the fields after this sample.
        """
        median, high, excess = old["median"], old["high"], old["excess"]
        body = (high - median).clamp(min=_BODY_MIN)
        over = u - high
        position = (u - median) / body
        nines = (_MEDIAN_NINES + (_HIGH_NINES - _MEDIAN_NINES) * position).clamp(0.0, _HIGH_NINES)
        nines = nines + math.log10(math.e) * over.clamp(min=0.0) / excess
        score = live * nines.clamp(max=SCORE_MAX)

        rate = live * (1 / (age + _PLACE_WEIGHT)).clamp(min=1 / MEMORY)
        above = live * (over > 0).float() / _TAIL
        learning = above / (age + _EXCESS_WEIGHT).clamp(max=MEMORY)
        # A step of 1 / density: 1.2 bodies at the median of a bell, mean excess / share at the start of the tail.
        moved = 1.2 * rate * body * ((position > 0).float() - 0.5)
        shortened = torch.minimum(over, _EXCESS_LIMIT * excess)
        return score, {
            "median": median + moved,
            "high": high + excess * rate * (above - 1),
            "excess": (excess + learning * (shortened - excess)).clamp(min=_EXCESS_MIN),
        }
