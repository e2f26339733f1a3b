"""Whatever the polls, the waves and the restarts: the same records give the same bytes.

Feeds are short and rough: streams open anomalies, fall silent, come late, send broken records; positions skip, so
that a look for silence falls due every few records.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.engine import Detector, Engine
from detector.engine.freezing import Freezing
from detector.model.bundle import read_bundle
from detector.model.session import Session
from detector.records import ArenaRows, Outcome
from detector.settings import DetectorSettings, EngineSettings, RecordSettings
from tests.engine_feed import SHARD, PlainModel, S, detector, engine, memory, records, s, scores_by_stream

DECIDE = {"resolve_after_s": 60.0, "update_every_s": 50.0, "cool_down_s": 10.0, "resolve_samples": 2}
FREEZE = [
    {"stream": "s-[13]", "topic": "topic", "partition": 0, "from": 2500, "until": 9000},
    {"stream": "s-4", "from": "2024-11-21T11:55:00Z"},  # 100 s after the feed's first
]
SHAPES = [("v",), ("a", "b"), ("b", "a"), ("a", "x")]


class Feed(NamedTuple):
    """Records and where they stand."""

    lines: list[S | bytes | None]
    positions: list[int]


@st.composite
def feeds(draw: Any) -> Feed:
    """Up to 60 records of up to 5 streams."""
    lines: list[S | bytes | None] = []
    positions: list[int] = []
    now, position = 0, draw(st.integers(0, 2000))
    for _ in range(draw(st.integers(1, 60))):
        now += draw(st.sampled_from([0, 1, 5, 30, 70]))
        position += draw(st.sampled_from([1, 1, 90, 400, 2300]))
        stream = draw(st.integers(0, 4))
        shape = SHAPES[0] if stream < 3 else draw(st.sampled_from(SHAPES[1:]))
        values = {name: draw(st.sampled_from([0.0, 1.0, 4.5, 9.0, None])) for name in shape}
        late = draw(st.sampled_from([0, 0, 0, 0, 20, 200]))
        broken = draw(st.integers(0, 12)) == 0
        lines.append(b"{" if broken else S(f"s-{stream}", max(now - late, 0), values))
        positions.append(position)
    return Feed(lines, positions)


def new_engine(kind: type[Engine] | None = None, wave_rows: int = 1024) -> Engine:
    """Two detectors of different patience, hence several arenas."""
    detectors = [
        detector(PlainModel(name="early"), match={"stream": "s-[03]"}, decide=DECIDE),
        detector(PlainModel(name="late"), decide=DECIDE | {"resolve_after_s": 90.0, "min_samples": 2}, freeze=FREEZE),
    ]
    if kind is None:
        return engine(*detectors, wave_rows=wave_rows)
    return kind(SHARD, detectors, RecordSettings(), EngineSettings(wave_rows=wave_rows))


def polls(feed: Feed, cuts: Sequence[int]) -> list[Any]:
    """The feed in polls that end at the cuts."""
    ends = [*sorted({cut for cut in cuts if 0 < cut < len(feed.lines)}), len(feed.lines)]
    starts = [0, *ends[:-1]]
    made = [records(feed.lines[a:b], positions=feed.positions[a:b]) for a, b in zip(starts, ends, strict=True)]
    for poll, following in pairwise(made):
        poll.next_position = int(following.positions[0])  # as a file source says it: where the next line begins
    return made


class Result(NamedTuple):
    """All that must not depend on polls."""

    alerts: list[bytes]
    scores: dict[str, list[tuple[int, bytes]]]
    rejects: list[tuple[int, str]]
    rows: dict[str, dict[str, bytes]]


def result(of: Engine, outcomes: Sequence[Outcome]) -> Result:
    """What came out."""
    return Result(
        [msgspec.json.encode(alert) for outcome in outcomes for alert in outcome.alerts],
        scores_by_stream(outcomes),
        [(reject.position, reject.reason.label) for outcome in outcomes for reject in outcome.rejects],
        memory(of),
    )


def run(feed: Feed, cuts: Sequence[int] = (), kind: type[Engine] | None = None, wave_rows: int = 1024) -> Result:
    """The feed through one engine."""
    of = new_engine(kind, wave_rows)
    return result(of, [of.advance(poll) for poll in polls(feed, cuts)])


ROUGH = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@ROUGH
@given(feeds(), st.lists(st.integers(1, 60), max_size=8), st.integers(1, 4))
def test_polls_and_waves_change_nothing(feed: Feed, cuts: list[int], wave_rows: int) -> None:
    """In one poll, in several, one record at a time, in waves of any size: byte-identical."""
    whole = run(feed)
    assert run(feed, cuts, wave_rows=wave_rows) == whole
    assert run(feed, range(60)) == whole


@ROUGH
@given(feeds(), st.lists(st.integers(1, 60), max_size=6), st.lists(st.booleans(), min_size=7, max_size=7))
def test_restarts_from_checkpoints_change_nothing(feed: Feed, cuts: list[int], kept: list[bool]) -> None:
    """Base and deltas, some of them dropped and taken again, bring back the engine that wrote them."""
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
    assert result(of, outcomes) == run(feed)


class LooksAtTheEnd(Engine):
    """What must not be: silence looked for when a poll ends."""

    def _looks(self, samples: Any, positions: Any, every: int | None) -> Any:
        return np.array([len(samples)] if every == 1000 else [], np.intp)


def test_a_look_that_follows_the_polls_is_caught() -> None:
    """The negative control: the property fails for an engine that ties silence to polls."""
    feed = Feed([s("s-0", 0, 9), s("s-1", 80), s("s-0", 85, 9), s("s-1", 90)], [0, 100, 200, 300])
    assert run(feed, (), LooksAtTheEnd) != run(feed, (2,), LooksAtTheEnd)
    assert run(feed) == run(feed, (2,))


def test_a_freeze_that_follows_the_waves_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the property fails where all of a wave is frozen as soon as one of its samples is."""
    rules = [{"stream": "s-2", "from": 8}, {"stream": "s-4", "from": 99}]
    monkeypatch.setattr("tests.properties.test_engine_polls.FREEZE", rules)
    feed = Feed([s(f"s-{2 + at % 2 * 2}", at // 2, 1.0) for at in range(20)], [*range(20)])
    assert run(feed) == run(feed, range(20))
    honest = Freezing.learning

    def of_the_wave(*wave: Any) -> Any:
        told = honest(*wave)
        return None if told is None else np.full_like(told, told.min())

    monkeypatch.setattr(Freezing, "learning", of_the_wave)
    assert run(feed) != run(feed, range(20))


class KeepsNoLastPosition(Engine):
    """What must not be: a restart that takes the next position less one for that of the last record."""

    def restore(
        self, next_position: int, highest_event_ns: int, arenas: Any, last_position: Any = None, **cold: Any
    ) -> None:
        super().restore(next_position, highest_event_ns, arenas, None, **cold)


def test_a_restart_that_forgets_the_last_position_is_caught() -> None:
    """The negative control: where positions skip past a thousandth between two polls, the look there would be lost."""
    feed = Feed([s("s-0", 0, 9), s("s-1", 500), s("s-1", 600)], [10, 990, 1010])
    found = []
    for kind in (Engine, KeepsNoLastPosition):
        before, after = polls(feed, [2])
        first, second = new_engine(kind), new_engine(kind)
        outcomes = [first.advance(before)]
        taken = first.snapshot(full=True)
        second.restore(taken.next_position, taken.highest_event_ns, taken.arenas, taken.last_position)
        found.append(result(second, [*outcomes, second.advance(after)]) == run(feed))
    assert found == [True, False]


@pytest.mark.parametrize("bundle", ["tiny-any", "tiny-fixed"])
def test_with_a_real_bundle_too(bundle: str) -> None:
    """Through ONNX Runtime: polls of 1, 7, 64 and 900 records in waves of 1 to 1024 rows give the same bits."""
    read = read_bundle(Path(__file__).parents[1] / "golden" / f"{bundle}.onnx")
    names = read.channels or ("a", "b", "c")
    random = np.random.default_rng(11)
    lines: list[S | bytes | None] = []
    for i in range(900):
        values = {name: None if random.random() < 0.1 else float(random.normal(50, 2)) for name in names}
        jump = 40.0 if 500 < i < 560 else 0.0
        lines.append(S(f"s-{random.integers(0, 4)}", i * 7.0, {k: v and v + jump for k, v in values.items()}))
    feed = Feed(lines, list(range(900)))
    session = Session(read, "cpu")
    results = []
    for size, rows in ((900, 1024), (64, 3), (7, 1), (1, 1024)):
        settings_of = DetectorSettings(decide={"threshold_nines": 1.0})
        of = Engine(
            SHARD, [Detector("d", settings_of, read, session)], RecordSettings(), EngineSettings(wave_rows=rows)
        )
        results.append(result(of, [of.advance(poll) for poll in polls(feed, range(0, 900, size))]))
    assert results[0].alerts
    assert all(one == results[0] for one in results[1:])
