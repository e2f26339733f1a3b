"""Labels for history: how strange each sample is, going by what came before and after it.

A sample is estimated from both sides and from its other channels, and the residual held against those of the run's own
later spans, channel by channel. Its rank among them is a tail probability, told in nines.

A fault that lasts explains itself: each of its samples lies well between its neighbours. So the same is done with
blocks hidden, short and long ones (`LENGTHS`), in turns until every sample was hidden once: what is then said of a
sample is said by what lies further off. Of all lengths and channels, the rarest residual counts, with the price that so
many were looked at (Sidak 1967).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.records import Float64
from training.bidirectional.estimate import Estimate, Stretch, estimate
from training.bidirectional.hide import in_turns
from training.bidirectional.model import BothSided

LENGTHS = (1, 8, 32)
"""Samples that are hidden together; 1 hides nothing, for an estimate never looks at its own cell."""
LEAST = 100
"""Residuals of a channel that a rank takes."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of each sample; T of them, C channels."""

    nines: Float64
    """(T, C) of each channel's rarest residual, NaN where it was not measured."""
    score: Float64
    """(T,) nines of the sample as a whole, NaN where nothing was measured."""
    estimate: Estimate
    """From neighbours on both sides, nothing hidden."""


def residuals(model: BothSided, one: Stretch) -> Float64:
    """Sizes of the standardised residuals (len(LENGTHS), T, C), NaN where not measured."""
    found = [off(estimate(model, one, one.measured), one)]
    for length in LENGTHS[1:]:
        sizes = np.full(one.values.shape, np.nan)
        for hidden in in_turns(len(one), length):
            said = estimate(model, one, one.measured & ~hidden[:, None])
            sizes[hidden] = off(said, one)[hidden]
        found.append(sizes)
    return np.stack(found)


def off(said: Estimate, one: Stretch) -> Float64:
    """How far each cell lies from its estimate, (T, C), 1 at the end of the band."""
    away = one.values - said.centre
    return np.abs(away) / np.where(away > 0, said.upper - said.centre, said.centre - said.lower)


def usual_residuals(model: BothSided, stretches: Sequence[Stretch]) -> Float64:
    """What residuals are usual: (len(LENGTHS), n, C), rising, NaN behind where a channel has fewer."""
    sizes = np.concatenate([residuals(model, one) for one in stretches], axis=1)
    return np.sort(sizes, axis=1)


def label(model: BothSided, one: Stretch, usual: Float64) -> Found:
    """Say how strange each sample is.

    Args:
        model: What reads from both ends.
        one: The history of a stream.
        usual: What `usual_residuals` gave.
    """
    sizes = residuals(model, one)
    tail = np.stack([[_tail(sizes[k, :, c], usual[k, :, c]) for c in range(sizes.shape[2])] for k in range(len(sizes))])
    rarest = np.fmin.reduce(tail, axis=0).T  # (T, C)
    seen = one.measured.sum(axis=1)
    looked = len(LENGTHS) * np.maximum(seen, 1)
    score = _nines(np.fmin.reduce(rarest, axis=1), looked)
    return Found(_nines(rarest, np.full(rarest.shape, len(LENGTHS))), score, estimate(model, one, one.measured))


def most_nines(usual: Float64) -> float:
    """The highest score that these residuals can tell, when all channels are measured."""
    fewest = (~np.isnan(usual)).sum(axis=1).min()
    return float(_nines(np.array(1 / (fewest + 1)), np.array(usual.shape[0] * usual.shape[2])))


def _tail(sizes: Float64, usual: Float64) -> Float64:
    """Share of the usual residuals that are as large, (T,); never 0, NaN where there is nothing to rank."""
    usual = usual[~np.isnan(usual)]
    at_least = len(usual) - np.searchsorted(usual, sizes, side="left")
    return np.where(np.isnan(sizes), np.nan, (at_least + 1) / (len(usual) + 1))


def _nines(rarest: Float64, looked: Float64) -> Float64:
    """Of the rarest of so many."""
    return -np.log10(-np.expm1(looked * np.log1p(-np.minimum(rarest, 1 - 1e-12))))
