"""Align: what is late, what is a duplicate, and how long after its predecessor the rest came."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.records import NO_TIME
from detector.stages.align import align


def plainly(slots: list[int], event_ns: list[int], last: dict[int, int]) -> list[tuple[bool, bool, int]]:
    """The rule, sample by sample."""
    found = []
    for slot, time in zip(slots, event_ns, strict=True):
        before = last.get(slot)
        accepted = before is None or time > before
        found.append((accepted, time == before, time - before if accepted and before is not None else 0))
        if accepted:
            last[slot] = time
    return found


def run(slots: list[int], event_ns: list[int], last: dict[int, int]) -> list[tuple[bool, bool, int]]:
    """The same by `align`."""
    aligned = align(
        np.array(slots, np.int64),
        np.array(event_ns, np.int64),
        np.array([last.get(slot, NO_TIME) for slot in slots], np.int64),
    )
    elapsed = np.where(aligned.accepted, aligned.elapsed_ns, 0)
    return list(zip(aligned.accepted.tolist(), aligned.is_duplicate.tolist(), elapsed.tolist(), strict=True))


TIMES = st.integers(0, 8) | st.integers(0, 2**63 - 1)


@given(st.lists(st.tuples(st.integers(0, 4), TIMES), max_size=30), st.dictionaries(st.integers(0, 4), TIMES))
def test_align_is_the_loop(samples: list[tuple[int, int]], last: dict[int, int]) -> None:
    """For any times the vectorised stage says what a loop over the samples says."""
    samples = sorted(samples, key=lambda sample: sample[0])
    slots, times = [slot for slot, _ in samples], [time for _, time in samples]
    assert run(slots, times, last) == plainly(slots, times, dict(last))


def test_only_accepted_samples_are_predecessors() -> None:
    """A late sample and a duplicate do not move what the next one is compared with."""
    found = run([3, 3, 3, 3, 3, 7], [10, 5, 10, 7, 12, 1], {3: 4})
    late, duplicate = (False, False, 0), (False, True, 0)
    assert found == [(True, False, 6), late, duplicate, late, (True, False, 2), (True, False, 0)]


def test_nothing_to_align() -> None:
    """No samples, no verdicts."""
    assert run([], [], {}) == []
