"""How well gaps are filled, by their length, each by several ways of filling them.

The same gaps for every way: cells that were measured are hidden, and what is said of them is held against what they
were. Errors are mean absolute ones in units of the channel's own spread, so that channels can be averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from detector.records import Float64
from training.bidirectional.estimate import Stretch, estimate, known_of
from training.bidirectional.known import Bools
from training.bidirectional.model import BothSided

LENGTHS = ((1, 3), (4, 15), (16, 60))
"""Classes of gaps, samples from and to."""

_APART = (20, 100)  # samples from one gap to the next
_FIRST = 200  # samples that are whole, so that a forecaster has got to know its stream

Fill: TypeAlias = Callable[[Sequence[Stretch], Sequence[Bools]], list[Float64]]
"""Takes stretches and which of their cells are shown, and says what each cell is (T, C)."""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a class of gaps."""

    lengths: tuple[int, int]
    cells: int
    errors: dict[str, float]
    """Mean absolute error by way of filling, in spreads."""
    inside: float
    """Share of the cells inside the both-sided band."""


def by_line(stretches: Sequence[Stretch], shown: Sequence[Bools]) -> list[Float64]:
    """Linear interpolation; at either end the value beside it."""
    return [known_of([one], cells[None], [0], len(one)).line[0] for one, cells in zip(stretches, shown, strict=True)]


def by_last(stretches: Sequence[Stretch], shown: Sequence[Bools]) -> list[Float64]:
    """The last value that was shown before."""
    filled = []
    for one, cells in zip(stretches, shown, strict=True):
        rows = np.maximum.accumulate(np.where(cells, np.arange(len(one))[:, None], -1), axis=0)
        last = np.take_along_axis(one.values, rows.clip(0), axis=0)
        filled.append(np.where(rows < 0, one.normal.mean, last))
    return filled


def measure(
    model: BothSided, stretches: Sequence[Stretch], others: Mapping[str, Fill], *, alone: bool = False, seed: int = 0
) -> list[Row]:
    """Compare ways to fill gaps.

    Args:
        model: What reads from both ends.
        stretches: Spans that nobody was trained on.
        others: Further ways by their names.
        alone: Whether one channel at a time is gone; else all are.
        seed: The same seed gives the same gaps.
    """
    return [_row(model, stretches, others, lengths, alone, seed) for lengths in LENGTHS]


def _row(
    model: BothSided,
    stretches: Sequence[Stretch],
    others: Mapping[str, Fill],
    lengths: tuple[int, int],
    alone: bool,
    seed: int,
) -> Row:
    seeds = ([seed, lengths[0], number] for number in range(len(stretches)))
    hidden = [
        held_out(np.random.default_rng(each), one, lengths, alone) for each, one in zip(seeds, stretches, strict=True)
    ]
    shown = [one.measured & ~cells for one, cells in zip(stretches, hidden, strict=True)]
    asked = [one.measured & cells for one, cells in zip(stretches, hidden, strict=True)]
    said = [estimate(model, one, cells) for one, cells in zip(stretches, shown, strict=True)]
    filled = {"both-sided": [one.centre for one in said]}
    filled |= {name: fill(stretches, shown) for name, fill in others.items()}
    off = {
        name: np.concatenate(
            [
                (np.abs(values - one.values) / one.normal.values)[cells]
                for values, one, cells in zip(by, stretches, asked, strict=True)
            ]
        )
        for name, by in filled.items()
    }
    inside = [
        ((one.values >= each.lower) & (one.values <= each.upper))[cells]
        for one, each, cells in zip(stretches, said, asked, strict=True)
    ]
    means = {name: float(np.mean(one)) if len(one) else float("nan") for name, one in off.items()}
    share = float(np.mean(np.concatenate(inside))) if any(map(len, inside)) else float("nan")
    return Row(lengths, sum(map(len, inside)), means, share)


def held_out(rng: np.random.Generator, one: Stretch, lengths: tuple[int, int], alone: bool) -> Bools:
    """Draw gaps (T, C) of some class of lengths, well apart, the first only after some of the stretch is known."""
    hidden = np.zeros(one.values.shape, bool)
    at = min(_FIRST, len(one) // 4) + int(rng.integers(_APART[0]))
    while at + lengths[1] < len(one):
        length = int(rng.integers(lengths[0], lengths[1] + 1))
        channels = int(rng.integers(hidden.shape[1])) if alone else slice(None)
        hidden[at : at + length, channels] = True
        at += length + int(rng.integers(*_APART))
    return hidden
