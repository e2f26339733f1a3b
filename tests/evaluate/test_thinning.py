"""Curves drawn short: no peak is lost, no gap is bridged, no value is coarser than a screen can show."""

from __future__ import annotations

import base64
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluate.thinning import edges, extremes, packed


def noisy(rows: int, seed: int) -> np.ndarray:
    """Integers, so that flat stretches occur, with some gaps."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, rows).astype(float)
    values[rng.random(rows) < 0.2] = np.nan
    return values


@given(rows=st.integers(1, 400), buckets=st.integers(1, 60), seed=st.integers(0, 99))
def test_no_peak_is_lost(rows: int, buckets: int, seed: int) -> None:
    """Between the edges of every bucket the curve drawn reaches as low and as high as the whole one."""
    values, cut = noisy(rows, seed), edges(rows, buckets)
    drawn = extremes(values, cut)
    drawn = drawn[~np.isnan(values[drawn])]
    for first, end in pairwise(cut):
        inside = values[first:end]
        if not np.isnan(inside).all():
            line = np.interp(np.arange(first, end), drawn, values[drawn])
            assert line.max() >= np.nanmax(inside)
            assert line.min() <= np.nanmin(inside)


def test_a_spike_of_one_row_in_a_million_is_drawn() -> None:
    """And taking every thousandth row, the control, would lose it."""
    values = np.random.default_rng(0).normal(size=1_000_000)
    values[654_321] = 50.0
    drawn = extremes(values, edges(len(values), 1_000))
    assert 654_321 in drawn
    assert len(drawn) <= 2_002
    assert values[::1_000].max() < 50


def test_a_gap_stays_a_gap() -> None:
    """A bucket without values keeps one row without a value, at which a line breaks."""
    values = np.arange(100.0)
    values[40:60] = np.nan
    drawn = extremes(values, edges(100, 10))
    assert np.isnan(values[drawn]).sum() == 2
    assert not np.isnan(values[drawn[(drawn < 40) | (drawn >= 60)]]).any()


def test_a_flat_line_needs_its_ends_only() -> None:
    """A step keeps the two rows of the step besides; a single row and no value at all are drawn too."""
    assert extremes(np.full(1_000, 4.2), edges(1_000, 50)).tolist() == [0, 999]
    assert extremes(np.repeat([1.0, 2.0], 500), edges(1_000, 50)).tolist() == [0, 480, 500, 999]
    assert extremes([3.0], edges(1, 50)).tolist() == [0]
    assert extremes([np.nan] * 3, edges(3, 50)).tolist() == [0, 1, 2]


@given(rows=st.integers(1, 500), buckets=st.integers(1, 700), first=st.integers(-50, 500), length=st.integers(1, 80))
def test_buckets_cover_all_rows_once(rows: int, buckets: int, first: int, length: int) -> None:
    """Edges rise from 0 to the end, whatever is looked into; a run in focus is cut finer."""
    cut = edges(rows, buckets, [(min(first, rows - 1), min(first, rows - 1) + length)], finer=7)
    assert cut[0] == 0
    assert cut[-1] == rows
    assert (np.diff(cut) > 0).all()


def test_what_is_looked_into_is_cut_finer() -> None:
    """1,000 rows in 10 buckets, and 20 in ten of their own."""
    cut = edges(1_000, 10, [(500, 520)], finer=10)
    assert np.diff(cut[(cut >= 500) & (cut <= 520)]).tolist() == [2] * 10
    assert len(cut) == 11 + 10


@pytest.mark.parametrize("values", [[1.5e9 + 0.1, 1.5e9 + 0.2, 1.5e9], [1e-9, -1e-9, 0.0], [1e30, 1.0, np.nan]])
def test_packed_values_are_those_of_the_curve(values: list[float]) -> None:
    """To a millionth of the range that they span, however far from zero it lies; a gap stays one."""
    told = packed(np.array([0, 2, 1]), values)
    rows = np.frombuffer(base64.b64decode(str(told["rows"])), "<u4")
    back = np.frombuffer(base64.b64decode(str(told["values"])), "<f4").astype(float) + float(str(told["offset"]))
    span = np.nanmax(values) - np.nanmin(values)
    assert rows.tolist() == [0, 2, 1]
    np.testing.assert_allclose(back, np.array(values)[rows], rtol=0, atol=1e-6 * span)
