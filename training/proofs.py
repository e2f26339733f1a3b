"""What a bundle must show before it gets its name.

    parity       torch and ONNX Runtime agree for 1,000 samples of every kind of stream, within the stored tolerance
    invariance   a row's bits do not depend on its wave's size, on its place in it, or on how memory is aligned
    finiteness   no stream, however hostile, makes an output or the memory non-finite

All on the daemon's own session: other settings give other bits. Streams learn and rest by turns, with roles of every
kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from detector.errors import BundleError
from detector.model.bundle import Bundle
from detector.model.further import LEARNING, ROLE, ROLES
from detector.model.session import OUTPUTS, Session, StepOutput
from detector.records import Float32, Float64
from training.graph import Detector

STEPS = 1_000
SIZES = (1, 2, 3, 7, 64, 257)
"""Rows of a wave: one, odd ones, a power of two and one more than that."""
ALIGNMENTS = (0, 4, 16, 32)
"""Bytes after a 64-byte boundary."""
CHANNELS = (1, 3, 7)
"""Numbers of channels that an `any` bundle is proved for."""

_USUALLY = {"score": 0.3, "state": 0.001}  # of the tolerance: how closely 99 numbers in 100 agree
_BOUNDARY = 64
_SEED = 20


Run: TypeAlias = Callable[..., Sequence[NDArray[Any]]]
"""Takes a wave's arrays and gives the outputs, rows first."""


class Feed(NamedTuple):
    """What streams are sent, (steps, rows, ...) each; a step's worth of it and the memory is what `step` takes."""

    values: Float64
    observed: Float32
    elapsed: Float32
    clock: Float32
    learning: Float32
    role: Float32


def prove(detector: Detector, bundle: Bundle) -> None:
    """Raise BundleError, saying what failed, unless all three hold."""
    session = Session(bundle, "cpu")
    for channels in [len(bundle.channels)] if bundle.channels else CHANNELS:
        state = check_finite(session, channels)
        if channels == (len(bundle.channels) if bundle.channels else CHANNELS[1]):
            state = check_parity(detector, session, channels)
        wave = _mature_wave(bundle, channels, state)
        check_invariance(lambda state, *sample: take(session, sample, state), wave, bundle.path)


def take(session: Session, sample: Sequence[NDArray[Any]], state: Float32) -> StepOutput:
    """Carry one sample of a feed."""
    values, observed, elapsed, clock, learning, role = sample
    return session.step(values, observed, elapsed, clock, state, {LEARNING: learning, ROLE: role})


def check_parity(detector: Detector, session: Session, channels: int, steps: int = STEPS) -> Float32:
    """Walk ONNX Runtime through streams, then have torch take every one of those steps; gives back the last rows.

    Torch takes them all at once, each from the memory that ONNX Runtime had there: a thousand calls would take it long.
    """
    bundle = session.bundle
    feed = ordinary(channels, steps)
    state = np.tile(bundle.initial_row(channels), (feed.values.shape[1], 1))
    before, got = [], []
    for t in range(steps):
        before.append(state)
        got.append(take(session, [part[t] for part in feed], state))
        state = got[-1].next_state
    at_once = [np.concatenate(part) for part in (*feed[:4], before, *feed[4:])]
    with torch.inference_mode():
        expected = detector.step(*map(torch.from_numpy, at_once))
    check_agreement(bundle, expected.score[:, 0].numpy(), np.concatenate([step.score for step in got]), "score")
    after = np.concatenate([step.next_state for step in got])
    check_agreement(bundle, expected.next_state.numpy(), after, "state")
    return state


def check_agreement(bundle: Bundle, torch_says: Float32, got: Float32, what: Literal["score", "state"]) -> None:
    """Compare with the stored tolerance: absolute for the score, relative for the state.

    The last bit may decide on which side of a level a sample falls, and so a count: one number in 10,000 may be any.
    What the memory learns is rounded alone and agrees to a millionth. A score need not: steps of conjugate gradients
    let rounding grow where features are nearly the same.
    """
    difference = np.abs(torch_says - got)
    if what == "state":
        difference = difference / (1 + np.abs(torch_says))
    tolerance = getattr(bundle.tolerance, what)
    usually = _USUALLY[what] * tolerance
    usual, rare = np.quantile(difference, [0.99, 0.9999])
    if not (rare <= tolerance and usual <= usually):
        raise BundleError(
            bundle.path,
            f"{what} in torch and in ONNX Runtime",
            expected=f"99 in 100 within {usually:.3g}, all but 1 in 10,000 within {tolerance:.3g}",
            got=f"{usual:.3g} and {rare:.3g} apart",
        )


def check_invariance(run: Run, wave: Sequence[NDArray[Any]], where: object) -> None:
    """Compare every row's bits, in waves of all sizes, positions and alignments, with the row alone.

    Args:
        run: What is to be shown invariant.
        wave: Inputs with at least max(SIZES) unlike rows.
        where: What an error is to name.
    """
    rows = max(SIZES)
    alone = [[part.tobytes() for part in run(*(_placed(part[i : i + 1], 0) for part in wave))] for i in range(rows)]
    for size in SIZES:
        for number, alignment in enumerate(ALIGNMENTS):
            pick = (np.arange(size) * (2 * number + 1) + number * 31) % rows
            outputs = run(*(_placed(part[pick], alignment) for part in wave))
            for which, output in enumerate(outputs):
                for position, row in enumerate(pick):
                    if output[position].tobytes() != alone[row][which]:
                        raise BundleError(
                            where,
                            f"output {which} of a row depends on its wave",
                            expected="the same bits as alone",
                            got=f"others at position {position} of {size}, {alignment} bytes after a boundary",
                        )


def check_finite(session: Session, channels: int, steps: int = STEPS) -> Float32:
    """Run streams that no sensor should send; gives back the last rows."""
    bundle = session.bundle
    feed = hostile(channels, steps)
    state = np.tile(bundle.initial_row(channels), (feed.values.shape[1], 1))
    for t in range(steps):
        outputs = take(session, [part[t] for part in feed], state)
        state = outputs.next_state
        for name, output in zip(OUTPUTS, outputs, strict=True):
            if not np.isfinite(output).all():
                row = int(np.argwhere(~np.isfinite(output))[0][0])
                raise BundleError(
                    bundle.path,
                    f"{name} at sample {t}",
                    expected="finite",
                    got=f"NaN or infinity for {HOSTILE[row % len(HOSTILE)]}",
                )
    return state


def ordinary(channels: int, steps: int, rows: int = 8) -> Feed:
    """Streams as sensors send them: (steps, rows, ...); waves, noise, walks, jumps, gaps and missing cells."""
    random = np.random.default_rng(_SEED)
    shape = (steps, rows, channels)
    t = np.arange(steps)[:, None, None]
    noise = random.normal(size=shape)
    wave = np.sin(t / random.uniform(3, 60, (rows, channels)))
    walk = noise.cumsum(axis=0) * 0.1
    jump = (t > random.integers(steps // 4, steps, (rows, channels))) * random.normal(size=(rows, channels)) * 5
    values = (
        100 * random.normal(size=(rows, channels)) + 3 * wave + noise * random.uniform(0.01, 1, channels) + walk + jump
    )
    values += (random.uniform(size=shape) < 0.003) * 20 * noise
    observed = _some_missing(random, shape)
    return Feed(values, observed, *_times(random, steps, rows), *_said(random, shape))


HOSTILE = (
    "constant", "zero", "1e30", "-1e30", "1e-30", "1e300", "alternating", "alternating 1e30", "constant then 1e30",
    "counter at 1e12", "counter reset", "denormal", "not finite", "noise", "exponential", "long gaps",
)  # fmt: skip
"""What `hostile` sends, a row each."""


def hostile(channels: int, steps: int) -> Feed:
    """Streams that no sensor should send: (steps, len(HOSTILE), ...)."""
    random = np.random.default_rng(_SEED)
    t = np.arange(steps, dtype=np.float64)
    sign = 1 - 2 * (t % 2)
    noise = random.normal(size=steps)
    bad = np.array([np.nan, np.inf, -np.inf, 3.3e38, 1.0])
    kinds = [
        0 * t + 7, 0 * t, 0 * t + 1e30, 0 * t - 1e30, 0 * t + 1e-30, 0 * t + 1e300, sign, sign * 1e30,
        np.where(t < steps / 2, 5, 1e30), 1e12 + t, np.where(t < steps / 2, 1e12 + t, t), 5e-324 * sign,
        bad[(t % len(bad)).astype(int)], noise, np.exp(np.minimum(t, 85)), noise,
    ]  # fmt: skip
    values = np.repeat(np.stack(kinds, axis=1)[:, :, None], channels, axis=2)
    observed = _some_missing(random, values.shape)
    observed[:, : len(HOSTILE) // 2] = 1
    values[observed == 0] = np.nan
    elapsed, clock = _times(random, steps, len(HOSTILE))
    elapsed[:, -1] *= 10.0 ** random.integers(-9, 9, (steps, 1))
    return Feed(values, observed, elapsed, clock, *_said(random, values.shape))


def _some_missing(random: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    """A cell in ten missing, but never all of a sample."""
    observed = (random.uniform(size=shape) < 0.9).astype(np.float32)
    observed[..., 0] = np.maximum(observed[..., 0], 1 - observed.max(axis=-1))
    return observed


def _times(random: np.random.Generator, steps: int, rows: int) -> tuple[Float32, Float32]:
    elapsed = (
        60 * random.uniform(0.9, 1.1, (steps, rows, 1)) * (1 + 20 * (random.uniform(size=(steps, rows, 1)) < 0.01))
    )
    elapsed[0] = 0
    angle = np.arange(steps)[:, None, None] * np.array([2 * np.pi / 1440, 2 * np.pi / 10_080])
    clock = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)[..., [0, 2, 1, 3]]
    return elapsed.astype(np.float32), np.repeat(clock, rows, axis=1).astype(np.float32)


def _said(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[Float32, Float32]:
    """Learning (steps, rows, 1) and roles (steps, rows, channels), both said anew at every quarter of the time.

    Half of the streams learn throughout, and half of the channels are left to the graph.
    """
    steps, rows, channels = shape
    quarter = np.arange(steps) * 4 // steps
    learning = random.integers(0, 2, (4, rows, 1))
    learning[:, ::2] = 1
    role = random.choice([ROLES["auto"], ROLES["auto"], ROLES["target"], ROLES["context"]], (4, rows, channels))
    return learning[quarter].astype(np.float32), role[quarter].astype(np.float32)


def _mature_wave(bundle: Bundle, channels: int, state: Float32) -> tuple[NDArray[Any], ...]:
    """Unlike rows for the proof of invariance, and a sample of each.

    Each is a mixture of two: what lies between covariances is one, while stirring its numbers one by one makes none.
    """
    random = np.random.default_rng(_SEED)
    rows = max(SIZES)
    one, other = random.integers(0, len(state), (2, rows))
    share = random.uniform(0, 1, (rows, 1)).astype(np.float32)
    stirred = share * state[one] + (1 - share) * state[other]
    fresh = np.arange(rows) % 5 == 0
    stirred[fresh] = bundle.initial_row(channels)
    learning, role = _said(random, (4, rows, channels))
    return (
        stirred,
        random.normal(size=(rows, channels)) * 10.0 ** random.integers(-3, 6, (rows, 1)),
        _some_missing(random, (rows, channels)),
        random.uniform(1, 100, (rows, 1)).astype(np.float32),
        random.uniform(-1, 1, (rows, bundle.clock_features)).astype(np.float32),
        learning[0],
        role[0],
    )


def _placed(array: NDArray[Any], offset: int) -> NDArray[Any]:
    """A copy that begins so many bytes after a boundary; ONNX Runtime reads it in place.

    A view of a common array would always lie as the array does, and hide what depends on it.
    """
    offset = -(-offset // array.itemsize) * array.itemsize
    buffer = np.empty(array.nbytes + 2 * _BOUNDARY, np.uint8)
    start = -buffer.ctypes.data % _BOUNDARY + offset
    placed = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    placed[...] = array
    return placed
