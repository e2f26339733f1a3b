"""Arena: rows grow, are marked, copied and taken back."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from detector.checkpoint.format import encode_segment
from detector.errors import CorruptCheckpointError
from detector.records import NO_TIME
from detector.stages.decide import DECIDE
from detector.state.arena import Arena
from detector.state.slots import Slots

ROW = np.arange(70, dtype=np.float32)


def arena(row: np.ndarray = ROW, channels: int = 1) -> Arena:
    return Arena("d", "sha", tuple(f"c{c}" for c in range(channels)), row, np.zeros(1, DECIDE))


def test_a_new_row_is_the_initial_row() -> None:
    """Also after the arena has grown many times."""
    rows = arena()
    slots = [rows.create(f"s{i}", {}) for i in range(5000)]
    assert slots == list(range(5000))
    assert np.array_equal(rows.state[:5000], np.tile(ROW, (5000, 1)))
    assert (rows.last_ns[:5000] == NO_TIME).all()
    assert not rows.dirty.any()


def test_growing_keeps_what_was_written() -> None:
    """Rows written before an arena grows are there after."""
    rows = arena()
    for i in range(3000):
        rows.state[rows.create(f"s{i}", {}), 0] = i
    assert np.array_equal(rows.state[:3000, 0], np.arange(3000))


def test_a_row_must_be_float32() -> None:
    """Another dtype would be cast silently, wave by wave."""
    with pytest.raises(TypeError, match="float32"):
        arena(ROW.astype(np.float64))


def test_a_snapshot_takes_what_changed_and_the_next_only_what_changed_since() -> None:
    """Kept rows are clean until they are touched again."""
    rows = arena()
    for name in "abc":
        rows.create(name, {"n": name})
    rows.dirty[[0, 2]] = True
    first = rows.snapshot(full=False)
    assert (first.streams, first.labels) == (["a", "c"], [{"n": "a"}, {"n": "c"}])
    rows.dirty[1] = True
    rows.kept()
    assert rows.snapshot(full=False).streams == ["b"]
    assert rows.snapshot(full=True).streams == ["a", "b", "c"]


def test_a_dropped_snapshot_is_taken_again() -> None:
    """Its rows come with those that changed meanwhile; so they do when nobody said what became of it."""
    rows = arena()
    for name in "abc":
        rows.create(name, {})
    rows.dirty[[0, 2]] = True
    rows.snapshot(full=False)
    rows.dirty[1] = True
    rows.dropped()
    assert rows.snapshot(full=False).streams == ["a", "b", "c"]
    assert rows.snapshot(full=False).streams == ["a", "b", "c"]


def test_a_snapshot_is_a_copy() -> None:
    """What happens afterwards does not reach it."""
    rows = arena()
    rows.dirty[rows.create("a", {})] = True
    taken = rows.snapshot(full=False)
    rows.state[0] = -1
    assert np.array_equal(taken.arrays["state"][0], ROW)


def test_saved_rows_come_back() -> None:
    """Written into another arena, in other slots, they are the same rows, and clean."""
    rows, other = arena(), arena()
    for name in "ab":
        rows.create(name, {"n": name})
    rows.state[:2] += 5
    rows.last_ns[:2] = 7
    saved = rows.snapshot(full=True)
    for name in "xab":
        other.create(name, {})
    other.write(np.array([1, 2]), saved)
    assert np.array_equal(other.state[1:3], rows.state[:2])
    assert (other.last_ns[1:3].tolist(), other.labels) == ([7, 7], [{}, {"n": "a"}, {"n": "b"}])
    assert not other.dirty.any()


def test_who_is_gone_is_told_once_it_is_durable_and_not_before() -> None:
    """A snapshot that was not kept is told again, with who left meanwhile; a base has nothing to take back."""
    rows = arena()
    for name in "abc":
        rows.create(name, {})
    rows.free(np.array([0]))
    assert rows.snapshot(full=False).gone == ["a"]
    rows.free(np.array([2]))
    rows.dropped()
    assert rows.snapshot(full=False).gone == ["a", "c"]
    rows.kept()
    assert rows.snapshot(full=False).gone == []
    rows.free(np.array([1]), is_told=True)
    base = rows.snapshot(full=True)
    assert (base.streams, base.gone, len(rows)) == ([], [], 0)


def test_a_slot_that_was_used_again_is_written_with_its_new_row() -> None:
    """Between a snapshot and its end a stream may leave and another come."""
    rows = arena()
    for name in "ab":
        rows.dirty[rows.create(name, {})] = True
    rows.snapshot(full=False)
    rows.free(np.array([0, 1]))
    rows.dirty[rows.create("c", {})] = True
    rows.dropped()
    taken = rows.snapshot(full=False)
    assert (taken.streams, taken.gone) == (["c"], ["a", "b"])
    assert np.array_equal(taken.arrays["state"], [ROW])


def test_many_streams_come_at_once() -> None:
    """Free slots first, then as one block; what nobody wrote is the initial row."""
    rows = arena()
    for name in "ab":
        rows.create(name, {})
    rows.state[0] = 7
    rows.free(np.array([0]))
    slots = rows.extend(["x", "y", "z"], [{}, {"n": "y"}, {}])
    assert slots.tolist() == [0, 2, 3]
    assert (rows.streams, rows.labels[2], len(rows)) == (["x", "b", "y", "z"], {"n": "y"}, 4)
    later = rows.create("later", {})
    assert np.array_equal(rows.state[[1, later]], [ROW, ROW])


def test_sizes_are_those_of_segments() -> None:
    """About: names and rows, without what a file has besides."""
    rows = arena(channels=5)
    for i in range(1000):
        rows.create(f"plant-7/pump-{i:04}", {})
    rows.dirty[:250] = True
    whole, delta = (sum(map(len, encode_segment([rows.snapshot(full=full)]))) for full in (True, False))
    rows.dropped()
    assert rows.saved_bytes <= whole <= 1.02 * rows.saved_bytes
    assert delta == pytest.approx(rows.changed_bytes, rel=0.02)


@pytest.mark.parametrize("wrong", ["width", "dtype", "column"])
def test_rows_of_another_layout_are_refused(wrong: str) -> None:
    """A checkpoint that does not fit is an error, never a silent cast."""
    rows = arena()
    rows.create("a", {})
    saved = rows.snapshot(full=True)
    if wrong == "width":
        saved.arrays["state"] = saved.arrays["state"][:, :-1]
    elif wrong == "dtype":
        saved.arrays["state"] = saved.arrays["state"].astype(np.float64)
    else:
        del saved.arrays["band"]
    with pytest.raises(CorruptCheckpointError):
        rows.write(np.array([0]), saved)


@pytest.mark.parametrize("channels", [1, 5])
def test_memory_per_stream_is_bounded(channels: int) -> None:
    """At most row bytes x 1.1 + 400 + 24 C for each stream, its name and its place in the dictionary included."""
    count = 30_000
    row, no_labels = np.zeros(5 + 66 * channels, np.float32), {}  # the router shares one empty map, too
    gc.collect()
    tracemalloc.start()
    try:
        rows, slots, worst = arena(row, channels), Slots(), 0.0
        for i in range(count):
            name = f"plant-7/pump-{i}"
            slots.add(name, 0, rows.create(name, no_labels))
            if i % 100 == 99 and i > 2000:
                worst = max(worst, tracemalloc.get_traced_memory()[0] / (i + 1))
    finally:
        tracemalloc.stop()
    assert worst <= row.nbytes * 1.1 + 400 + 24 * channels
