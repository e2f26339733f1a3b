"""Time per event, ours against the windowed LSTM: one process, one core, one channel, turn by turn.

Ours is the daemon's own session, a call of `step` per wave, the state carried on. Theirs is what the windowed detector
must do for the same wave: one run through the window of each stream. What then becomes of a score is timed on neither
side (`decide` here; there smoothing and the search for a threshold, about 4 us). Rounds of both alternate, so that a
neighbour on the machine slows both; the figures are medians over rounds with quartiles, and the ratio is taken round by
round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from time import process_time
from typing import NamedTuple

import numpy as np
import torch

from detector.model.session import Session
from training.evaluate.windowed_lstm import FULL, WindowedLstm, WindowedSettings

WAVES = (256, 1)
"""Streams in a wave: a fleet, and one stream alone."""
_ROUNDS = 15
_OUR_STEPS = 4  # per round and windowed forecast: a step is short, and a round must outlast the clock's grain


class Spread(NamedTuple):
    """A median with its quartiles."""

    median: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Race:
    """What a wave of this many streams took."""

    wave: int
    ours_us: Spread
    """Microseconds per event."""
    windowed_us: Spread
    """The same."""
    times_faster: Spread


def race(
    session: Session, settings: WindowedSettings = FULL, waves: tuple[int, ...] = WAVES, *, seed: int = 0
) -> list[Race]:
    """Time both on made-up values of one channel, wave by wave.

    The network's weights are random: time does not depend on them. It has one channel and one target.
    """
    rng = np.random.default_rng(seed)
    network = WindowedLstm(1, settings.horizon, settings).eval()
    with _one_thread(), torch.inference_mode():
        return [_one(wave, _ours(session, wave, rng), _windowed(network, wave, settings)) for wave in waves]


def _one(wave: int, ours: Callable[[], object], windowed: Callable[[], object]) -> Race:
    ours(), windowed()  # the first call of each allocates
    times = np.array([(_seconds(ours, _OUR_STEPS), _seconds(windowed, 1)) for _ in range(_ROUNDS)])
    our_us, their_us = 1e6 * times.T / wave
    return Race(wave, _spread(our_us), _spread(their_us), _spread(their_us / our_us))


def _ours(session: Session, wave: int, rng: np.random.Generator) -> Callable[[], object]:
    """A step of the bundle for new values of every stream, the state carried on."""
    state = np.tile(session.bundle.initial_row(1), (wave, 1))
    observed, elapsed = np.ones((wave, 1), np.float32), np.ones((wave, 1), np.float32)
    clock = np.zeros((wave, session.bundle.clock_features), np.float32)
    values = cycle(rng.normal(size=(_OUR_STEPS, wave, 1)))

    def step() -> None:
        nonlocal state
        state = session.step(next(values), observed, elapsed, clock, state).next_state

    return step


def _windowed(network: WindowedLstm, wave: int, settings: WindowedSettings) -> Callable[[], object]:
    """A run through the latest window of every stream."""
    windows = torch.randn(wave, settings.window, 1)
    return lambda: network(windows)


def _seconds(call: Callable[[], object], times: int) -> float:
    began = process_time()
    for _ in range(times):
        call()
    return (process_time() - began) / times


def _spread(values: np.ndarray) -> Spread:
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Spread(median, lower, upper)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one core for the block, as the session is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
