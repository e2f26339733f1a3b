"""Running scale: raw engineering units in, unit-free numbers out, from the first samples on.

*Origin*: the last observed value, kept as two float32 whose sum in float64 is exact to 48 bits. Changes are
relative to it, so a counter at 1e12 keeps its steps of 1. *Robustness*: no single sample moves a statistic by more
than a few of its own units (Huber 1964). *Escape*: a scale that is far too small, as after a constant stretch,
grows by half at every sample until it fits, because what a change may count for is taken from a quick scale as well
as from the slow one.

Selection (`where`) is what keeps unobserved cells out; it stands at the entrance only, for it is slow. Behind it
everything is finite and arithmetic may take over.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.graph.layout import Field

MEMORY = 20_000.0  # samples; the slowest rate at which anything is learnt is 1 / MEMORY
COUNT_MAX = 2.0**24  # float32 counts exactly up to here; counts stop there by design
_EARLY = 16.0  # samples during which nothing is clipped, for there is no scale to clip by yet
_QUICK = 1 / 16  # rate of the quick scale that lets the slow one escape
_CHANGE_LIMIT = 10.0  # change scales; what a single change may count for
_DEVIATION_LIMIT = 6.0  # standard deviations; the same for a level
_LARGEST = 1e18  # raw units; its square still is a float32
_SMALLEST = 1e-18  # raw units; scale of a channel that never moved
_RESOLUTION = 1e-12  # of the level; smaller changes are rounding, not signal
_FAR = 100.0  # of everything unit-free


class Reading(NamedTuple):
    """One sample as the rest of the graph sees it; every tensor (..., C, 1)."""

    known: Tensor
    """bool; whether the channel was observed with a usable value."""
    base: Tensor
    """float64, raw units; what forecasts are relative to."""
    unit: Tensor
    """Raw units; scale of changes before this sample: the unit of forecasts."""
    y: Tensor
    """Change since the last observed value in `unit`s: what was to be forecast."""
    back: Tensor
    """How far it was back to the mean, before this sample, in `unit`s."""
    momentum: Tensor
    """The change before this one, in `unit`s."""
    count: Tensor
    """Samples seen before this one."""
    rate: Tensor
    """1 / samples seen, this one included; at least 1 / MEMORY."""
    z: Tensor
    """Level: deviation from the running mean in standard deviations."""
    g: Tensor
    """Change in running change scales."""
    ratio: Tensor
    """Change scale over standard deviation: 0 for a smooth channel, about 1 for noise."""


class Scale(nn.Module):
    """Running mean, variance and change scale of each channel."""

    FIELDS = (
        Field("count"),
        Field("origin_high"),
        Field("origin_low"),
        Field("mean_high"),
        Field("mean_low"),
        Field("variance"),
        Field("change_scale"),
        Field("quick_scale"),
        Field("last_change"),
    )

    def forward(
        self, values: Tensor, observed: Tensor, learning: Tensor, old: dict[str, Tensor]
    ) -> tuple[Reading, dict[str, Tensor]]:
        """Take one sample (..., C, 1) of raw values.

        Args:
            values: float64; anything where not observed.
            observed: 1 where measured.
            learning: (..., 1, 1) 0 leaves mean, variance and change scales as they are, 1 learns them.
            old: The fields before this sample.

        Returns:
            The reading, and the new fields; those of channels that are not known are to be dropped by the caller.
        """
        count = old["count"]
        origin, past_mean = _double(old, "origin"), _double(old, "mean")
        known = (observed > 0.5) & (values.abs() < 3e38)
        kept = torch.where(known, values, origin)
        begun = count.clamp(max=1.0)  # 0 at the first sample, which has no change, is its own forecast and the mean
        first = (1 - begun).double() * kept
        base, past_mean = origin + first, past_mean + first
        change = _single(kept - base)

        # A frozen stream's samples do not count, but for the very first, without which there is nothing to go by.
        next_count = (count + torch.maximum(learning, 1 - begun)).clamp(max=COUNT_MAX)
        pace = (1 / (count + 1)).clamp(min=1 / MEMORY)
        rate = pace * learning
        floor = (old["origin_high"].abs() * _RESOLUTION).clamp(min=_SMALLEST)
        slack = (count < _EARLY).float() * _LARGEST

        # Scale of changes.
        slow, quick = old["change_scale"], old["quick_scale"]
        unit = torch.maximum(slow, floor)
        size = torch.minimum(change.abs(), torch.maximum(unit, quick) * _CHANGE_LIMIT + slack)
        new_slow = slow + rate * (size - slow)
        new_quick = quick + pace.clamp(min=_QUICK) * learning * (size - quick)
        new_unit = torch.maximum(new_slow, floor)

        # Mean and variance.
        deviation = _single(kept - past_mean)
        reach = torch.maximum(old["variance"].sqrt(), unit * 0.5) * _DEVIATION_LIMIT + slack
        counted = torch.minimum(torch.maximum(deviation, -reach), reach)
        variance = old["variance"] + rate * (counted * counted - old["variance"])
        spread = torch.maximum(variance.sqrt(), new_unit * 0.5)
        moved = rate * counted
        mean = past_mean + moved.double()

        reading = Reading(
            known=known,
            base=base,
            unit=unit,
            y=(change / unit).clamp(-1e6, 1e6),
            back=(_single(past_mean - base) / unit).clamp(-_FAR, _FAR),
            momentum=(old["last_change"] / unit).clamp(-_FAR, _FAR),
            count=count,
            rate=pace,
            z=((deviation - moved) / spread).clamp(-_FAR, _FAR),
            g=(change / new_unit).clamp(-_FAR, _FAR),
            ratio=new_unit / spread,
        )
        origin_high, origin_low = _two_singles(kept)
        mean_high, mean_low = _two_singles(mean)
        new = {
            "count": next_count,
            "origin_high": origin_high,
            "origin_low": origin_low,
            "mean_high": mean_high,
            "mean_low": mean_low,
            "variance": variance,
            "change_scale": new_slow,
            "quick_scale": new_quick,
            "last_change": change,
        }
        return reading, new


def _double(fields: dict[str, Tensor], name: str) -> Tensor:
    """A number that the row keeps as two float32."""
    return fields[f"{name}_high"].double() + fields[f"{name}_low"].double()


def _two_singles(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split a float64 into two float32 whose sum is it, to 48 bits."""
    high = x.float()
    return high, (x - high.double()).float()


def _single(x: Tensor) -> Tensor:
    """A difference of raw values, as float32."""
    return x.clamp(-_LARGEST, _LARGEST).float()
