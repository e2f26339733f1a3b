"""Eight kinds of streams that stay as they are: what calibrated surprise is measured on, and never learnt from.

Each function gives n samples of one channel, regular in time, whose law does not change from the first to the last;
the parameters differ from stream to stream and stay within what a sensor or a service shows. Nothing in them is an
anomaly, so whoever promises one sample in 1,000 above 3 nines must find about one in 1,000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from detector.records import Float64

Kind = Callable[[np.random.Generator, int], Float64]


def gaussian(rng: np.random.Generator, n: int) -> Float64:
    """White noise."""
    return rng.standard_normal(n)


def heavy_tailed(rng: np.random.Generator, n: int) -> Float64:
    """Student's t with 3 degrees of freedom: its extremes are normal."""
    return rng.standard_t(3.0, n)


def autocorrelated(rng: np.random.Generator, n: int) -> Float64:
    """A lagging quantity that forgets over 2 to 100 samples."""
    keep = float(np.exp(-1.0 / np.exp(rng.uniform(np.log(2.0), np.log(100.0)))))
    return _lag(keep, rng.standard_normal(n)) + 0.1 * rng.standard_normal(n)


def seasonal(rng: np.random.Generator, n: int) -> Float64:
    """Two harmonics of a cycle of 24 to 1,440 samples, with noise."""
    turns = np.arange(n) / float(np.exp(rng.uniform(np.log(24.0), np.log(1_440.0))))
    wave: Float64 = np.sin(2 * np.pi * (turns + rng.random())) + 0.5 * np.sin(4 * np.pi * (turns + rng.random()))
    return wave + rng.uniform(0.05, 0.3) * rng.standard_normal(n)


def counts(rng: np.random.Generator, n: int) -> Float64:
    """Events per period, Poisson, at a rate of 0.1 to 100."""
    return rng.poisson(np.exp(rng.uniform(np.log(0.1), np.log(100.0))), n).astype(np.float64)


def bounded(rng: np.random.Generator, n: int) -> Float64:
    """A share between 0 and 1 that is often near a bound: Beta noise, mixed over a few samples."""
    fresh = rng.beta(rng.uniform(0.5, 3.0), rng.uniform(0.5, 3.0), n + 3)
    return (fresh[:-3] + fresh[1:-2] + fresh[2:-1] + fresh[3:]) / 4


def regime_switching(rng: np.random.Generator, n: int) -> Float64:
    """Three states of their own level and noise, each held for 100 to 1,000 samples in the mean."""
    stay = np.exp(rng.uniform(np.log(100.0), np.log(1_000.0)))
    visit = np.cumsum(rng.random(n) < 1.0 / stay)
    state = rng.integers(0, 3, visit[-1] + 1)[visit]
    values: Float64 = 3.0 * state + rng.uniform(0.3, 1.5, 3)[state] * rng.standard_normal(n)
    return values


def intermittent(rng: np.random.Generator, n: int) -> Float64:
    """Nothing most of the time, and now and then a pulse of some size that decays within a few samples."""
    pulses = np.where(rng.random(n) < np.exp(rng.uniform(np.log(0.005), np.log(0.1))), rng.gamma(2.0, 1.0, n), 0.0)
    return _lag(0.5, pulses) + 0.01 * rng.standard_normal(n)


KINDS: Mapping[str, Kind] = {
    kind.__name__: kind
    for kind in (
        gaussian, heavy_tailed, autocorrelated, seasonal, counts, bounded, regime_switching, intermittent,
    )
}  # fmt: skip


def stationary(kind: str, samples: int, seed: int) -> Float64:
    """Draw one stream of a kind, (samples,); the same seed gives the same stream, and a longer one goes on with it.

    Raises:
        KeyError: There is no such kind.
    """
    return KINDS[kind](np.random.default_rng([list(KINDS).index(kind), seed]), samples)


def _lag(keep: float, push: Float64) -> Float64:
    """x[i] = keep x[i-1] + push[i], from a state of its long-run spread on."""
    result, x = np.empty_like(push), push[0] / np.sqrt(1.0 - keep * keep)
    for i, step in enumerate(push):
        result[i] = x = keep * x + step
    return result
