"""Gaps for training and for judging: cells that were measured and are hidden from the network."""

from __future__ import annotations

import numpy as np

from training.bidirectional.known import Bools

LONGEST = 64
"""Samples; the mean length of a gap goes up to it."""

_LEAST, _MOST = 0.05, 0.4  # share of a channel that is hidden


def hide(rng: np.random.Generator, shape: tuple[int, int, int]) -> Bools:
    """Draw gaps (N, T, C), True where hidden: of geometric or of equal lengths, short ones as often as long ones.

    In every other stretch, on average, all channels are gone together; in the rest each has gaps of its own.
    """
    _, T, C = shape
    hidden = np.zeros(shape, bool)
    for stretch in hidden:
        if rng.random() < 0.5:
            stretch[:] = _gaps(rng, T)[:, None]
        else:
            stretch[:] = np.stack([_gaps(rng, T) for _ in range(C)], axis=1)
    return hidden


def in_turns(samples: int, length: int) -> list[Bools]:
    """Hide blocks of a length in turns, (T,) each, so that all of them together hide every sample once."""
    block = np.arange(samples) // length
    return [block % _TURNS == turn for turn in range(_TURNS)]


_TURNS = 3  # two blocks are shown for one that is hidden


def _gaps(rng: np.random.Generator, T: int) -> Bools:
    """One channel's."""
    mean, share = np.exp(rng.uniform(0, np.log(LONGEST))), rng.uniform(_LEAST, _MOST)
    gaps = rng.geometric(1 / mean, T) if rng.random() < 0.5 else np.full(T, round(mean))
    between = rng.geometric(min(1.0, share / (mean * (1 - share))), T)
    lengths = np.stack([between, gaps], axis=1).ravel()
    pattern = np.repeat(np.tile([False, True], T), lengths)
    start = rng.integers(lengths[0] + lengths[1])
    return pattern[start : start + T]
