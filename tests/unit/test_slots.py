"""Slots: one lookup from a stream to its row."""

from __future__ import annotations

import numpy as np

from detector.state.slots import Slots, arena_of, slot_of


def test_a_code_leads_to_arena_and_slot() -> None:
    """Also for the largest of both that can be."""
    slots = Slots()
    places = {"a": (0, 0), "b": (3, 5), "c": (2**30, 2**32 - 1)}
    for stream, place in places.items():
        slots.add(stream, *place)
    codes = slots.codes(["c", "a", "b"])
    assert list(zip(arena_of(codes).tolist(), slot_of(codes).tolist(), strict=True)) == [
        places["c"],
        places["a"],
        places["b"],
    ]


def test_an_unknown_stream_has_no_code() -> None:
    """It is -1, and so is its arena."""
    slots = Slots()
    slots.add("a", 0, 0)
    codes = slots.codes(["x", "a", "x"])
    assert codes.tolist() == [-1, 0, -1]
    assert np.array_equal(arena_of(codes), [-1, 0, -1])
    assert (len(slots), "a" in slots, "x" in slots, slots.code("x")) == (1, True, False, -1)


def test_places_are_given_and_taken_in_bulk() -> None:
    """As one by one."""
    slots, plain = Slots(), Slots()
    slots.add_all(["a", "b", "c"], 2, np.array([4, 7, 5]))
    for stream, slot in (("a", 4), ("b", 7), ("c", 5)):
        plain.add(stream, 2, slot)
    assert slots.codes(["a", "b", "c"]).tolist() == plain.codes(["a", "b", "c"]).tolist()
    slots.remove(["b"])
    assert slots.codes(["a", "b", "c"]).tolist() == [plain.code("a"), -1, plain.code("c")]
