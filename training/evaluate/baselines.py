"""Floors: detectors of three lines, causal, that anything worth shipping must beat.

Each is a callable from a case to one score per row, shape (T,), higher is stranger; nothing is tuned. What a channel
says is taken in units of its spread over the training rows, so that no row knows of a later one, and averaged over the
channels. Missing values count as nothing strange.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from detector.records import Float64
from training.evaluate.suites import Case

Baseline: TypeAlias = Callable[[Case], Float64]

_PROBATION_SHARE, _PROBATION_ROWS = 0.15, 750  # NAB's rule, for suites without a training part
_EWMA_RATE = 0.05
_LARGEST = 1e15  # a raw value beyond is cut, as the graph cuts it, so that squares stay finite
_TINY = 1e-9  # of a channel's size: a spread below counts as none


def reference(case: Case) -> int:
    """How many rows from the start may be learnt from: the training part, else NAB's probation."""
    return case.train or max(1, min(int(_PROBATION_SHARE * len(case)), _PROBATION_ROWS))


def random(case: Case) -> Float64:
    """Uniform noise; the same for a case of that name at every run."""
    return np.random.default_rng(zlib.crc32(case.name.encode())).uniform(size=len(case))


def constant(case: Case) -> Float64:
    """The same score everywhere: what a measure gives for nothing."""
    return np.ones(len(case))


def absolute_z(case: Case) -> Float64:
    """Distance from the mean of the training rows."""
    values = filled(case)
    return _strangeness(values - values[: reference(case)].mean(axis=0), case)


def absolute_difference(case: Case) -> Float64:
    """Size of the step since the row before."""
    values = filled(case)
    return _strangeness(np.diff(values, axis=0, prepend=values[:1]), case)


def ewma_residual(case: Case) -> Float64:
    """Distance from an exponentially weighted mean (rate 0.05) of the rows before."""
    values = filled(case)
    mean, residual = values[0].copy(), np.zeros_like(values)
    for row, value in enumerate(values):
        residual[row] = value - mean
        mean += _EWMA_RATE * residual[row]
    return _strangeness(residual, case)


FLOORS: dict[str, Baseline] = {
    "random": random,
    "constant": constant,
    "|z|": absolute_z,
    "|difference|": absolute_difference,
    "EWMA residual": ewma_residual,
}


def filled(case: Case) -> Float64:
    """Values (T, C) with each gap filled by the value before it; before the first value, by 0."""
    known = np.isfinite(case.values)
    latest = np.maximum.accumulate(np.where(known, np.arange(len(case))[:, None], 0), axis=0)
    filled: Float64 = np.nan_to_num(np.take_along_axis(np.where(known, case.values, np.nan), latest, axis=0))
    return np.clip(filled, -_LARGEST, _LARGEST)


def _strangeness(residual: Float64, case: Case) -> Float64:
    """Sizes of residuals (T, C) in units of their spread over the training rows, averaged over channels: (T,)."""
    head = residual[: reference(case)]
    spread = head.std(axis=0)
    tells = spread > _TINY * np.maximum(1.0, np.abs(head).max(axis=0))
    return np.asarray(np.abs(residual / np.where(tells, spread, 1.0)).mean(axis=1))
