"""What a sample costs in the model, by bundle and channels: python -m tests.benchmarks.model [BUNDLE ...]

    bytes    of a row, which a step reads and writes
    alone    a wave of one row: what a single stream waits for
    wave     ONNX Runtime's step in waves of `--rows`, per row; `channel` is its part per channel
    in place the same with gather, clock and scatter in an arena, as the daemon steps it, over ONNX Runtime alone
    copy     ONNX Runtime's step over a plain copy of the row by NumPy: how far from the bound that memory sets

Without a name all bundles in the box are measured. All is processor time of the one thread, the median of several goes,
on rows past their first samples.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import numpy as np

from detector.bundles import in_the_box, locate
from detector.model.bundle import Bundle, read_bundle
from detector.model.session import Session, Wave, _random_wave
from detector.stages.infer import WallClock, WaveInput, infer
from tests.benchmarks.stages import TimedSession

CHANNELS = (1, 3, 7, 16, 64)
_ARENA_BYTES = 256 << 20  # far beyond any cache
_GROWN = 20  # steps
_FIRST_NS = 1_732_190_000 * 10**9


class Cost(NamedTuple):
    """Of one bundle with one number of channels."""

    row_bytes: int
    alone_us: float
    row_us: float
    in_place: float
    copy: float


def measure(bundle: Bundle, session: Session, channels: int, rows: int, repeats: int) -> Cost:
    """Measure waves of `rows`; what is divided is measured within a moment, for machines have other work too."""
    one, many = (_grown(bundle, session, channels, count) for count in (1, rows))
    place, target = _Arena(session, many), np.empty_like(many.state)
    found = []
    for _ in range(repeats):
        alone_s, wave_s = _timed(lambda: session.step(*one)), _timed(lambda: session.step(*many))
        copy_s = _timed(lambda: np.copyto(target, many.state))
        found.append((1e6 * alone_s, 1e6 * wave_s / rows, place.share(), wave_s / copy_s))
    return Cost(many.state[0].nbytes, *(median(column) for column in zip(*found, strict=True)))


def _grown(bundle: Bundle, session: Session, channels: int, rows: int) -> Wave:
    wave = _random_wave(bundle, channels, rows)
    for _ in range(_GROWN):
        wave = wave._replace(state=session.step(*wave).next_state)
    return wave


class _Arena:
    """Rows as the daemon keeps them; waves are of rows anywhere, in memory order."""

    def __init__(self, session: Session, wave: Wave) -> None:
        self._session, self._wave = TimedSession(session), wave
        rows, width = wave.state.shape
        self._state = np.resize(wave.state, (max(4 * rows, _ARENA_BYTES // wave.state[0].nbytes), width))
        self._clock, self._random = WallClock("UTC"), np.random.default_rng(3)

    def share(self) -> float:
        """All of a step's time over ONNX Runtime's part of it."""
        rows = len(self._wave.values)
        slots = np.sort(self._random.choice(len(self._state), rows, replace=False))
        wave = WaveInput(slots, self._wave.values, np.full(rows, 60.0), np.full(rows, _FIRST_NS))
        self._session.took_s = 0.0
        return _timed(lambda: infer(self._session, self._state, wave, self._clock)) / self._session.took_s


def _timed(act: Callable[[], object]) -> float:
    began_s = time.thread_time()
    act()
    return time.thread_time() - began_s


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", default=in_the_box(), metavar="BUNDLE")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=40)
    arguments = parser.parse_args()
    print(f"us per row in waves of {arguments.rows}, one thread of {os.cpu_count()} cores")
    heads = ("bytes", "alone", "wave", "channel", "in place", "copy")
    print(f"{'bundle':>16} {'C':>3}", *(f"{name:>9}" for name in heads))
    for name in arguments.bundles:
        bundle = read_bundle(locate(name))
        session = Session(bundle, "cpu")
        for channels in CHANNELS if bundle.channels is None else (len(bundle.channels),):
            cost = measure(bundle, session, channels, arguments.rows, arguments.repeats)
            numbers = f"{cost.row_bytes:>9,} {cost.alone_us:>9.1f} {cost.row_us:>9.2f} {cost.row_us / channels:>9.2f}"
            print(f"{bundle.name:>16} {channels:>3} {numbers} {cost.in_place:>8.2f}x {cost.copy:>8.0f}x")


if __name__ == "__main__":
    main()
