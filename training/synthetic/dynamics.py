"""Nonlinear dynamics: streams whose next value follows from their past by a rule that no straight line can learn.

Chaotic systems with random parameters, sampled at random rates, read through one of their coordinates with a little
noise. They are here so that the forecaster learns to find such a rule in a stream's own past. Each function gives n
samples at event times t (in periods, rising), like the shapes in `shapes`; which system, which regime and how many
samples its cycle takes are drawn from `rng`.

Systems: Mackey and Glass 1977, Ikeda 1979 (delays), Lorenz 1963, Roessler 1976, forced Duffing, pendulum and van der
Pol oscillators (flows), Henon 1976, logistic and coupled logistic maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from detector.records import Float64

_STEPS_A_CYCLE = 40.0  # of an integrated orbit, at least
_STEPS_A_DELAY = 40  # of a delay system, at least
_DELAYS = (6.0, 30.0)  # periods; a longer one would not be seen in the last 32 samples
_SETTLING_CYCLES = 20.0  # until an orbit has found its attractor

Point = tuple[float, ...]


def mackey_glass(rng: np.random.Generator, t: Float64) -> Float64:
    """Blood cells that are made by how many there were a while ago."""
    birth, steepness, death, delay = rng.uniform(0.18, 0.32), rng.uniform(8.0, 13.0), 0.1, rng.uniform(14.0, 30.0)

    def rule(x: float, past: float) -> float:
        return birth * past / (1.0 + abs(past) ** steepness) - death * x

    return _read(rng, _delayed(rule, delay, rng.uniform(0.5, 1.3), t, _log_uniform(rng, *_DELAYS)))


def ikeda(rng: np.random.Generator, t: Float64) -> Float64:
    """Light that is turned by the light of one round before."""
    gain, phase, delay = rng.uniform(3.0, 6.0), rng.uniform(-1.0, 1.0), rng.uniform(2.0, 5.0)

    def rule(x: float, past: float) -> float:
        return gain * math.sin(past - phase) - x

    return _read(rng, _delayed(rule, delay, rng.uniform(0.1, 2.0), t, _log_uniform(rng, *_DELAYS)))


def lorenz(rng: np.random.Generator, t: Float64) -> Float64:
    """Convection that turns one way and then the other."""
    sigma, rho, beta = rng.uniform(8.0, 12.0), rng.uniform(26.0, 45.0), rng.uniform(2.2, 3.2)

    def rule(x: float, y: float, z: float) -> Point:
        return sigma * (y - x), x * (rho - z) - y, x * y - beta * z

    return _read(rng, _flow(rule, (1.0, rng.uniform(0.5, 2.0), 20.0), 0.75, rng, t))


def roessler(rng: np.random.Generator, t: Float64) -> Float64:
    """A spiral that is thrown back to its middle now and then."""
    a, b, c = rng.uniform(0.15, 0.25), 0.2, rng.uniform(5.0, 9.0)

    def rule(x: float, y: float, z: float) -> Point:
        return -y - z, x + a * y, b + z * (x - c)

    return _read(rng, _flow(rule, (rng.uniform(1.0, 3.0), 1.0, 0.1), 6.0, rng, t))


def duffing(rng: np.random.Generator, t: Float64) -> Float64:
    """A shaken beam between two magnets."""
    friction, force, pace = rng.uniform(0.15, 0.3), rng.uniform(0.3, 0.5), rng.uniform(1.0, 1.3)

    def rule(x: float, v: float, angle: float) -> Point:
        return v, x - x**3 - friction * v + force * math.cos(angle), pace

    return _read(rng, _flow(rule, (rng.uniform(0.2, 1.0), 0.0, 0.0), 2 * math.pi / pace, rng, t), hidden=1)


def pendulum(rng: np.random.Generator, t: Float64) -> Float64:
    """A pendulum that is pushed in a rhythm which is not its own; its height is what is read."""
    friction, force, pace = rng.uniform(0.4, 0.6), rng.uniform(1.1, 1.6), rng.uniform(0.6, 0.7)

    def rule(x: float, v: float, angle: float) -> Point:
        return v, -math.sin(x) - friction * v + force * math.cos(angle), pace

    orbit = _flow(rule, (rng.uniform(0.2, 1.0), 0.0, 0.0), 2 * math.pi, rng, t)
    return _read(rng, np.stack([np.cos(orbit[:, 0] + rng.uniform(0.0, 3.0)), orbit[:, 1]], axis=1))


def van_der_pol(rng: np.random.Generator, t: Float64) -> Float64:
    """A beating heart with a second pacemaker: cycles that lock, slip and change their length."""
    stiffness, force, pace = rng.uniform(0.5, 6.0), rng.uniform(0.0, 3.0), rng.uniform(0.5, 4.0)

    def rule(x: float, v: float, angle: float) -> Point:
        return v, stiffness * (1.0 - x * x) * v - x + force * math.cos(angle), pace

    return _read(rng, _flow(rule, (rng.uniform(0.5, 2.0), 0.0, 0.0), 3.0, rng, t), hidden=1)


def chaotic_map(rng: np.random.Generator, t: Float64) -> Float64:
    """Henon, logistic and coupled logistic maps: as rough as noise, and known from the last values nevertheless."""
    kind, steps = rng.integers(3), len(t)
    x, y = rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.3)
    a, b = (rng.uniform(1.2, 1.4), 0.3) if kind == 0 else (rng.uniform(3.7, 4.0), rng.uniform(0.0, 0.2))
    orbit = np.empty((steps, 2))
    for i in range(-100, steps):
        if kind == 0:
            x, y = 1.0 - a * x * x + b * y, x
        else:
            x, y = a * x * (1.0 - x), a * y * (1.0 - y)
            if kind == 2:
                x, y = x + b * (y - x), y + b * (x - y)
        orbit[max(i, 0)] = x, y
    return _read(rng, orbit)


DYNAMICS = (mackey_glass, lorenz, ikeda, mackey_glass, chaotic_map, mackey_glass, roessler, duffing, mackey_glass,
            ikeda, pendulum, mackey_glass, van_der_pol)  # fmt: skip
"""Delays stand in it more often: of all laws they are the hardest to find."""


def _read(rng: np.random.Generator, orbit: Float64, hidden: int = 0) -> Float64:
    """One coordinate (T,) of an orbit (T, D) with measurement noise of up to half of its usual change.

    Args:
        rng: Draws the coordinate and the noise.
        orbit: Any coordinates.
        hidden: How many of the last coordinates are not to be read, such as the phase of a force.
    """
    x = orbit[:, rng.integers(orbit.shape[1] - hidden)]
    noise = rng.choice([0.0, 1.0], p=[0.3, 0.7]) * _log_uniform(rng, 0.01, 0.5) * float(np.abs(np.diff(x)).mean())
    return x + noise * (rng.standard_normal(len(x)) if rng.random() < 0.5 else rng.uniform(-1.7, 1.7, len(x)))


def _flow(rule: Callable[..., Point], start: Point, cycle: float, rng: np.random.Generator, t: Float64) -> Float64:
    """Walk x' = rule(x) from `start` and read it (T, D) at times t; a cycle takes 8 to 100 periods.

    Runge and Kutta's fourth order, in plain floats: the systems are too small for arrays to pay.
    """
    samples = _log_uniform(rng, 8.0, 100.0)
    each = min(1.0, samples / _STEPS_A_CYCLE)  # periods from step to step
    dt = cycle / samples * each
    settling = int(_SETTLING_CYCLES * samples / each)
    steps = int((t[-1] - t[0]) / each) + 2
    orbit = np.empty((steps, len(start)))
    x = start
    for i in range(-settling, steps):
        orbit[max(i, 0)] = x
        x = _runge_kutta(rule, x, dt)
    return _at(orbit, (t - t[0]) / each)


def _runge_kutta(rule: Callable[..., Point], x: Point, dt: float) -> Point:
    a = rule(*x)
    b = rule(*[p + dt / 2 * q for p, q in zip(x, a, strict=True)])
    c = rule(*[p + dt / 2 * q for p, q in zip(x, b, strict=True)])
    d = rule(*[p + dt * q for p, q in zip(x, c, strict=True)])
    return tuple(p + dt / 6 * (i + 2 * j + 2 * k + m) for p, i, j, k, m in zip(x, a, b, c, d, strict=True))


def _delayed(rule: Callable[[float, float], float], delay: float, start: float, t: Float64, periods: float) -> Float64:
    """Walk x' = rule(x, x a delay ago) and read it (T, 1) at times t; the delay lasts so many `periods` of t.

    Heun's second order on a grid that the delay is a whole number of steps of.
    """
    back = max(_STEPS_A_DELAY, math.ceil(2 * periods))
    dt = delay / back
    settling = int(_SETTLING_CYCLES) * back
    x = [start] * (back + 1)
    for _ in range(settling + int((t[-1] - t[0]) / periods * back) + 2):
        now, past, next_past = x[-1], x[-back - 1], x[-back]
        slope = rule(now, past)
        x.append(now + dt / 2 * (slope + rule(now + dt * slope, next_past)))
    return _at(np.array(x[back + settling :])[:, None], (t - t[0]) / periods * back)


def _at(orbit: Float64, where: Float64) -> Float64:
    """Read a grid (G, D) between its points, by cubic Hermite pieces (Catmull and Rom 1974)."""
    i = np.clip(where.astype(np.int64), 0, len(orbit) - 2)
    u = (where - i)[:, None]
    before, left, right, after = (orbit[np.clip(i + k, 0, len(orbit) - 1)] for k in (-1, 0, 1, 2))
    bend = (right - before) * u + (2 * before - 5 * left + 4 * right - after) * u**2
    return left + 0.5 * (bend + (3 * (left - right) + after - before) * u**3)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
