"""What a stream costs in production: microseconds and bytes, in ONNX Runtime, by the daemon's own session.

All candidates take turns, round after round, so that a neighbour on the machine slows all of them; the figures are
medians over rounds of the processor's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detector.model.bundle import read_bundle
from detector.model.session import Session

FLEET, ALONE = 256, 1
"""Streams in a wave."""
_ROUNDS, _STEPS = 15, 4


class Cost(NamedTuple):
    """Of one candidate."""

    fleet_us: float
    """Microseconds per sample, many streams side by side."""
    alone_us: float
    """The same for one stream alone."""
    bytes_per_stream: int
    """Of a stream's memory."""


def measure_costs(bundles: Mapping[int, Path], channels: int, seed: int = 0) -> dict[int, Cost]:
    """Time bundles in turn, by number, on made-up values of so many channels."""
    sessions = {number: Session(read_bundle(path)) for number, path in bundles.items()}
    taken = {wave: _in_turn(sessions, wave, channels, seed) for wave in (FLEET, ALONE)}
    return {
        number: Cost(taken[FLEET][number], taken[ALONE][number], 4 * session.bundle.row_floats(channels))
        for number, session in sessions.items()
    }


def _in_turn(sessions: Mapping[int, Session], wave: int, channels: int, seed: int) -> dict[int, float]:
    """Microseconds per sample, by number."""
    steps = {number: _stepper(session, wave, channels, seed) for number, session in sessions.items()}
    for step in steps.values():
        step()  # the first call allocates
    rounds = [[_seconds(step) for step in steps.values()] for _ in range(_ROUNDS)]
    return dict(zip(steps, (1e6 / wave * np.median(rounds, axis=0)).tolist(), strict=True))


def _stepper(session: Session, wave: int, channels: int, seed: int) -> Callable[[], None]:
    """A step for new values of every stream, the state carried on."""
    bundle = session.bundle
    state = np.tile(bundle.initial_row(channels), (wave, 1))
    observed, elapsed = np.ones((wave, channels), np.float32), np.ones((wave, 1), np.float32)
    clock = np.zeros((wave, bundle.clock_features), np.float32)
    values = cycle(np.random.default_rng(seed).normal(size=(_STEPS, wave, channels)))

    def step() -> None:
        nonlocal state
        state = session.step(next(values), observed, elapsed, clock, state).next_state

    return step


def _seconds(step: Callable[[], None]) -> float:
    """Of the processor, for one call."""
    began = time.process_time()
    for _ in range(_STEPS):
        step()
    return (time.process_time() - began) / _STEPS
