"""What training tells of itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from detector.errors import TidewardenError


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is logged of one pass over the data."""

    epoch: int
    train_loss: float
    validation_loss: float
    gradient_norm_median: float
    gradient_norm_max: float
    clipped_ratio: float
    """Share of the steps whose gradient was cut short."""
    seconds: float
    learning_rate: float = 0.0
    """At the end of the epoch."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """How training went; the detector itself holds the best weights."""

    epochs: list[Epoch]
    """The first, number 0, is how good the forecaster was before."""
    best: Epoch
    persistence_loss: float
    """Loss of the last value as a forecast, with the constant quantiles of its errors: the floor to beat."""
    reach: dict[str, list[float]] = field(default_factory=dict)
    """How far back gradients reach, by when that was measured: the norm 1, 2, ... samples back; see `reach`."""


class DivergedError(TidewardenError):
    """A loss or a gradient is no longer finite; the message names epoch, step, batch and streams."""
