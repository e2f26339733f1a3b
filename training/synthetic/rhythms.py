"""Rhythms that are never quite on time, loads that know the hour, and quantities that rest or stand at their limits.

The same signature as in `shapes`: n samples of one channel at event times t (in periods, rising).
"""

from __future__ import annotations

import numpy as np

from detector.records import Float64


def heartbeat(rng: np.random.Generator, t: Float64) -> Float64:
    """A pulse of three to five bumps, beat by beat, each beat of a slightly different length and height."""
    length = np.exp(rng.uniform(np.log(15.0), np.log(200.0)))
    phase, beat = _phase(rng, t, length, rng.uniform(0.005, 0.08))
    bumps = rng.integers(3, 6)
    centres, widths = rng.uniform(0.1, 0.9, bumps), np.exp(rng.uniform(np.log(0.01), np.log(0.1), bumps))
    heights = rng.normal(0.0, 1.0, bumps)
    pulse = np.exp(-0.5 * ((phase[:, None] - centres) / widths) ** 2) @ heights
    tall = 1.0 + rng.uniform(0.0, 0.1) * rng.standard_normal(beat[-1] + 1)
    return pulse * tall[beat] + rng.uniform(0.002, 0.05) * rng.standard_normal(len(t))


def quasi_periodic(rng: np.random.Generator, t: Float64) -> Float64:
    """Two to four cycles that never come back to the same place together, one of them slipping."""
    slipping, _ = _phase(rng, t, np.exp(rng.uniform(np.log(12.0), np.log(300.0))), rng.uniform(0.0, 0.05))
    waves = [np.sin(2 * np.pi * slipping)]
    for _ in range(rng.integers(1, 4)):
        cycle = np.exp(rng.uniform(np.log(8.0), np.log(500.0)))
        waves.append(rng.uniform(0.2, 1.0) * np.sin(2 * np.pi * (t / cycle + rng.random())))
    wave = np.sum(waves, axis=0) if rng.random() < 0.7 else np.prod(waves, axis=0)
    return wave + rng.uniform(0.002, 0.2) * rng.standard_normal(len(t))


def load_curve(rng: np.random.Generator, t: Float64) -> Float64:
    """What people use: mornings, evenings and nights, five days and two, by more on some days than on others."""
    day = float(rng.choice([24.0, 48.0, 96.0, 144.0, 288.0]))
    hour, number = (t / day + rng.random()) % 1.0, (t / day).astype(np.int64)
    bumps = rng.integers(1, 4)
    centres, widths = rng.uniform(0.2, 0.9, bumps), rng.uniform(0.03, 0.15, bumps)
    profile = np.exp(-0.5 * ((hour[:, None] - centres) / widths) ** 2) @ rng.uniform(0.3, 1.0, bumps)
    weekend = np.where((number + rng.integers(7)) % 7 >= 5, rng.uniform(0.3, 1.0), 1.0)
    busy = np.exp(rng.uniform(0.0, 0.15) * rng.standard_normal(number[-1] + 1))[number]
    noise = np.exp(rng.uniform(0.01, 0.2) * rng.standard_normal(len(t)))
    return (rng.uniform(0.05, 0.5) + profile * weekend * busy) * noise


def bounded(rng: np.random.Generator, t: Float64) -> Float64:
    """A share, a level or a valve that stands at one of its limits much of the time."""
    lag = np.exp(rng.uniform(np.log(3.0), np.log(100.0)))
    wander = _lagging(rng, len(t), lag) + rng.normal(0.0, 0.7)
    inside = np.clip(wander * rng.uniform(0.2, 1.0) + 0.5, 0.0, 1.0)
    return inside + rng.choice([0.0, 0.005]) * rng.standard_normal(len(t))


def intermittent(rng: np.random.Generator, t: Float64) -> Float64:
    """Nothing, and now and then a burst that dies away."""
    wait, fade = np.exp(rng.uniform(np.log(20.0), np.log(200.0))), np.exp(rng.uniform(0.0, np.log(30.0)))
    bursts = np.where(rng.random(len(t)) < 1.0 / wait, rng.gamma(2.0, 0.5, len(t)), 0.0)
    kernel = np.exp(-np.arange(int(8 * fade) + 1) / fade)
    return np.convolve(bursts, kernel)[: len(t)] + rng.choice([0.0, 0.01, 0.05]) * rng.standard_normal(len(t))


RHYTHMS = (heartbeat, quasi_periodic, load_curve, bounded, intermittent)


def _phase(rng: np.random.Generator, t: Float64, length: float, jitter: float) -> tuple[Float64, np.ndarray]:
    """Where in its beat (T,) and in which beat (T,) a clock stands whose beats differ by `jitter`."""
    beats = int((t[-1] - t[0]) / length * 2) + 10
    lengths = length * np.clip(1.0 + jitter * rng.standard_normal(beats), 0.6, 1.6)
    starts = np.cumsum(lengths) - lengths[0] * (1.0 + rng.random())
    where = np.interp(t - t[0], starts, np.arange(beats, dtype=np.float64))
    beat = where.astype(np.int64)
    return where - beat, beat


def _lagging(rng: np.random.Generator, steps: int, lag: float) -> Float64:
    """A first-order lag (steps,) of spread 1."""
    keep, x = np.exp(-1.0 / lag), float(rng.standard_normal())
    pushes = np.sqrt(1.0 - keep**2) * rng.standard_normal(steps)
    found = np.empty(steps)
    for i, push in enumerate(pushes):
        found[i] = x = keep * x + push
    return found
