"""How rows of one bundle become rows of another, part by part."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.model.bundle import Bundle, read_bundle
from detector.model.rows import RowField, RowLayout, carry_over, compare

GOLDEN = Path(__file__).parents[1] / "golden"
ANY, FIXED = read_bundle(GOLDEN / "tiny-any.onnx"), read_bundle(GOLDEN / "tiny-fixed.onnx")
BENCH = read_bundle(GOLDEN / "bench.onnx")


def field(name: str, offset: int, shape: tuple[int, ...] = (), scope: str = "channel", version: int = 1) -> RowField:
    """A part of a layout."""
    return RowField(name, scope, offset, shape, version)


def filled(bundle: Bundle, channels: int, rows: int = 3) -> np.ndarray:
    """Rows in which every float is another number."""
    width = bundle.row_floats(channels)
    return np.arange(rows * width, dtype=np.float32).reshape(rows, width) + 1


@pytest.mark.parametrize("bundle", [ANY, FIXED, BENCH], ids=lambda bundle: bundle.name)
def test_rows_of_the_same_graph_stay_bit_for_bit(bundle: Bundle) -> None:
    """Whatever else the file says: the hidden state too."""
    channels = len(bundle.channels or "ab")
    rows = filled(bundle, channels)
    assert compare(bundle.layout, bundle.layout).fresh == ()
    assert (carry_over(rows, bundle.layout, bundle.layout, bundle.initial_row(channels)) == rows).all()


def test_other_weights_start_with_their_own_hidden_state_and_keep_the_rest() -> None:
    """Here it is of another size as well; what a stream's scale and evidence know has nothing to do with weights."""
    parts = compare(ANY.layout, BENCH.layout)
    assert parts.fresh == ("channel.hidden",)
    assert parts.differing == ()
    rows, initial = filled(ANY, 2), BENCH.initial_row(2)
    made = carry_over(rows, ANY.layout, BENCH.layout, initial)
    assert made.dtype == np.float32
    before, after = ([b.explain(row, ["x", "y"]) for row in some] for b, some in ((ANY, rows), (BENCH, made)))
    fresh = BENCH.explain(initial, ["x", "y"])
    for old, new in zip(before, after, strict=True):
        assert new["joint"] == old["joint"]
        for channel in "xy":
            assert new["channels"][channel].pop("hidden") == fresh["channels"][channel]["hidden"]
            old["channels"][channel].pop("hidden")
            assert new["channels"][channel] == old["channels"][channel]


def test_a_hidden_state_may_move_from_one_scope_to_another() -> None:
    """From a bundle for named channels to one for any: it starts anew in any case."""
    parts = compare(FIXED.layout, ANY.layout)
    assert (parts.fresh, parts.differing) == (("channel.hidden",), ())


@pytest.mark.parametrize(
    "part",
    [field("mean", 1, (2,)), field("mean", 1, version=2), field("mean", 1, scope="joint"), field("average", 1)],
    ids=["shape", "version", "scope", "name"],
)
def test_a_part_that_is_another_one_makes_layouts_incompatible(part: RowField) -> None:
    """Its neighbours lean on it: a count without its mean would be a lie."""
    old = RowLayout("a", (field("count", 0), field("mean", 1)))
    parts = compare(old, RowLayout("b", (field("count", 0), part)))
    assert parts.differing == ("channel.mean[] version 1",)


def test_a_part_that_is_new_starts_from_the_initial_row() -> None:
    """And the others move to where they stand now."""
    old = RowLayout("a", (field("n", 0, scope="joint"), field("count", 0), field("mean", 1)))
    new = RowLayout("b", (field("n", 0, scope="joint"), field("mean", 0), field("extra", 1, (2,)), field("count", 3)))
    rows = np.array([[1, 10, 11, 20, 21]], np.float32)
    initial = np.array([0, 0, 7, 8, 0, 0, 7, 8, 0], np.float32)
    assert compare(old, new).fresh == ("channel.extra",)
    assert carry_over(rows, old, new, initial).tolist() == [[1, 11, 7, 8, 10, 21, 7, 8, 20]]


@given(st.permutations(BENCH.row_layout), st.integers(1, 4))
def test_in_whatever_order_parts_stand_each_keeps_its_value(order: list[RowField], channels: int) -> None:
    """Rows of one order of parts, taken to another and back, are the same rows."""
    ends, parts = {"joint": 0, "channel": 0}, []
    for part in order:
        parts.append(msgspec.structs.replace(part, offset=ends[part.scope]))
        ends[part.scope] += part.width
    other = RowLayout(BENCH.graph_sha256, tuple(parts))
    rows = filled(BENCH, channels)
    zeros = np.zeros(rows.shape[1], np.float32)
    there = carry_over(rows, BENCH.layout, other, zeros)
    assert sorted(there[0]) == sorted(rows[0])
    assert (carry_over(there, other, BENCH.layout, zeros) == rows).all()


def test_a_layout_survives_being_written_down() -> None:
    """As a manifest does it."""
    layout = BENCH.layout
    assert msgspec.json.decode(msgspec.json.encode(layout), type=RowLayout) == layout
