"""Join: samples out of narrow records, by the rules in its docstring."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.records import NO_TIME
from detector.stages.align import Joined, Partials, join

SLOTS = 4


class R(NamedTuple):
    """A record: whose, which channel, when, what; None is a null."""

    slot: int
    column: int
    time: int
    value: float | None = 1.0


class Sample(NamedTuple):
    """A sample as it was closed: by which record, whose, when, what; None where missing."""

    closing: int
    slot: int
    time: int
    values: tuple[float | None, ...]


class Found(NamedTuple):
    """What became of a feed."""

    samples: list[Sample]
    accepted: list[bool]
    is_duplicate: list[bool]


def nothing_so_far(channels: int) -> Partials:
    """Streams that were never heard."""
    values, arrived = np.full((SLOTS, channels), np.nan), np.ones((SLOTS, channels), np.uint8)
    return Partials(np.full(SLOTS, NO_TIME, np.int64), values, arrived)


def run(feed: Sequence[R], partials: Partials, first: int = 0) -> Found:
    """One batch through the join, told in record order."""
    order = sorted(range(len(feed)), key=lambda i: feed[i].slot)
    slots, columns, times = (np.array([feed[i][field] for i in order], np.int64) for field in range(3))
    values = np.array([feed[i].value for i in order], np.float64)
    joined = join(slots, columns.astype(np.intp), times, values, partials)
    accepted, is_duplicate = np.zeros((2, len(feed)), np.bool_)
    accepted[order], is_duplicate[order] = joined.accepted, joined.is_duplicate
    return Found(sorted(_samples(joined, order, first)), accepted.tolist(), is_duplicate.tolist())


def _samples(joined: Joined, order: Sequence[int], first: int) -> Iterable[Sample]:
    columns = (joined.closing, joined.slots, joined.event_ns)
    assert joined.slots.tolist() == sorted(joined.slots.tolist())
    for (closing, slot, time), row in zip(zip(*(c.tolist() for c in columns), strict=True), joined.values, strict=True):
        yield Sample(first + order[closing], slot, time, tuple(None if np.isnan(v) else v for v in row.tolist()))


class Plain:
    """The rules one record after the other."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.time = [NO_TIME] * SLOTS
        self.values: list[dict[int, float | None]] = [dict.fromkeys(range(channels)) for _ in range(SLOTS)]

    def run(self, feed: Sequence[R]) -> Found:
        """As `run` above."""
        found = Found([], [], [])
        for at, (slot, column, time, value) in enumerate(feed):
            is_twice = time == self.time[slot] and column in self.values[slot]
            found.accepted.append(time >= self.time[slot] and not is_twice)
            found.is_duplicate.append(is_twice)
            if not found.accepted[-1]:
                continue
            if time > self.time[slot]:
                if len(self.values[slot]) < self.channels:
                    found.samples.append(self._sample(at, slot))
                self.time[slot], self.values[slot] = time, {}
            self.values[slot][column] = value
            if len(self.values[slot]) == self.channels:
                found.samples.append(self._sample(at, slot))
        return Found(sorted(found.samples), found.accepted, found.is_duplicate)

    def _sample(self, at: int, slot: int) -> Sample:
        return Sample(at, slot, self.time[slot], tuple(self.values[slot].get(c) for c in range(self.channels)))


def joined(*feed: R, channels: int = 2) -> Found:
    """A feed from nothing."""
    return run(feed, nothing_so_far(channels))


def test_the_last_channel_to_arrive_closes_the_sample() -> None:
    """In any order; the sample stands where its closing record stands."""
    assert joined(R(0, 1, 10, 5.0), R(0, 0, 10, 4.0)).samples == [Sample(1, 0, 10, (4.0, 5.0))]


def test_a_later_time_closes_what_is_there() -> None:
    """A channel that did not come is missing; the record that closes begins the next sample."""
    assert joined(R(0, 0, 10, 4.0), R(0, 1, 20, 5.0), R(0, 0, 20, 6.0)).samples == [
        Sample(1, 0, 10, (4.0, None)),
        Sample(2, 0, 20, (6.0, 5.0)),
    ]


def test_a_null_has_arrived() -> None:
    """It says that its channel is missing, so nobody waits for it; a second word of it is a duplicate."""
    found = joined(R(0, 0, 10, None), R(0, 0, 10, 3.0), R(0, 1, 10, 5.0))
    assert found == Found([Sample(2, 0, 10, (None, 5.0))], [True, False, True], [False, True, False])


def test_what_comes_for_a_closed_time_is_refused() -> None:
    """Late where the stream has gone on; while the time is its last, a duplicate: all its channels were there."""
    found = joined(R(0, 0, 10), R(0, 1, 20), R(0, 1, 10), R(0, 0, 20), R(0, 0, 20), R(0, 1, 9))
    assert found.accepted == [True, True, False, True, False, False]
    assert found.is_duplicate == [False, False, False, False, True, False]


def test_one_channel_needs_no_waiting() -> None:
    """Every record closes its own sample."""
    found = joined(R(0, 0, 10), R(0, 0, 11), R(0, 0, 11), R(0, 0, 9), R(1, 0, 9), channels=1)
    assert [(sample.closing, sample.time) for sample in found.samples] == [(0, 10), (1, 11), (4, 9)]
    assert (found.accepted[2:4], found.is_duplicate[2:4]) == ([False, False], [True, False])


def test_streams_do_not_notice_each_other() -> None:
    """Their records may be interleaved as they like."""
    found = joined(R(1, 0, 10, 1.0), R(0, 0, 99, 2.0), R(1, 1, 10, 3.0), R(0, 1, 99, 4.0))
    assert found.samples == [Sample(2, 1, 10, (1.0, 3.0)), Sample(3, 0, 99, (2.0, 4.0))]


RECORDS = st.builds(
    R,
    st.integers(0, SLOTS - 1),
    st.integers(0, 2),
    st.integers(0, 6),
    st.sampled_from([None, 0.0, -0.0, 1.5, 1e300]),
)


@pytest.mark.parametrize("channels", [1, 2, 3])
@settings(max_examples=400, deadline=None)
@given(feed=st.lists(RECORDS, max_size=60), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_the_join_is_the_loop_over_records(channels: int, feed: list[R], cuts: list[int]) -> None:
    """In one batch or cut anywhere; what is remembered between two batches has the same bytes as in one."""
    feed = [one._replace(column=one.column % channels) for one in feed]
    expected = Plain(channels).run(feed)
    whole, in_parts = nothing_so_far(channels), nothing_so_far(channels)
    assert run(feed, whole) == expected
    edges = sorted({0, *(min(cut, len(feed)) for cut in cuts), len(feed)})
    found = Found([], [], [])
    for start, end in pairwise(edges):
        for into, part in zip(found, run(feed[start:end], in_parts, start), strict=True):
            into.extend(part)
    assert found == expected
    assert [column.tobytes() for column in in_parts] == [column.tobytes() for column in whole]


@pytest.mark.parametrize("channels", [1, 2, 3])
@settings(max_examples=300, deadline=None)
@given(feed=st.lists(RECORDS, max_size=60))
def test_no_record_closes_two_samples_of_its_stream(channels: int, feed: list[R]) -> None:
    """Ids of alerts hash the position of a sample: two samples of a stream must never share one, and positions rise."""
    found = run([one._replace(column=one.column % channels) for one in feed], nothing_so_far(channels))
    for slot in range(SLOTS):
        own = [(sample.time, sample.closing) for sample in found.samples if sample.slot == slot]
        assert len({closing for _, closing in own}) == len({time for time, _ in own}) == len(own)
        assert sorted(own) == sorted(own, key=lambda pair: pair[1])
    if channels == 1:
        assert [sample.closing for sample in found.samples] == np.flatnonzero(found.accepted).tolist()


@pytest.mark.parametrize("rule", ["rules 3 and 4", "what is remembered"])
def test_a_join_that_breaks_a_rule_is_caught(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: without a later time's closing, or with a forgetful memory, the loop disagrees."""
    feed = [R(0, 0, 1), R(0, 0, 2), R(0, 1, 2)]
    expected = Plain(2).run(feed)

    def in_two() -> list[Sample]:
        partials = nothing_so_far(2)
        first = run(feed[:2], partials)
        if rule == "what is remembered":
            partials = nothing_so_far(2)
        return sorted(first.samples + run(feed[2:], partials, 2).samples)

    if rule == "rules 3 and 4":
        assert in_two() == expected.samples
        module = sys.modules[join.__module__]
        sound = module._close
        monkeypatch.setattr(module, "_close", lambda t, row, begins, new: sound(t, row, begins & False, new))
    assert in_two() != expected.samples
