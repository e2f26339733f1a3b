"""Wave: at most one sample of a stream and at most so many rows at once, in the stream's order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.stages.wave import wave


@given(st.lists(st.integers(0, 9), max_size=60).map(sorted), st.integers(1, 8))
def test_waves_keep_their_promises(slots: list[int], rows: int) -> None:
    """Every sample comes once, no stream twice in a wave, no wave is too large, streams keep their order."""
    waves = [index.tolist() for index in wave(np.array(slots, np.int64), rows)]
    assert sorted(at for index in waves for at in index) == list(range(len(slots)))
    assert all(0 < len(index) <= rows for index in waves)
    assert all(len({slots[at] for at in index}) == len(index) for index in waves)
    assert all([slots[at] for at in index] == sorted(slots[at] for at in index) for index in waves)
    for stream in set(slots):
        own = [at for index in waves for at in index if slots[at] == stream]
        assert own == sorted(own)


def test_as_few_waves_as_the_busiest_stream_needs() -> None:
    """One stream with three samples beside a quiet one takes three waves, the first shared."""
    assert [index.tolist() for index in wave(np.array([0, 0, 0, 4]), 100)] == [[0, 3], [1], [2]]


def test_streams_in_turn_fill_whole_waves() -> None:
    """Without a stream that comes twice, waves are cut by rows alone."""
    assert [len(index) for index in wave(np.arange(10), 4)] == [4, 4, 2]
