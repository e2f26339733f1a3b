"""Whole streams of every kind: several channels, units of every size, gaps, missing cells, irregular sampling."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from detector.demo.plant import CHANNELS, MONDAY_NS, Plant
from detector.records import Float64, Int64
from training.synthetic.dynamics import DYNAMICS
from training.synthetic.rhythms import RHYTHMS
from training.synthetic.shapes import SHAPES, Shape

KINDS: tuple[Shape, ...] = (*SHAPES, *RHYTHMS, *DYNAMICS)

_PERIODS_S = (0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0)


def streams(
    count: int, samples: int, most_channels: int, seed: int
) -> Iterator[tuple[str, tuple[str, ...], Int64, Float64]]:
    """Draw `count` streams: name, channels, event times (T,), values (T, C) with NaN where missing."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        channels = 1 + number % most_channels
        t = _times(rng, samples)
        values = np.stack([_channel(rng, number + 3 * c, t) for c in range(channels)], axis=1)
        _follow(rng, values)
        _lose(rng, values)
        period_ns = rng.choice(_PERIODS_S) * 1e9
        time_ns = MONDAY_NS + np.round(t * period_ns).astype(np.int64)
        yield f"synthetic-{number:04d}", tuple(f"c{c}" for c in range(channels)), time_ns, values


def pumps(count: int, hours: float, seed: int) -> Iterator[tuple[str, tuple[str, ...], Int64, Float64]]:
    """The demo's plant in normal operation, pump by pump."""
    plant = Plant(streams=count, seed=seed)
    chunks = list(plant.samples(hours=hours, faults=False))
    stream = np.concatenate([chunk.stream for chunk in chunks])
    event_ns = np.concatenate([chunk.event_ns for chunk in chunks])
    values = np.concatenate([chunk.values for chunk in chunks])
    for number, name in enumerate(plant.names):
        rows = np.flatnonzero(stream == number)
        yield name, CHANNELS, event_ns[rows], values[rows]


def _times(rng: np.random.Generator, samples: int) -> Float64:
    """(T,) event times in periods: regular, with jitter, or by events; sometimes with gaps."""
    kind = rng.choice(["regular", "jitter", "events"], p=[0.75, 0.15, 0.1])
    steps = {
        "regular": np.ones(samples),
        "jitter": rng.uniform(0.7, 1.3, samples),
        "events": rng.gamma(2.0, 0.5, samples) + 0.05,
    }[kind]
    if rng.random() < 0.5:
        steps = steps + np.where(rng.random(samples) < 0.002, rng.integers(2, 100, samples), 0)
    return np.cumsum(steps)


def _channel(rng: np.random.Generator, kind: int, t: Float64) -> Float64:
    """One kind, sometimes with another shape added or read coarsely, in units of any size."""
    shape = KINDS[kind % len(KINDS)]
    values = shape(rng, t)
    spread = max(float(np.std(values)), 1e-9)
    scale = 10.0 ** rng.uniform(-4.0, 6.0)
    offset = rng.choice([0.0, 1.0]) * rng.normal(0.0, 100.0) * scale * spread
    if shape in DYNAMICS:  # nobody can learn a law from what hides it
        return values * scale + offset
    if rng.random() < 0.3:
        other = SHAPES[rng.integers(len(SHAPES))](rng, t)
        values = values + other * (rng.uniform(0.05, 0.5) * spread / max(float(np.std(other)), 1e-9))
    values = values * scale + offset
    step = rng.choice([0.0, 0.02, 0.2]) * scale * spread  # the resolution of the sensor
    return np.round(values / step) * step if step else values


def _follow(rng: np.random.Generator, values: Float64) -> None:
    """Let some channels be driven by the first one, in place: a stream's channels are seldom strangers."""
    driver = (values[:, 0] - values[:, 0].mean()) / max(float(values[:, 0].std()), 1e-12)
    for c in range(1, values.shape[1]):
        if rng.random() < 0.5:
            lagged = np.roll(driver, int(rng.integers(0, 4)))
            values[:, c] += rng.uniform(-2.0, 2.0) * max(float(values[:, c].std()), 1e-12) * lagged


def _lose(rng: np.random.Generator, values: Float64) -> None:
    """Drop cells, in place: here and there, or a channel for a while."""
    if rng.random() < 0.4:
        values[rng.random(values.shape) < rng.choice([0.01, 0.1, 0.3])] = np.nan
    if rng.random() < 0.2 and values.shape[1] > 1:
        start, length = rng.integers(0, len(values)), rng.integers(10, 300)
        values[start : start + length, rng.integers(values.shape[1])] = np.nan
