"""Running scale: raw engineering units in, unit-free numbers out, from the first samples on.

Three things make raw units safe. *Origin*: the last observed value, kept as two float32 whose sum in float64 is exact to 2^-48; all
else is relative to it, so a counter at 1e12 keeps its steps of 1. *Robustness*: no single sample moves a statistic by more
than a few of its own units (Huber 1964). *Escape*: a scale that is far too small, as after a constant stretch, grows by more than half at every
sample until it fits, because the limit is taken from a quick scale as well as from the slow one.
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
_CLIP = 8.0  # of everything unit-free that the network sees


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
    rate: Tensor
    """1 / samples seen, this one included; at least 1 / MEMORY."""
    count: Tensor
    """Samples seen before this one."""
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
        Field("origin", 2),
        Field("mean"),
        Field("variance"),
        Field("change_scale", 2),  # slow, quick
        Field("last_change"),
    )
    rates: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rates", torch.tensor([1 / MEMORY, _QUICK]), persistent=False)

    def forward(self, values: Tensor, observed: Tensor, old: dict[str, Tensor]) -> tuple[Reading, dict[str, Tensor]]:
        """Take one sample (..., C, 1) of raw values.

        Returns:
            The reading, and the new fields; those of channels that are not known are to be dropped by the caller.
        """
        count = old["count"]
        high, low = old["origin"].double().split(1, dim=-1)
        origin = high + low

        # Selection, never multiplication: what stands in an unobserved cell touches nothing.
        known = (observed > 0.5) & (values.abs() < 3e38)
        kept = torch.where(known, values, origin)
        base = torch.where(count > 0, origin, kept)
        change = (kept - base).clamp(-_LARGEST, _LARGEST).float()
        new_high = kept.float()
        new_low = (kept - new_high.double()).float()

        next_count = (count + 1).clamp(max=COUNT_MAX)
        inverse = 1 / next_count
        early = count < _EARLY
        floor = (old["origin"].abs() * _RESOLUTION).split(1, dim=-1)[0].clamp(min=_SMALLEST)

        # Scale of changes.
        slow, quick = old["change_scale"].split(1, dim=-1)
        unit = torch.maximum(slow, floor)
        size = change.abs()
        counted = torch.where(early, size, torch.minimum(size, _CHANGE_LIMIT * torch.maximum(unit, quick)))
        scales = old["change_scale"] + torch.maximum(inverse, self.rates) * (counted - old["change_scale"])
        next_unit = torch.maximum(scales.split(1, dim=-1)[0], floor)

        # Mean and variance; the mean is relative to the origin and moves against it.
        rate = inverse.clamp(min=1 / MEMORY)
        deviation = change - old["mean"]
        reach = _DEVIATION_LIMIT * torch.maximum(old["variance"].sqrt(), 0.5 * unit)
        counted = torch.where(early, deviation, torch.minimum(torch.maximum(deviation, -reach), reach))
        variance = old["variance"] + rate * (counted.square() - old["variance"])
        spread = torch.maximum(variance.sqrt(), 0.5 * next_unit)
        # A counter's reset throws the mean so far off that float32 could not hold it; 1,000 spreads say as much.
        reach = (1e3 * spread).clamp(max=_LARGEST)
        mean = torch.minimum(torch.maximum(rate * counted - deviation, -reach), reach)

        reading = Reading(
            known=known,
            base=base,
            unit=unit,
            y=(change / unit).clamp(-1e6, 1e6),
            back=(old["mean"] / unit).clamp(-100, 100),
            momentum=(old["last_change"] / unit).clamp(-100, 100),
            rate=rate,
            count=count,
            z=(-mean / spread).clamp(-_CLIP, _CLIP),
            g=(change / next_unit).clamp(-_CLIP, _CLIP),
            ratio=next_unit / spread,
        )
        new = {
            "count": next_count,
            "origin": torch.cat([new_high, new_low], dim=-1),
            "mean": mean,
            "variance": variance,
            "change_scale": scales,
            "last_change": change,
        }
        return reading, new
