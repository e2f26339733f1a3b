"""The shapes that sensor streams take: each function gives n samples of one channel, in units of its own.

All take a generator and the event times in periods (t, rising, not always by 1), so that irregular sampling changes
what is seen and not what happens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from detector.records import Float64

Shape = Callable[[np.random.Generator, Float64], Float64]


def seasonal(rng: np.random.Generator, t: Float64) -> Float64:
    """One to four harmonics of a cycle of 12 to 600 periods, with noise."""
    cycle = np.exp(rng.uniform(np.log(12.0), np.log(600.0)))
    waves = [
        rng.normal(0, 1 / k) * np.sin(2 * np.pi * (k * t / cycle + rng.random())) for k in range(1, rng.integers(2, 6))
    ]
    return np.sum(waves, axis=0) + rng.uniform(0.005, 0.3) * rng.standard_normal(len(t))


def autoregressive(rng: np.random.Generator, t: Float64) -> Float64:
    """A lagging quantity that is pushed about: decay over 1 to 100 periods, sometimes ringing."""
    keep = np.exp(-np.diff(t, prepend=t[0] - 1) / np.exp(rng.uniform(0.0, np.log(100.0))))
    turn = np.exp(1j * rng.choice([0.0, rng.uniform(0.02, 1.0)]))
    push = np.sqrt(1 - keep**2) * (rng.standard_normal(len(t)) + 1j * rng.standard_normal(len(t)))
    return _scan(keep * turn, push).real + rng.choice([0.0, 0.1]) * rng.standard_normal(len(t))


def random_walk(rng: np.random.Generator, t: Float64) -> Float64:
    """A level that wanders and never comes back, read with noise."""
    return np.cumsum(rng.standard_normal(len(t))) + rng.uniform(0.0, 2.0) * rng.standard_normal(len(t))


def telegraph(rng: np.random.Generator, t: Float64) -> Float64:
    """Two to four levels, jumping at random, with a little noise on them."""
    stay = np.exp(rng.uniform(np.log(10.0), np.log(200.0)))
    jumps = np.cumsum(rng.random(len(t)) < 1.0 / stay)
    levels = rng.normal(0, 1, rng.integers(2, 5))
    return rng.choice(levels, jumps[-1] + 1)[jumps] + rng.choice([0.0, 0.02, 0.1]) * rng.standard_normal(len(t))


def square(rng: np.random.Generator, t: Float64) -> Float64:
    """On and off by a schedule."""
    cycle, share = np.exp(rng.uniform(np.log(10.0), np.log(300.0))), rng.uniform(0.2, 0.8)
    return np.where((t / cycle + rng.random()) % 1.0 < share, 1.0, 0.0) + rng.choice([0.0, 0.05]) * rng.standard_normal(
        len(t)
    )


def sawtooth(rng: np.random.Generator, t: Float64) -> Float64:
    """Filling slowly, emptied at once."""
    cycle = np.exp(rng.uniform(np.log(15.0), np.log(300.0)))
    return (t / cycle + rng.random()) % 1.0 + rng.uniform(0.001, 0.05) * rng.standard_normal(len(t))


def heavy_tailed(rng: np.random.Generator, t: Float64) -> Float64:
    """Noise whose extremes are normal: Student's t with 2.2 to 8 degrees of freedom, or skewed."""
    noise = (
        rng.standard_t(rng.uniform(2.2, 8.0), len(t))
        if rng.random() < 0.6
        else rng.gamma(rng.uniform(0.5, 4.0), 1.0, len(t))
    )
    return noise * np.exp(rng.choice([0.0, 0.3]) * np.sin(2 * np.pi * t / rng.uniform(50.0, 500.0)))


def counts(rng: np.random.Generator, t: Float64) -> Float64:
    """Whole numbers: events per period at a rate that has its hours."""
    rate = np.exp(rng.uniform(np.log(0.2), np.log(200.0)))
    return rng.poisson(rate * np.exp(rng.uniform(0, 0.8) * np.sin(2 * np.pi * t / rng.uniform(50.0, 500.0)))).astype(
        np.float64
    )


def counter(rng: np.random.Generator, t: Float64) -> Float64:
    """A meter that only rises, reset now and then."""
    steps = rng.gamma(2.0, 0.5, len(t)) * np.diff(t, prepend=t[0] - 1)
    total = np.cumsum(steps)
    resets = np.sort(rng.integers(0, len(t), rng.integers(0, 3)))
    for reset in resets:
        total[reset:] -= total[reset]
    return total


def ramp(rng: np.random.Generator, t: Float64) -> Float64:
    """Straight pieces of changing slope."""
    turns = np.cumsum(rng.random(len(t)) < 1.0 / rng.uniform(50.0, 300.0))
    slope = rng.normal(0, 1, turns[-1] + 1)[turns]
    return np.cumsum(slope * np.diff(t, prepend=t[0] - 1)) + rng.uniform(0.0, 2.0) * rng.standard_normal(len(t))


SHAPES: tuple[Shape, ...] = (
    seasonal, autoregressive, random_walk, telegraph, square, sawtooth, heavy_tailed, counts, counter, ramp,
)  # fmt: skip


def _scan(keep: np.ndarray, push: np.ndarray) -> np.ndarray:
    """x[i] = keep[i] x[i-1] + push[i]."""
    result, x = np.empty_like(push), push[0]
    for i in range(len(push)):
        result[i] = x = keep[i] * x + push[i] if i else x
    return result
