"""Route: each sample to its stream's row, each new stream to the first detector that wants it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.errors import CorruptCheckpointError
from detector.records import NO_TIME, Reason, Samples, Shard
from detector.settings import MatchSettings
from detector.stages.decide import DECIDE
from detector.stages.route import Claim, Routed, Router
from detector.state.arena import Arena

NAN = np.nan


def claim(channels: tuple[str, ...] | None = None, name: str = "d", **match: Any) -> Claim:
    def new_arena(names: tuple[str, ...]) -> Arena:
        return Arena(name, "sha", names, np.zeros(3, np.float32), np.zeros(1, DECIDE))

    return Claim(MatchSettings(**match), channels, new_arena)


def router(*claims: Claim, topic: str = "plant", max_streams: int = 100, rejects_unknown: bool = False) -> Router:
    return Router(topic, claims or [claim()], max_streams=max_streams, rejects_unknown=rejects_unknown)


def samples(*of: tuple[str, dict[str, float]], labels: list[dict[str, str] | None] | None = None) -> Samples:
    shapes = list(dict.fromkeys(tuple(values) for _, values in of))
    return Samples(
        shard=Shard("c", "plant", 0),
        index=np.arange(len(of)),
        streams=[stream for stream, _ in of],
        event_ns=np.arange(len(of)),
        append_ns=np.full(len(of), NO_TIME),
        positions=np.arange(len(of)) + 50,
        shapes=shapes,
        shape_of=np.array([shapes.index(tuple(values)) for _, values in of], np.intp),
        cells=[np.array([list(v.values()) for _, v in of if tuple(v) == shape]) for shape in shapes],
        labels=labels,
    )


def reasons(routed: Routed) -> list[tuple[int, Reason]]:
    return [(reject.index, reject.reason) for reject in routed.rejects]


def test_samples_come_sorted_by_slot_and_in_order_within_it() -> None:
    """The stages after it rely on that."""
    to = router()
    to.route(samples(("a", {"v": 0}), ("b", {"v": 0})))
    [batch] = to.route(samples(("b", {"v": 1}), ("c", {"v": 2}), ("a", {"v": 3}), ("b", {"v": 4}))).batches
    assert (batch.slots.tolist(), batch.at.tolist()) == ([0, 1, 1, 2], [2, 0, 3, 1])
    assert batch.values.tolist() == [[3], [1], [4], [2]]


def test_a_new_stream_gets_one_row() -> None:
    """However often it comes in the poll that brings it."""
    to = router()
    routed = to.route(samples(("a", {"v": 0}), ("a", {"v": 1})))
    assert (len(routed.created), len(to.slots), to.arenas[0].streams) == (1, 1, ["a"])


def test_the_first_detector_that_matches_takes_a_stream() -> None:
    """By topic, stream and label; the others never see it."""
    to = router(
        claim(name="other topic", topic="elsewhere"),
        claim(name="pumps", stream="pump-.*"),
        claim(name="site a", labels={"site": "a|b"}),
        topic="plant",
    )
    routed = to.route(
        samples(
            ("pump-1", {"v": 0}),
            ("fan", {"v": 0}),
            ("old pump-1", {"v": 0}),
            ("fan", {"v": 0}),
            labels=[None, {"site": "a"}, {"site": "ab"}, None],
        )
    )
    assert [arena.detector for arena in to.arenas] == ["pumps", "site a"]
    assert [arena.streams for arena in to.arenas] == [["pump-1"], ["fan"]]
    assert reasons(routed) == [(2, Reason.UNWANTED)]
    assert [batch.at.tolist() for batch in routed.batches] == [[0], [1, 3]]


def test_an_unwanted_stream_may_be_wanted_with_other_labels() -> None:
    """What is remembered of a refusal must not outlive the labels that it was for."""
    to = router(claim(labels={"site": "a"}))
    one = ("fan", {"v": 0.0})
    assert reasons(to.route(samples(one, labels=[{"site": "b"}]))) == [(0, Reason.UNWANTED)]
    assert to.route(samples(one, labels=[{"site": "a"}])).created == ["fan"]


def test_channels_are_pinned_by_the_first_sample() -> None:
    """Later records may bring them in another order, only some, or others beside."""
    to = router()
    to.route(samples(("s", {"a": 0, "b": 0})))
    routed = to.route(
        samples(("s", {"b": 2, "a": 1}), ("s", {"b": 4}), ("s", {"a": 5, "x": 9, "b": 6}), ("s", {"a": 7, "b": 8}))
    )
    [batch] = routed.batches
    np.testing.assert_array_equal(batch.values, [[1, 2], [NAN, 4], [5, 6], [7, 8]])
    assert (routed.unknown_channels, routed.rejects) == (1, [])


def test_declared_channels_bind() -> None:
    """A record brings what it has of them; one that has none is rejected and makes no row."""
    to = router(claim(("a", "b")))
    routed = to.route(samples(("s", {"b": 1, "x": 0}), ("t", {"x": 0}), ("s", {"x": 3})))
    np.testing.assert_array_equal(routed.batches[0].values, [[NAN, 1]])
    assert reasons(routed) == [(1, Reason.NOTHING_OBSERVED), (2, Reason.NOTHING_OBSERVED)]
    assert (to.arenas[0].channels, to.arenas[0].streams) == (("a", "b"), ["s"])


def test_unknown_channels_can_be_refused() -> None:
    """Then the whole record is, of a known stream as of a new one."""
    to = router(claim(("a",)), rejects_unknown=True)
    routed = to.route(samples(("s", {"a": 1}), ("s", {"a": 1, "x": 0}), ("t", {"a": 1, "x": 0}), ("s", {"a": 2})))
    assert reasons(routed) == [(2, Reason.UNKNOWN_CHANNEL), (1, Reason.UNKNOWN_CHANNEL)]
    assert routed.batches[0].at.tolist() == [0, 3]


def test_each_channel_set_has_its_arena() -> None:
    """Streams of different shapes live side by side in one poll."""
    to = router()
    of = [("s", {"a": 1.0}), ("t", {"a": 2.0, "b": 3.0}), ("u", {"a": 4.0}), ("t", {"b": 5.0, "a": 6.0})]
    routed = to.route(samples(*of))
    assert [arena.channels for arena in to.arenas] == [("a",), ("a", "b")]
    assert [batch.values.tolist() for batch in routed.batches] == [[[1], [4]], [[2, 3], [6, 5]]]


def test_max_streams_bounds_the_memory() -> None:
    """A new stream beyond it is rejected, known ones go on."""
    to = router(max_streams=2)
    routed = to.route(samples(("a", {"v": 0}), ("b", {"v": 0}), ("c", {"v": 0}), ("a", {"v": 0})))
    assert reasons(routed) == [(2, Reason.TOO_MANY_STREAMS)]
    assert routed.batches[0].at.tolist() == [0, 3, 1]


def test_nothing_to_route() -> None:
    """An empty poll has no batches."""
    assert router().route(samples()).batches == []


def test_saved_streams_are_taken_in() -> None:
    """A known one keeps its slot; one that came anew in another arena leaves the first."""
    to = router()
    arena, other = to.arena(0, ("v",)), to.arena(0, ("w",))
    assert to.take_in(arena, ["a", "b"], [{}, {}]).tolist() == [0, 1]
    assert to.take_in(arena, ["b", "c"], [{}, {}]).tolist() == [1, 2]
    assert to.take_in(other, ["b"], [{}]).tolist() == [0]
    assert (len(to.slots), len(to.arenas[arena]), to.arenas[arena].streams[1]) == (3, 2, "")
    with pytest.raises(CorruptCheckpointError, match="a stream has two saved rows"):
        to.take_in(other, ["x", "x"], [{}, {}])


def test_a_free_slot_is_used_again() -> None:
    """And the row in it begins anew; the arena says who is gone, once."""
    to = router()
    to.route(samples(("a", {"v": 1}), ("b", {"v": 1})))
    [arena] = to.arenas
    arena.state[:2] = 7
    to.let_go(0, to.slots_in(0, ["a", "x"]))
    assert (len(to.slots), len(arena), "a" in to.slots) == (1, 1, False)
    [batch] = to.route(samples(("c", {"v": 1}), ("b", {"v": 1}))).batches
    assert batch.slots.tolist() == [0, 1]
    assert arena.state[:2].tolist() == [[0, 0, 0], [7, 7, 7]]
    assert (arena.streams, arena.snapshot(full=False).gone, arena.snapshot(full=True).gone) == (["c", "b"], ["a"], [])
