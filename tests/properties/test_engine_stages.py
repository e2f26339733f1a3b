"""Decode and route against the plain way, on whatever Hypothesis thinks of."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.records import NO_TIME, Reason, Records, Samples, Shard
from detector.settings import MatchSettings, RecordSettings
from detector.stages.decide import DECIDE
from detector.stages.decode import Decoder, screen
from detector.stages.route import Claim, Router
from detector.state.arena import Arena

SHARD = Shard("c", "t", 0)
CHANNELS = st.sampled_from(["a", "b", "c", "é"])
NUMBERS = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**20), 10**20)
DOCUMENTS = st.fixed_dictionaries(
    {"stream": st.text(max_size=3), "time": st.floats(0, 9e9), "values": st.dictionaries(CHANNELS, NUMBERS, max_size=3)}
)
LINES = (
    DOCUMENTS.map(lambda document: json.dumps(document).encode())
    | st.recursive(st.none() | st.booleans() | st.text(max_size=3), lambda x: st.lists(x, max_size=3)).map(
        lambda anything: json.dumps(anything).encode()
    )
    | st.binary(max_size=20)
    | st.none()
)


def decode(lines: list[bytes | None]) -> dict[int, Any]:
    """Per record its sample or its reason."""
    n = len(lines)
    samples, rejects = Decoder(RecordSettings()).decode(
        Records(SHARD, lines, [None] * n, np.arange(n), np.full(n, NO_TIME), n)
    )
    samples, screened = screen(samples, 1.0)
    found: dict[int, Any] = {reject.index: reject.reason for reject in [*rejects, *screened]}
    assert len(found) == len(rejects) + len(screened)
    seen = [0] * len(samples.shapes)
    for at, index in enumerate(samples.index.tolist()):
        shape = samples.shape_of[at]
        cells = samples.cells[shape][seen[shape]]
        seen[shape] += 1
        assert index not in found
        assert np.isfinite(cells).any()
        assert not np.isinf(cells).any()
        found[index] = (samples.streams[at], int(samples.event_ns[at]), samples.shapes[shape], cells.tobytes())
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES, max_size=12))
def test_each_record_is_decoded_as_if_it_were_alone(lines: list[bytes | None]) -> None:
    """Nothing crashes, nothing is lost or doubled, and neighbours have no influence."""
    together = decode(lines)
    assert sorted(together) == list(range(len(lines)))
    assert together == {at: decode([line])[0] for at, line in enumerate(lines)}


def plainly(document: dict[str, Any]) -> Any:
    """What must become of a well-formed document."""
    values = {name: None if value is None else float(value) for name, value in document["values"].items()}
    if any(value is not None and not np.isfinite(value) for value in values.values()):
        return Reason.NOT_FINITE
    if all(value is None for value in values.values()):
        return Reason.NOTHING_OBSERVED
    cells = np.array(list(values.values()), np.float64)
    whole = int(document["time"])
    ns = whole * 10**9 + round((document["time"] - whole) * 1e9)
    return document["stream"], ns, tuple(values), cells.tobytes()


@settings(max_examples=300, deadline=None)
@given(st.lists(DOCUMENTS, min_size=1, max_size=8))
def test_whole_documents_are_decoded_as_json_says(documents: list[dict[str, Any]]) -> None:
    """Against the standard library, bit for bit; NaN and infinities are refused."""
    found = decode([json.dumps(document).encode() for document in documents])
    assert found == {at: plainly(document) for at, document in enumerate(documents)}


ROUTED = st.lists(
    st.tuples(
        st.sampled_from(["s", "t", "u", "x-1"]),
        st.dictionaries(CHANNELS, st.floats(-9, 9) | st.just(np.nan), min_size=1, max_size=3),
    ),
    max_size=25,
)


def samples_of(feed: list[tuple[str, dict[str, float]]]) -> Samples:
    """The feed as samples."""
    shapes = list(dict.fromkeys(tuple(values) for _, values in feed))
    n = len(feed)
    return Samples(
        shard=SHARD,
        index=np.arange(n),
        streams=[stream for stream, _ in feed],
        event_ns=np.arange(n),
        append_ns=np.full(n, NO_TIME),
        positions=np.arange(n),
        shapes=shapes,
        shape_of=np.array([shapes.index(tuple(values)) for _, values in feed], np.intp),
        cells=[np.array([list(v.values()) for _, v in feed if tuple(v) == shape]) for shape in shapes],
    )


@settings(max_examples=300, deadline=None)
@given(ROUTED, st.integers(0, 25), st.sampled_from([None, ("b", "a")]))
def test_route_is_the_loop(feed: list[tuple[str, dict[str, float]]], cut: int, declared: Any) -> None:
    """In one poll or two: each sample comes with its own values under its stream's channels, or is refused."""
    feed = [(stream, values) for stream, values in feed if not all(np.isnan(v) for v in values.values())]
    pinned: dict[str, tuple[str, ...]] = {}
    expected: dict[int, Any] = {}
    for at, (stream, values) in enumerate(feed):
        channels = pinned.get(stream, declared or tuple(values))
        row = [values.get(name, np.nan) for name in channels]
        if np.isnan(row).all():
            expected[at] = Reason.NOTHING_OBSERVED
        elif stream.startswith("x"):
            expected[at] = Reason.UNWANTED
        else:
            pinned[stream] = channels
            expected[at] = (stream, channels, np.array(row).tobytes())
    expected |= {at: Reason.UNWANTED for at, (stream, _) in enumerate(feed) if stream.startswith("x")}

    def new_arena(names: tuple[str, ...]) -> Arena:
        return Arena("d", "sha", names, np.zeros(1, np.float32), np.zeros(1, DECIDE))

    router = Router(
        "t", [Claim(MatchSettings(stream="[^x].*"), declared, new_arena)], max_streams=9, rejects_unknown=False
    )
    found: dict[int, Any] = {}
    for start, part in ((0, feed[:cut]), (cut, feed[cut:])):
        routed = router.route(samples_of(part))
        for reject in routed.rejects:
            found[start + reject.index] = reject.reason
        for batch in routed.batches:
            arena = router.arenas[batch.arena]
            assert batch.slots.tolist() == sorted(batch.slots.tolist())
            for at, slot, row in zip(batch.at.tolist(), batch.slots.tolist(), batch.values, strict=True):
                assert start + at not in found
                found[start + at] = (arena.streams[slot], arena.channels, row.tobytes())
    assert found == expected
