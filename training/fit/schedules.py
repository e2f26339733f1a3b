"""How the learning rate moves: a schedule is a function from the moment to a share of `fit.learning_rate`.

It is given all that it may look at and keeps nothing, so a run that was interrupted goes on where it was. Where a
schedule moves only between epochs, every step of an epoch has the same rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class Moment:
    """Where training is."""

    at: float
    """Epochs done, with the share of the one that is on."""
    losses: Sequence[float]
    """Validation losses so far, the first from before training."""

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return int(self.at)


Schedule: TypeAlias = Callable[[Moment, FitSettings], float]


def rate(moment: Moment, settings: FitSettings) -> float:
    """The learning rate of this moment: what the schedule says, ramped up from nothing during `fit.warm_up`."""
    ramp = min(1.0, moment.at / settings.warm_up) if settings.warm_up else 1.0
    return settings.learning_rate * ramp * SCHEDULES[settings.schedule](moment, settings)


def constant(moment: Moment, settings: FitSettings) -> float:
    """Always the same."""
    return 1.0


def step(moment: Moment, settings: FitSettings) -> float:
    """Times `decay` after every `cycle` epochs."""
    return float(settings.decay ** (moment.epoch // settings.cycle))


def exponential(moment: Moment, settings: FitSettings) -> float:
    """Times `decay` in every `cycle` epochs, a little after each."""
    return float(settings.decay ** (moment.epoch / settings.cycle))


def cosine(moment: Moment, settings: FitSettings) -> float:
    """Half a wave down to `lowest` after all epochs. Loshchilov and Hutter 2017, without restarts."""
    return _between(settings.lowest, 1.0, moment.epoch / (settings.epochs + 1))


def cyclical(moment: Moment, settings: FitSettings) -> float:
    """A triangle from `lowest` up to 1 and down again, one in `cycle` epochs. Smith 2017."""
    phase = moment.at / settings.cycle % 1
    return settings.lowest + (1 - settings.lowest) * (1 - abs(2 * phase - 1))


def one_cycle(moment: Moment, settings: FitSettings) -> float:
    """Up from `lowest` during the first third of all epochs, then down to a hundredth of it. Smith and Topin 2018."""
    done = moment.at / settings.epochs
    if done < 1 / 3:
        return _between(settings.lowest, 1.0, 1 - 3 * done)
    return _between(settings.lowest / 100, 1.0, 1.5 * done - 0.5)


def plateau(moment: Moment, settings: FitSettings) -> float:
    """Times `decay` whenever the validation loss has not become better for `cycle` epochs."""
    best, since, share = math.inf, 0, 1.0
    for loss in moment.losses:
        best, since = (loss, 0) if loss < best else (best, since + 1)
        if since == settings.cycle:
            share, since = share * settings.decay, 0
    return max(share, settings.lowest)


def _between(low: float, high: float, done: float) -> float:
    """Half a cosine wave from high (done = 0) down to low (done = 1)."""
    return low + (high - low) * (1 + math.cos(math.pi * done)) / 2


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "cyclical": cyclical,
    "one_cycle": one_cycle,
    "plateau": plateau,
}
"""Every schedule by the name that configuration uses."""
