"""How one detector decides: its settings with the bundle's defaults filled in, and the threshold they lead to.

    threshold = log10(samples per day / (budget x exceedances per alarm)) + correction

Both estimates start at the bundle's values and follow the stream's own. The correction closes the loop: it falls as
time passes, by a step for each alarm that the budget promises, and rises by a step with each alarm, so that in the
long run there are as many as promised, however far out scores stop meaning what they say (Robbins and Monro 1951).
It stays within 2 nines, and an anomaly too long for a false alarm does not count.

All of it is element by element and, but for comparisons, made of + - x / alone, which IEEE 754 rounds the same
everywhere: a stream's threshold has the same bits whatever the wave around it, the position in it and the machine.
`np.log10` has not: NumPy takes another routine per CPU (of 1,000 random values, 53 differ from the C library's in the
last bit on an AVX-512 machine).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detector.records import Float32, Float64
from detector.settings import DecideSettings
from detector.stages.decide.columns import PRIOR_SAMPLES, Rows, new_rows

_S_PER_DAY = 86_400.0
_BUDGET_PER_DAY = 1.0  # where neither settings nor bundle name a budget or a threshold
_LEAST_NINES, _MOST_NINES = 0.5, 12.0  # of a threshold that follows from a budget
_PRIOR_CLUSTERS = 10.0  # what the bundle's exceedances per alarm are worth against the stream's own
_RATE_MEMORY = 100_000  # samples; the mean elapsed forgets beyond, so that a stream may change its rate
_LONGEST_ELAPSED = 100.0  # means; one long gap counts for at most so many, else it would lower the threshold for days
_MOST_CORRECTION = 2.0  # nines, either way
_FIRST_STEP, _LEAST_STEP = 0.43, 0.05  # nines; the former is an e-fold, as 10 ** -nines falls
_LEAST_LOW = 1 / 3  # of the threshold; an anomaly over a low one could else hardly end
_LARGEST_CLUSTER = 10.0  # times the bundle's; an anomaly of more strange samples is taken for a true one
_LONGEST_S = 1e9  # 31 years; more would not fit an int64 of nanoseconds beside an event time


class BundleDefaults(Protocol):
    """The part of a bundle that `decide` reads."""

    @property
    def budget_per_day(self) -> float | None:
        """Alarms per stream per day."""
        ...

    @property
    def exceedances_per_alarm(self) -> float:
        """Strange samples that come in one cluster."""
        ...

    @property
    def threshold_nines(self) -> float | None:
        """A fixed threshold, or None for one that follows from the budget."""
        ...

    @property
    def period_s(self) -> float | None:
        """Nominal seconds between samples; None for any."""
        ...

    @property
    def warm_up(self) -> int:
        """Samples of a new stream during which the score is 0."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """How one detector decides; times in the unit in which they are compared."""

    threshold_nines: float | None
    """Fixed threshold; None follows the budget."""
    budget_per_day: float
    exceedances_per_alarm: float
    period_s: float | None
    warm_up: int
    min_samples: int
    hysteresis_nines: float
    resolve_samples: int
    resolve_after_s: float
    resolve_after_ns: int
    adapt_after_ns: int
    update_every_ns: int
    cool_down_ns: int

    @classmethod
    def of(cls, settings: DecideSettings, bundle: BundleDefaults) -> Policy:
        """Fill what the settings leave open from the bundle; a budget set here replaces a fixed threshold there."""
        threshold = settings.threshold_nines
        if threshold is None and settings.budget_per_day is None:
            threshold = bundle.threshold_nines
        return cls(
            threshold_nines=threshold,
            budget_per_day=settings.budget_per_day or bundle.budget_per_day or _BUDGET_PER_DAY,
            exceedances_per_alarm=bundle.exceedances_per_alarm,
            period_s=bundle.period_s,
            warm_up=bundle.warm_up,
            min_samples=settings.min_samples,
            hysteresis_nines=settings.hysteresis_nines,
            resolve_samples=settings.resolve_samples,
            resolve_after_s=settings.resolve_after_s,
            resolve_after_ns=_ns(settings.resolve_after_s),
            adapt_after_ns=_ns(settings.adapt_after_s),
            update_every_ns=_ns(settings.update_every_s),
            cool_down_ns=_ns(settings.cool_down_s),
        )

    @property
    def largest_cluster(self) -> float:
        """Most strange samples of an anomaly that still tell how large clusters are."""
        return _LARGEST_CLUSTER * self.exceedances_per_alarm

    def low_below(self, threshold: Float32) -> Float64:
        """The score below which a sample is low."""
        exact = threshold.astype(np.float64)
        return np.maximum(exact - self.hysteresis_nines, exact * _LEAST_LOW)

    def thresholds(
        self,
        elapsed_mean_s: Float64,
        exceedances: NDArray[np.int64],
        clusters: NDArray[np.int64],
        correction: Float64,
    ) -> Float32:
        """The threshold of each stream, in nines, as the float32 that scores are compared with."""
        if self.threshold_nines is not None:
            return np.full(len(elapsed_mean_s), self.threshold_nines, np.float32)
        per_alarm = (_PRIOR_CLUSTERS * self.exceedances_per_alarm + exceedances) / (_PRIOR_CLUSTERS + clusters)
        share = elapsed_mean_s * (self.budget_per_day / _S_PER_DAY) * per_alarm  # of the samples may exceed
        nines = correction - _log10(np.maximum(share, 10.0**-_MOST_NINES))
        return np.minimum(np.maximum(nines, _LEAST_NINES), _MOST_NINES).astype(np.float32)


def initial_decide(policy: Policy, count: int) -> Rows:
    """Make the rows of streams that were never seen."""
    return new_rows(count, policy.period_s)


def follow_rate(
    mean_s: Float64, count: NDArray[np.int64], elapsed_s: Float64, rests: NDArray[np.bool_]
) -> tuple[Float64, NDArray[np.int64], Float64]:
    """Take one more elapsed into each running mean.

    A first sample (elapsed 0) and a stream with an open anomaly rest. A mean of 0 is not known yet and starts at the
    first elapsed.

    Returns:
        The means, the samples that each is worth, and the elapsed that counted, 0 where it rests.
    """
    rests = rests | (elapsed_s <= 0.0)
    known = mean_s > 0.0
    weight = np.minimum(count + 1, _RATE_MEMORY)
    counted = np.minimum(elapsed_s, _LONGEST_ELAPSED * mean_s)
    mean = np.where(rests, mean_s, np.where(known, mean_s + (counted - mean_s) / weight, elapsed_s))
    return mean, np.where(rests | ~known, count, weight), np.where(rests, 0.0, counted)


def fall(
    correction: Float64, alarms: NDArray[np.int64], counted_s: Float64, count: NDArray[np.int64], policy: Policy
) -> Float64:
    """Let corrections fall with time that was judged, by a step for each alarm that is promised in it.

    The warm-up was not judged, and `count` tells when it is over.
    """
    judged_s = np.where(count > PRIOR_SAMPLES + policy.warm_up, counted_s, 0.0)
    promised = judged_s * (policy.budget_per_day / _S_PER_DAY)
    return np.maximum(correction - _step(alarms) * promised, -_MOST_CORRECTION)


def rise(correction: Float64, alarms: NDArray[np.int64]) -> Float64:
    """Raise corrections by the step of one more alarm."""
    return np.minimum(correction + _step(alarms), _MOST_CORRECTION)


def _step(alarms: NDArray[np.int64]) -> Float64:
    """Nines per alarm, fewer the more there have been."""
    return np.maximum(_FIRST_STEP / (alarms + 1), _LEAST_STEP)


_HALF_ROOT = 0.7071067811865476  # sqrt(1/2), middle of the mantissa's range by ratio
_LOG10_2 = 0.3010299956639812
_TWO_OVER_LN_10 = 0.8685889638065036


def _log10(x: Float64) -> Float64:
    """Common logarithm of positive numbers within 1e-11, in operations that are rounded the same everywhere.

    x = m 2^e and log m = log c + 2 artanh((m - c) / (m + c)); |that ratio| <= 0.172, so six terms do.
    """
    mantissa, exponent = np.frexp(x)
    s = (mantissa - _HALF_ROOT) / (mantissa + _HALF_ROOT)
    q = s * s
    series = s * (1.0 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11))))))
    return (exponent - 0.5) * _LOG10_2 + _TWO_OVER_LN_10 * series


def _ns(seconds: float) -> int:
    return round(min(seconds, _LONGEST_S) * 1e9)
