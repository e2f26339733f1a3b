"""Narrow records through the engine: what is refused, what is counted, and what must be declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detector.app import load_detectors
from detector.engine import require_channels
from detector.errors import ConfigurationError
from detector.records import Outcome, Reason
from detector.settings import Settings
from detector.sinks.deliver import dead_letters
from tests.engine_feed import PlainModel, detector, engine, records
from tests.properties.test_engine_narrow import RECORD, n

ANY = str(Path(__file__).parents[1] / "golden" / "tiny-any.onnx")
PAIR: dict[str, Any] = {"channels": ["a", "b"]}


def refused(outcome: Outcome) -> list[tuple[int, Reason]]:
    """Index and reason, in order."""
    return [(reject.index, reject.reason) for reject in outcome.rejects]


def test_every_refusal_names_its_record() -> None:
    """Broken ones become dead letters with the bytes that came; what is whole but not wanted is counted."""
    feed = [
        n("s", 60, "a", 1.0),
        b'{"stream": "s", "time": 1, "channel": "a"}',
        n("s", 60, "a", 2.0),
        n("s", 0, "b", 2.0),
        n("s", 60, "b", None),
        n("t", 0, "a", None),
        n("t", 60, "a", 1.0),
        n("s", 120, "b", 3.0)[:-4],
        n("other", 0, "a", 3.0),
    ]
    of = engine(detector(**PAIR, match={"stream": "[st]"}), **RECORD)
    given = records(feed, first=100)
    outcome = of.advance(given)
    assert refused(outcome) == [
        (1, Reason.MISSING_FIELD),
        (2, Reason.DUPLICATE),
        (3, Reason.LATE),
        (6, Reason.NOTHING_OBSERVED),
        (7, Reason.MALFORMED),
        (8, Reason.UNWANTED),
    ]
    letters = dead_letters(given, outcome)
    assert [(letter.position, letter.value) for letter in letters] == [(101, feed[1]), (107, feed[7])]
    assert (outcome.counts["records"], outcome.counts["samples"], outcome.counts["streams_created"]) == (9, 1, 2)
    [scores] = outcome.scores
    assert (scores.streams, scores.positions.tolist(), scores.index.tolist()) == (["s"], [104], [4])


def test_a_sample_has_its_own_time_and_its_closing_records_place() -> None:
    """Scores say when it was measured, not when the record that closed it was."""
    outcome = engine(detector(**PAIR), **RECORD).advance(records([n("s", 0, "a", 9.0), n("s", 60, "a", 1.0)]))
    [scores], [alert] = outcome.scores, outcome.alerts
    assert (scores.event_ns % (3600 * 10**9)).tolist() == [1_732_190_000 % 3600 * 10**9]
    assert (alert.time, alert.source.offset) == ("2024-11-21T11:53:20Z", 1)
    assert [(each.channel, each.observed) for each in alert.channels] == [("a", 9.0), ("b", None)]


def test_other_channels_are_left_out() -> None:
    """Counted, without a reject; they neither make a stream, nor close a sample, nor look like one of nothing."""
    of = engine(detector(**PAIR), **RECORD)
    outcome = of.advance(records([n("s", 0, "x", 1.0), n("s", 0, "a", 1.0), n("s", 60, "x", 1.0), n("s", 0, "b", 1.0)]))
    assert (refused(outcome), outcome.counts["unknown_channels"], outcome.counts["samples"]) == ([], 2, 1)
    assert outcome.created == ["s"]


def test_other_channels_can_be_rejected() -> None:
    """With the channel's name."""
    of = engine(detector(**PAIR), **RECORD, unknown_channels="reject")
    outcome = of.advance(records([n("s", 0, "x", 1.0), n("s", 0, "a", 1.0), n("s", 0, "y", 1.0)]))
    assert refused(outcome) == [(0, Reason.UNKNOWN_CHANNEL), (2, Reason.UNKNOWN_CHANNEL)]
    assert [reject.detail for reject in outcome.rejects] == ["('x',)", "('y',)"]


def test_the_flush_closes_each_sample_once() -> None:
    """At the position after the last record; streams in order of their names."""
    of = engine(detector(**PAIR), **RECORD)
    of.advance(records([n("t", 0, "a", 9.0), n("s", 0, "a", 9.0), n("u", 0, "a", None)]))
    outcome = of.flush()
    assert [(alert.stream, alert.source.offset) for alert in outcome.alerts] == [("s", 3), ("t", 3)]
    assert [reject.reason for reject in outcome.rejects] == [Reason.NOTHING_OBSERVED]
    assert outcome.next_position == 3
    again = of.flush()
    assert (again.scores, again.alerts, again.rejects) == ([], [], [])
    assert engine().flush().scores == []


def test_only_what_changed_is_dirty() -> None:
    """A value that waits for others is; a duplicate or a late one is not."""
    of = engine(detector(**PAIR), **RECORD)
    of.advance(records([n("s", 60, "a", 1.0), n("t", 0, "a", 1.0)]))
    of.snapshot()
    of.kept()
    of.advance(records([n("s", 60, "a", 1.0), n("s", 0, "b", 1.0)], first=2))
    assert of.snapshot().arenas == []
    of.advance(records([n("t", 0, "b", 1.0)], first=4))
    assert of.snapshot().arenas[0].streams == ["t"]


def test_a_detector_needs_channels_only_for_narrow_streams_that_it_may_take() -> None:
    """By the configuration or the bundle; one of other topics need not declare any."""
    any_channels, declared = detector(), detector(channels=["a"])
    named, elsewhere = detector(PlainModel(fixed=["a"])), detector(match={"topic": "wide.*"})
    require_channels([declared, named, elsewhere], "sources.plant", ["narrow"])
    require_channels([elsewhere], "sources.plant", None)
    for detectors, topics in (([any_channels], None), ([elsewhere], ["wide-1"]), ([declared, any_channels], ["x"])):
        with pytest.raises(ConfigurationError, match=r"sources\.plant") as caught:
            require_channels(detectors, "sources.plant", topics)
        assert "list them, such as channels" in str(caught.value)
    with pytest.raises(ConfigurationError, match="topic-0"):
        engine(detector(match={"topic": "topic"}), **RECORD)


def test_the_start_refuses_narrow_records_without_channels() -> None:
    """Before anything is connected; `check` says the same."""
    source = {"type": "kafka", "topics": ["sensors"], "record": RECORD}
    for detectors, is_fine in (({"bundle": ANY}, False), ({"bundle": ANY, "channels": ["a"]}, True)):
        settings = Settings(sources={"plant": source}, detectors={"pumps": detectors})
        if is_fine:
            load_detectors(settings)
        else:
            with pytest.raises(ConfigurationError, match=r"detectors\.pumps\.channels.*sources\.plant"):
                load_detectors(settings)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"type": "file", "paths": ["x.jsonl"], "record": {"format": "msgpack"}}, "MessagePack comes from Kafka"),
        ({"type": "file", "paths": ["x.csv"], "channels": ["a"], "record": RECORD}, "the column that names them"),
        ({"type": "plant", "record": RECORD}, "the plant sends wide JSON"),
        ({"type": "kafka", "topics": ["t"], "record": RECORD | {"channels": ["a"]}}, "got several"),
    ],
)
def test_what_does_not_go_together_is_refused(source: dict[str, Any], message: str) -> None:
    """When the configuration is read."""
    with pytest.raises(ValueError, match=message):
        Settings(sources={"plant": source})
