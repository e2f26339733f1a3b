"""Cold rows: the index over them, and which segments are joined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.checkpoint.cold import pick, to_join
from detector.records import ArenaRows
from detector.state.cold import COLD_ROWS, ColdIndex, heard_ns


def index(*segments: tuple[str, list[int]]) -> ColdIndex:
    """Segments of streams with one letter each, and when they were heard."""
    of = ColdIndex()
    for streams, times in segments:
        of.add(list(streams), np.array(times))
    return of


def test_a_stream_is_found_where_it_went_last() -> None:
    """What stood elsewhere before is dead."""
    of = index(("abc", [1, 2, 3]), ("bd", [9, 9]))
    assert (len(of), "b" in of, "x" in of) == (4, True, False)
    assert of.places(["a", "b", "x", "d", "a"]) == {0: [0], 1: [0, 1]}
    assert dict(of.live) == {0: 2, 1: 2}
    assert of.live_rows(0).tolist() == [0, 2]


def test_what_comes_back_is_cold_no_longer() -> None:
    """Once; a segment without a live row is no more."""
    of = index(("ab", [1, 2]))
    of.remove(["a", "x"])
    of.remove(["a", "b"])
    assert (len(of), of.places("ab"), dict(of.live)) == (0, {}, {0: 0})
    of.drop([0])
    assert dict(of.live) == {}


def test_the_forgotten_are_cold_no_longer() -> None:
    """And their rows are no room for others to be counted."""
    of = index(("abc", [1, 5, 9]), ("de", [7, 2]))
    assert of.oldest_ns == 1
    assert of.forget(6) == 3
    assert (len(of), "b" in of, "c" in of, "d" in of, "e" in of) == (2, False, True, True, False)
    assert of.forget(6) == 0
    assert of.oldest_ns == 7
    of.add(["b"], np.array([3]))  # heard anew, of an old time
    assert "b" in of


def test_rows_that_are_not_live_in_a_checkpoint_are_no_streams() -> None:
    """Hot ones count before them."""
    of = ColdIndex()
    of.add(["a", "b"], np.array([1, 2]), np.array([False, True]))
    assert (len(of), "a" in of, of.places(["a", "b"])) == (1, False, {0: [1]})


def test_moved_rows_are_found_in_their_new_segment() -> None:
    """One that came back meanwhile is dead there; one that left anew is where it went."""
    of = index(("ab", [1, 2]), ("cd", [3, 4]))
    of.remove(["a"])
    of.add(["d"], np.array([8]))
    number = of.move(["a", "c", "d", "b"], [(0, 0), (1, 0), (1, 1), (0, 1)])
    assert of.places("abcd") == {number: [3, 1], 2: [0]}
    assert dict(of.live) == {0: 0, 1: 0, 2: 1, number: 2}


@given(st.lists(st.tuples(st.sampled_from("+-f"), st.sets(st.sampled_from("abcdefgh")), st.integers(0, 20))))
def test_the_index_is_what_a_dictionary_says(acts: list[tuple[str, set[str], int]]) -> None:
    """The fast way against the plain way."""
    of = ColdIndex()
    plain: dict[str, tuple[int, int]] = {}
    for act, streams, time in acts:
        named = sorted(streams)
        if act == "+":
            number = of.add(named, np.arange(time, time + len(named)))
            plain |= {stream: (number, row) for row, stream in enumerate(named)}
        elif act == "-":
            of.remove(named)
            plain = {stream: place for stream, place in plain.items() if stream not in streams}
        else:
            before = len(plain)
            plain = {stream: place for stream, place in plain.items() if of._heard_ns[place[0]][place[1]] >= time}
            assert of.forget(time) == before - len(plain)
    assert len(of) == len(plain)
    found = of.places("abcdefgh")
    assert {(number, row) for number, rows in found.items() for row in rows} == set(plain.values())


@pytest.mark.parametrize(
    ("live", "joined"),
    [
        ({}, 0),
        (dict.fromkeys(range(15), 10), 0),  # few are borne
        (dict.fromkeys(range(16), 10), 16),
        (dict.fromkeys(range(99), 10), 16),  # at most so many at once
        (dict.fromkeys(range(99), COLD_ROWS), 0),
        (dict.fromkeys(range(99), COLD_ROWS // 2 - 1), 2),
        (dict.fromkeys(range(99), COLD_ROWS // 2), 0),
    ],
)
def test_many_segments_that_are_less_than_half_full_are_joined(live: dict[int, int], joined: int) -> None:
    """Into one, that is not overfull."""
    chosen = to_join(live)
    assert len(chosen) == joined
    assert sum(live[number] for number in chosen) <= COLD_ROWS


def test_rows_are_counted_through_the_arenas_of_a_segment() -> None:
    """And a sample that is not yet whole counts as heard."""
    arenas = [
        ArenaRows("d", "s", ("a",), ["x", "y"], [{}, {}], {"last_ns": np.array([1, 2])}),
        ArenaRows("d", "s", ("b",), ["z"], [{"n": "z"}], {"last_ns": np.array([3]), "join_ns": np.array([5])}),
    ]
    one, other = pick(arenas, [1, 2])
    assert (one.streams, other.streams, other.labels) == (["y"], ["z"], [{"n": "z"}])
    assert (heard_ns(one).tolist(), heard_ns(other).tolist()) == ([2], [5])
