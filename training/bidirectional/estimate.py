"""Both-sided estimates of a whole stream, in raw units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from detector.records import Float32, Float64, Int64
from detector.stages.infer import WallClock
from training.bidirectional.known import Bools, Known, Usual, around, usual
from training.bidirectional.model import BothSided


@dataclass(frozen=True, slots=True)
class Stretch:
    """Samples of one stream, ready to be read; T samples, C channels."""

    values: Float64
    """(T, C) raw units, NaN where missing."""
    periods: Float64
    """(T,) time in periods of the stream."""
    clock: Float32
    """(T, K)."""
    period_s: float
    normal: Usual

    def __len__(self) -> int:
        return len(self.values)

    @property
    def measured(self) -> Bools:
        """(T, C)."""
        return ~np.isnan(self.values)


def stretch(time_ns: Int64, values: Float64, zone: str) -> Stretch:
    """Make samples ready.

    Args:
        time_ns: (T,) event times, strictly rising.
        values: (T, C) raw units, NaN where missing.
        zone: Time zone of the clock features.
    """
    elapsed_ns = np.diff(time_ns)
    period_ns = float(np.median(elapsed_ns)) if len(elapsed_ns) else 1.0
    periods = (time_ns - time_ns[0]) / period_ns
    return Stretch(values, periods, WallClock(zone).features(time_ns), period_ns * 1e-9, usual(values, periods))


@dataclass(frozen=True, slots=True)
class Estimate:
    """What every cell should be, going by what is around it; (T, C) each, raw units."""

    lower: Float64
    centre: Float64
    upper: Float64


@torch.no_grad()
def estimate(model: BothSided, one: Stretch, shown: Bools) -> Estimate:
    """Estimate every cell from those around it that are shown (T, C)."""
    known = known_of([one], shown[None], [0], len(one))
    quantiles = model(known)[0].cpu().double().numpy()
    lower, centre, upper = np.moveaxis(quantiles * known.spread[0][..., None] + known.line[0][..., None], -1, 0)
    return Estimate(lower, centre, upper)


def known_of(stretches: list[Stretch], shown: Bools, starts: list[int], length: int) -> Known:
    """What is known of parts of equal length, one of each stretch; shorter ones are continued by nothing.

    Args:
        stretches: N of them.
        shown: (N, length, C).
        starts: Where each part begins.
        length: Samples.
    """
    N, C = len(stretches), stretches[0].values.shape[1]
    values, clock = np.zeros((N, length, C)), np.zeros((N, length, stretches[0].clock.shape[1]), np.float32)
    periods = np.tile(np.arange(float(length)), (N, 1))
    for row, (one, start) in enumerate(zip(stretches, starts, strict=True)):
        part = slice(start, start + length)
        n = len(one.values[part])
        values[row, :n], clock[row, :n] = one.values[part], one.clock[part]
        periods[row, :n] = one.periods[part]
        periods[row, n:] = one.periods[part][-1] + 1 + np.arange(length - n)
    normal = Usual(*(np.stack([getattr(one.normal, name) for one in stretches])[:, None]
                     for name in ("mean", "values", "changes")))  # fmt: skip
    return around(values, shown, periods, clock, normal)
