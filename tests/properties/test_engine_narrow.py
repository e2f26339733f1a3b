"""Narrow records: whatever the polls, the waves and the restarts, and the same as the wide records they stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.checkpoint.format import merge
from detector.engine import Engine
from detector.records import ArenaRows, Outcome, Reason
from detector.settings import EngineSettings, RecordSettings
from tests.engine_feed import SHARD, START_S, PlainModel, detector, engine, records, s
from tests.properties.test_engine_polls import DECIDE, ROUGH, Feed, Result, polls, result

CHANNELS = ["a", "b", "c"]
RECORD = {"channel": "channel", "value": "value"}


def n(stream: str, t: float, channel: str, value: float | None) -> bytes:
    """A narrow record."""
    document = {"stream": stream, "time": START_S + t, "channel": channel, "value": value}
    return json.dumps(document).encode()


def new_engine(wave_rows: int = 1024, kind: type[Engine] = Engine, **options: Any) -> Engine:
    """Two detectors of different patience and different channels."""
    detectors = [
        detector(PlainModel(name="early"), match={"stream": "s-[03]"}, channels=CHANNELS, decide=DECIDE),
        detector(PlainModel(fixed=["a"], name="late"), decide=DECIDE | {"resolve_after_s": 90.0, "min_samples": 2}),
    ]
    return kind(SHARD, detectors, RecordSettings(**RECORD), EngineSettings(wave_rows=wave_rows), **options)


@st.composite
def feeds(draw: Any) -> Feed:
    """Up to 50 records of up to 5 streams, three of which have one channel only."""
    lines: list[Any] = []
    positions: list[int] = []
    now, position = 0, draw(st.integers(0, 2000))
    for _ in range(draw(st.integers(1, 50))):
        now += draw(st.sampled_from([0, 0, 0, 1, 5, 30, 70]))
        position += draw(st.sampled_from([1, 1, 90, 400, 2300]))
        late = draw(st.sampled_from([0, 0, 0, 0, 5, 200]))
        value = draw(st.sampled_from([0.0, 1.0, 4.5, 9.0, None]))
        channel = draw(st.sampled_from(["a", "a", "b", "c", "x"]))
        broken = draw(st.integers(0, 12)) == 0
        lines.append(b"{" if broken else n(f"s-{draw(st.integers(0, 4))}", max(now - late, 0), channel, value))
        positions.append(position)
    return Feed(lines, positions)


def run(feed: Feed, cuts: Sequence[int] = (), wave_rows: int = 1024, kind: type[Engine] = Engine) -> Result:
    """The feed through one engine, to its end."""
    of = new_engine(wave_rows, kind)
    outcomes = [of.advance(poll) for poll in polls(feed, cuts)]
    return result(of, [*outcomes, of.flush()])


@ROUGH
@given(feeds(), st.lists(st.integers(1, 50), max_size=8), st.integers(1, 4))
def test_polls_and_waves_change_nothing(feed: Feed, cuts: list[int], wave_rows: int) -> None:
    """In one poll, in several, one record at a time, in waves of any size: byte-identical."""
    whole = run(feed)
    assert run(feed, cuts, wave_rows=wave_rows) == whole
    assert run(feed, range(50)) == whole


@ROUGH
@given(feeds(), st.lists(st.integers(1, 50), max_size=6), st.lists(st.booleans(), min_size=8, max_size=8))
def test_restarts_between_any_two_records_change_nothing(feed: Feed, cuts: list[int], kept: list[bool]) -> None:
    """What has arrived of a sample is in the checkpoint, base and deltas; also before the flush at the end."""
    of = new_engine()
    outcomes: list[Outcome] = []
    segments: list[ArenaRows] = []
    for poll, is_kept in zip(polls(feed, cuts), kept, strict=False):
        outcomes.append(of.advance(poll))
        taken = of.snapshot()
        if not is_kept:
            of.dropped()
            continue
        of.kept()
        segments += taken.arenas
        of = new_engine()
        of.restore(taken.next_position, taken.highest_event_ns, segments, taken.last_position)
    assert result(of, [*outcomes, of.flush()]) == run(feed)


class ForgetsPartials(Engine):
    """What must not be: the join's columns left out of the checkpoint, as if nothing had arrived."""

    def adopt(self, rows: ArenaRows) -> None:
        """Take rows without what the join remembers."""
        rows.arrays = {name: array for name, array in rows.arrays.items() if not name.startswith("join_")}
        super().adopt(rows)


def test_a_checkpoint_without_the_partial_values_is_caught() -> None:
    """The negative control: the value that had arrived before the restart would be missing in the sample."""
    feed = Feed([n("s-0", 0, "a", 9.0), n("s-0", 0, "b", 1.0), n("s-0", 0, "c", 1.0)], [0, 1, 2])
    found = []
    for kind in (Engine, ForgetsPartials):
        before, after = polls(feed, [1])
        first, second = new_engine(kind=kind), new_engine(kind=kind)
        outcomes = [first.advance(before)]
        taken = first.snapshot(full=True)
        second.restore(taken.next_position, taken.highest_event_ns, taken.arenas, taken.last_position)
        outcomes += [second.advance(after), second.flush()]
        found.append(result(second, outcomes).scores == run(feed).scores)
    assert found == [True, False]


class LooksAtRecordsOnly(Engine):
    """What must not be: a look for silence that is left out because no record that comes is old enough."""

    def _next_look(self, samples: Any, start: int, looks: Any) -> int | None:
        return super()._next_look(samples.take(np.arange(len(samples))), start, looks[:0])


def test_a_look_that_overlooks_what_was_begun_is_caught() -> None:
    """The negative control: a sample begun long ago opens an anomaly when a later record closes it, silent at once."""
    lines = [n("s-0", 0, "a", 9.0), n("s-1", 500, "a", 0.0), n("s-0", 501, "a", 0.0), n("s-1", 502, "a", 0.0)]
    feed = Feed(lines, [0, 990, 995, 1010])
    sound = run(feed)
    assert [b'"silent"' in alert for alert in sound.alerts].count(True) >= 1
    assert run(feed, (2, 3)) == sound
    assert run(feed, kind=LooksAtRecordsOnly) != sound


# Narrow is wide -------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """The same samples twice."""

    wide: list[Any]
    narrow: list[bytes]
    refused: list[Reason]
    """Of the narrow ones, in order."""


@st.composite
def pairs(draw: Any) -> Pair:
    """Wide samples of up to 4 streams, and narrow records that stand for them, some late, twice, null or not sent."""
    pair, now = Pair([], [], []), [0] * 4
    for _ in range(draw(st.integers(1, 25))):
        stream = draw(st.integers(0, 3))
        now[stream] += draw(st.sampled_from([1, 5, 30, 70]))
        values = {name: draw(st.sampled_from([0.0, 1.0, 4.5, 9.0, -0.0, None])) for name in CHANNELS}
        if all(value is None for value in values.values()):
            values["a"] = 2.0
        pair.wide.append(s(f"s-{stream}", now[stream], **values))
        for channel in draw(st.permutations(CHANNELS)):
            if values[channel] is None and draw(st.booleans()):
                continue
            one = n(f"s-{stream}", now[stream], channel, values[channel])
            pair.narrow.append(one)
            if draw(st.integers(0, 9)) == 0:
                pair.narrow.append(one)
                pair.refused.append(Reason.DUPLICATE)
            if draw(st.integers(0, 9)) == 0:
                pair.narrow.append(n(f"s-{stream}", max(0, now[stream] - 0.5), channel, 9.0))
                pair.refused.append(Reason.LATE)
    return pair


def anonymous(outcomes: Sequence[Outcome]) -> list[bytes]:
    """Alerts without what hangs on positions: where they stand, their ids, and their order among streams."""
    alerts = [msgspec.to_builtins(alert) for outcome in outcomes for alert in outcome.alerts]
    kept = [{k: v for k, v in alert.items() if k not in ("id", "anomaly_id", "source")} for alert in alerts]
    return [msgspec.json.encode(alert) for alert in sorted(kept, key=lambda alert: alert["stream"])]  # stable


def by_stream(outcomes: Sequence[Outcome]) -> dict[str, list[tuple[int, bytes]]]:
    """Per stream the event time and the bits of score, threshold, anomaly and forecast of each sample, in order."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    for outcome in outcomes:
        for part in outcome.scores:
            columns = (part.score, part.threshold, part.anomaly, part.expected, part.lower, part.upper, part.blame)
            for at, stream in enumerate(part.streams):
                bits = b"".join(column[at].tobytes() for column in columns)
                found.setdefault(stream, []).append((int(part.event_ns[at]), bits))
    return found


def rows_of(of: Engine) -> dict[str, dict[str, bytes]]:
    """Per stream the bytes of its memory, less the join's and the positions of alerts."""
    found: dict[str, dict[str, bytes]] = {}
    for rows in of.snapshot(full=True).arenas:
        decide = rows.arrays["decide"]
        columns = {name: rows.arrays[name] for name in ("state", "band", "last_ns")}
        columns |= {name: decide[name] for name in decide.dtype.names or () if "position" not in name}
        for at, stream in enumerate(rows.streams):
            found[stream] = {name: np.ascontiguousarray(column[at]).tobytes() for name, column in columns.items()}
    return found


@ROUGH
@given(pairs(), st.integers(1, 30))
def test_narrow_is_wide(pair: Pair, size: int) -> None:
    """The same samples, joined or whole, give the same bits: scores, forecasts, blame, alerts and memory."""
    options: dict[str, Any] = {"scores_detail": True, "report_silence": False}
    wide = engine(detector(channels=CHANNELS, decide=DECIDE), **options)
    narrow = engine(detector(channels=CHANNELS, decide=DECIDE), **options, **RECORD)
    expected = [wide.advance(records(pair.wide))]
    starts = range(0, len(pair.narrow), size)
    found = [narrow.advance(records(pair.narrow[at : at + size], first=at)) for at in starts]
    found.append(narrow.flush())
    assert by_stream(found) == by_stream(expected)
    assert anonymous(found) == anonymous(expected)
    assert rows_of(narrow) == rows_of(wide)
    assert [reject.reason for outcome in found for reject in outcome.rejects] == pair.refused
    assert sum(outcome.counts["samples"] for outcome in found if "samples" in outcome.counts) == len(pair.wide)


@pytest.mark.parametrize("count", [1, 3])
def test_each_alert_has_its_own_id(count: int) -> None:
    """Also where one poll, one record or the flush closes many samples."""
    names = CHANNELS[:count]
    of = engine(detector(channels=names, decide=DECIDE | {"cool_down_s": 0.0, "resolve_samples": 1}), **RECORD)
    lines = [
        n(f"s-{i % 3}", 100 * i, name, 9.0 if i % 2 else 0.0)
        for i in range(60)
        for name in names
        if i % 5 or name != "a" or count == 1
    ]
    outcomes = [of.advance(records(lines)), of.flush()]
    ids = [alert.id for outcome in outcomes for alert in outcome.alerts]
    assert len(ids) > 10
    assert len(ids) == len(set(ids))


def test_records_may_become_narrow_and_wide_again() -> None:
    """The memory goes on: what was scored is closed, and a sample that was open then is not heard of again."""
    options: dict[str, Any] = {"report_silence": False}
    wide, narrow, again = (engine(detector(channels=["a", "b"]), **options, **record) for record in ({}, RECORD, {}))
    plain = engine(detector(channels=["a", "b"]), **options)
    whole = [s("s", 0, a=1.0, b=2.0), s("s", 60, a=3.0, b=4.0), s("s", 120, a=5.0, b=6.0)]
    wide.advance(records(whole[:1]))
    segments = wide.snapshot().arenas
    narrow.restore(1, 0, segments)
    lines = [n("s", 0, "a", 9.0), n("s", 60, "b", 4.0), n("s", 60, "a", 3.0), n("s", 90, "a", 7.0)]
    outcome = narrow.advance(records(lines, first=1))
    assert [reject.reason for reject in outcome.rejects] == [Reason.DUPLICATE]
    segments += narrow.snapshot().arenas
    for saved in (segments, merge(segments)):
        again.restore(5, 0, saved)
        again.advance(records(whole[2:], first=5))
        plain.restore(0, 0, [])
        plain.advance(records(whole))
        assert rows_of(again) == rows_of(plain)


def test_rows_of_both_kinds_lie_side_by_side() -> None:
    """A checkpoint from before the change is a base; what came since are its deltas."""
    wide = engine(detector(channels=["a", "b"]))
    narrow = engine(detector(channels=["a", "b"]), **RECORD)
    wide.advance(records([s("s", 0, a=1.0, b=2.0), s("t", 0, a=1.0, b=2.0)]))
    base = wide.snapshot().arenas
    narrow.restore(2, 0, base)
    narrow.advance(records([n("t", 60, "a", 1.0)], first=2))
    merged = merge([*base, *narrow.snapshot().arenas])
    assert sorted((rows.streams, "join_ns" in rows.arrays) for rows in merged) == [(["s"], False), (["t"], True)]
