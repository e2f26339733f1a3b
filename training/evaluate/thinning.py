"""Long curves drawn short, without losing a peak: the lowest and the highest row of each bucket are kept.

A screen has about a thousand columns and a series up to a million rows. Buckets are all of a width, except in the
stretches that people will look into: these get finer buckets of their own.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.evaluate.measures.events import Rows

Edges: TypeAlias = NDArray[np.int64]
"""First row of each bucket, and one past the last row of all; strictly rising."""

_FLOAT32_MOST = 3e38  # what a value of 1e300 is drawn at


def edges(rows: int, buckets: int, focus: Sequence[Rows] = (), finer: int = 0) -> Edges:
    """Cut rows into so many buckets, and each run in focus into `finer` ones besides."""
    cuts = [np.linspace(0, rows, min(rows, buckets) + 1)]
    for first, end in focus:
        first, end = np.clip((first, end), 0, rows).tolist()
        cuts.append(np.linspace(first, end, min(end - first, finer) + 1))
    return np.unique(np.concatenate(cuts).astype(np.int64))


def extremes(curve: ArrayLike, cut: Edges) -> NDArray[np.int64]:
    """Rows to draw of a curve (T,): of each bucket the lowest and the highest; of one without values its first, a gap.

    NaN is no value. Rows between two that are as high as them are left out: a flat line needs its ends only.
    """
    values = np.asarray(curve, np.float64)
    bucket = np.repeat(np.arange(len(cut) - 1), np.diff(cut))
    ends = np.array([0, len(values) - 1])
    kept = [ends, cut[:-1][np.isnan(np.fmax.reduceat(values, cut[:-1]))]]
    for extreme in (np.fmin, np.fmax):
        rows = np.flatnonzero(values == extreme.reduceat(values, cut[:-1])[bucket])
        kept.append(rows[np.unique(bucket[rows], return_index=True)[1]])
    return _without_flats(values, np.unique(np.concatenate(kept)))


def _without_flats(values: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows less those whose two neighbours have the same value."""
    drawn = values[rows]
    is_flat = (drawn[1:-1] == drawn[:-2]) & (drawn[1:-1] == drawn[2:])
    kept: NDArray[np.int64] = rows[~np.concatenate([[False], is_flat, [False]])] if len(rows) > 2 else rows
    return kept


def packed(rows: NDArray[np.int64], curve: ArrayLike) -> dict[str, object]:
    """The rows of a curve (T,) as a browser reads them fast: base64 of uint32 and of float32 less an offset.

    The offset, the median, spares values such as 1.5e9 + 0.1 from the coarseness of float32.
    """
    values = np.asarray(curve, np.float64)[rows]
    finite = values[np.isfinite(values)]
    offset = float(np.median(finite)) if len(finite) else 0.0
    less = np.clip(values - offset, -_FLOAT32_MOST, _FLOAT32_MOST).astype("<f4")
    return {"rows": _base64(rows.astype("<u4")), "values": _base64(less), "offset": offset}


def _base64(array: NDArray[np.generic]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
