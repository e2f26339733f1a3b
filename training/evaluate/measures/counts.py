"""How far a counted share or a counted rate may be trusted."""

from __future__ import annotations

import math

from training.evaluate.measures.bootstrap import Interval

_NORMAL_95 = 1.959964  # two-sided 95 % quantile of the normal distribution
_TAIL = 0.025
_HALVINGS = 60  # of the range in which a limit is sought: past double precision


def share_interval(hits: int, trials: int) -> Interval:
    """Share of hits with Wilson's 95 % interval (Wilson 1927), which holds for no hits and for hits alone too."""
    if not trials:
        return Interval(math.nan, math.nan, math.nan, 0)
    share, square = hits / trials, _NORMAL_95**2
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = _NORMAL_95 / (1 + square / trials) * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), trials)


def rate_interval(events: int, exposure: float) -> Interval:
    """Events per unit of exposure with the exact 95 % Poisson interval (Garwood 1936).

    Args:
        events: How many were counted.
        exposure: For how long, say in days; NaN or 0 gives NaN.
    """
    if not exposure > 0:
        return Interval(math.nan, math.nan, math.nan, events)
    low = _solve(events - 1, 1 - _TAIL) if events else 0.0
    return Interval(events / exposure, low / exposure, _solve(events, _TAIL) / exposure, events)


def _solve(events: int, probability: float) -> float:
    """The mean at which at most so many events have this probability, which falls as the mean grows: by halving."""
    low, high = 0.0, events + 10 * math.sqrt(events + 1) + 10
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _at_most(events, middle) > probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _at_most(events: int, mean: float) -> float:
    """Poisson probability of at most so many events."""
    return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(events + 1))
