"""The engine: polls in; scores, alerts, rejects and memory out."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from detector.errors import ConfigurationError, LineageError
from detector.records import Outcome, Reason
from detector.settings import RecordSettings
from detector.stages.decode import Decoder
from tests.engine_feed import SHARD, PlainModel, S, detector, engine, memory, records, s, scores_by_stream


def told(outcome: Outcome) -> list[tuple[str, str, int]]:
    """What was told: stream, event, offset."""
    return [(alert.stream, alert.event, alert.source.offset) for alert in outcome.alerts]


def test_scores_come_in_record_order_whatever_the_waves() -> None:
    """Positions rise, and every accepted sample has its own score."""
    outcome = engine(wave_rows=2).advance(
        records([s("b", 0, 1), s("a", 0, 2), s("b", 1, 3), s("c", 0, 0.5), s("a", 1, 1)])
    )
    [scores] = outcome.scores
    assert scores.streams == ["b", "a", "b", "c", "a"]
    assert (scores.score.tolist(), scores.positions.tolist()) == ([1, 2, 3, 0.5, 1], [0, 1, 2, 3, 4])
    assert (scores.detector, scores.channels, scores.expected) == ("plain", ("v",), None)
    assert (outcome.wave_rows, outcome.counts["waves"], outcome.counts["wave_rows"]) == ([2, 1, 2], 3, 5)
    assert (outcome.counts["records"], outcome.counts["samples"], outcome.counts["streams_created"]) == (5, 5, 3)
    assert outcome.next_position == 5


def test_rejects_come_in_record_order_with_their_reasons() -> None:
    """From every stage, and the samples between them are scored."""
    feed = [s("a", 5), b"{", s("a", 4), s("a", 5), s("b", 0, None), s("a", 6), None]
    outcome = engine().advance(records(feed, first=70))
    assert [(reject.index, reject.position, reject.reason) for reject in outcome.rejects] == [
        (1, 71, Reason.MALFORMED),
        (2, 72, Reason.LATE),
        (3, 73, Reason.DUPLICATE),
        (4, 74, Reason.NOTHING_OBSERVED),
        (6, 76, Reason.EMPTY),
    ]
    assert outcome.scores[0].index.tolist() == [0, 5]


def test_a_rejected_sample_leaves_the_row_untouched() -> None:
    """Late, duplicate and unobserved samples change no byte of the memory and mark nothing."""
    of = engine()
    of.advance(records([s("a", 5, 1)]))
    of.snapshot()
    of.kept()
    before = memory(of)
    of.advance(records([s("a", 4, 9), s("a", 5, 9), s("a", 6, None)], first=1))
    assert memory(of) == before
    assert of.snapshot().arenas == []


def test_an_anomaly_is_told_with_its_place_and_labels() -> None:
    """The alert carries what the stream said of itself at first sight, and where the sample stood."""
    outcome = engine().advance(records([S("a", 0, {"v": 1.0}, {"site": "x"}), s("a", 60, 9)], first=40))
    [alert] = outcome.alerts
    assert (alert.stream, alert.event, alert.labels, alert.bundle) == ("a", "open", {"site": "x"}, "plain@1")
    assert (alert.source.offset, alert.source.topic, alert.channels[0].observed) == (41, "topic", 9)
    assert outcome.scores[0].anomaly.tolist() == [0, 1]
    assert outcome.counts["anomalies_opened"] == 1


def test_alerts_come_in_the_order_of_their_samples() -> None:
    """Although waves and arenas are computed one after the other."""
    feed = [s("c", 0, 9), s("a", 0, x=9, y=0), s("b", 0, 9), s("c", 60, 12), s("a", 60, x=12, y=0), s("d", 0, 9)]
    outcome = engine(wave_rows=1).advance(records(feed))
    assert [offset for _, _, offset in told(outcome)] == [0, 1, 2, 3, 4, 5]


def test_gaps_and_unknown_channels_are_counted() -> None:
    """An elapsed of more than five periods is a gap."""
    outcome = engine().advance(records([s("a", 0), s("a", 300), s("a", 601), s("a", 602, v=1, w=2)]))
    assert (outcome.counts["gaps"], outcome.counts["unknown_channels"]) == (1, 1)
    assert outcome.scores[0].watched_s == 602


def test_details_are_there_when_asked_for() -> None:
    """Forecast, band and blame of every sample, in record order."""
    outcome = engine(scores_detail=True).advance(records([s("b", 0, 1), s("a", 0, 2)]))
    [scores] = outcome.scores
    assert scores.upper is not None
    assert scores.blame is not None
    assert (scores.upper.tolist(), scores.blame.tolist()) == ([[2], [2]], [[1], [1]])


def test_each_detector_takes_its_streams() -> None:
    """Two bundles in one engine: scores name who made them, and each keeps its own memory."""
    first = detector(PlainModel(name="pumps"), match={"stream": "pump.*"})
    of = engine(first, detector(PlainModel(fixed=["v"], name="rest")))
    outcome = of.advance(records([s("pump-1", 0), s("fan", 0), s("pump-2", 0)]))
    assert [(scores.detector, scores.streams) for scores in outcome.scores] == [
        ("pumps", ["pump-1", "pump-2"]),
        ("rest", ["fan"]),
    ]
    assert {rows.detector: rows.streams for rows in of.snapshot().arenas} == {
        "pumps": ["pump-1", "pump-2"],
        "rest": ["fan"],
    }


def test_channels_that_do_not_fit_the_bundle_are_a_configuration_error() -> None:
    """Said before anything is read."""
    with pytest.raises(ConfigurationError, match=r"detectors\.plain\.channels.*expected 2"):
        engine(detector(PlainModel(fixed=["a", "b"]), channels=["x"]))


def test_the_future_is_measured_against_the_records_own_timestamp() -> None:
    """Never against a clock; a record without a timestamp is not judged."""
    given = records([s("a", 0), s("b", 0), s("c", 0)])
    given.append_ns[1:] = [1_732_190_000 * 10**9 - 300 * 10**9, 1_732_190_000 * 10**9 - 301 * 10**9]
    outcome = engine().advance(given)
    assert [(reject.index, reject.reason) for reject in outcome.rejects] == [(2, Reason.FUTURE)]


def test_a_cold_stream_goes_on_once_it_is_brought_back() -> None:
    """As if it had never left; without its row, its samples are a fault of the program."""
    of, plain = engine(max_streams=1, max_cold_streams=9), engine()
    for each in (of, plain):
        each.advance(records([s("a", 0, 3), s("b", 0, 1)]))
        each.advance(records([s("b", 60, 1)], first=2))
    [(number, [rows])] = of.evict().items()
    assert (rows.streams, of.streams, len(of.cold)) == (["a"], 1, 1)
    given = records([s("a", 60, 1), s("b", 120, 1), s("a", 61, 1), s("c", 0, 1)], first=3)
    assert of.wanted(given) == {number: [0]}
    with pytest.raises(LookupError, match="stream 'a': its row is cold"):
        of.advance(given)
    of.bring_back([rows])
    assert of.wanted(given) == {}
    of.advance(given)
    plain.advance(given)
    assert memory(of) == memory(plain)


def test_what_comes_back_is_dirty() -> None:
    """The checkpoint has it elsewhere; one that went and came says both."""
    of = engine(max_streams=1, max_cold_streams=9)
    of.advance(records([s("a", 0, 3), s("b", 0, 1)]))
    of.snapshot()
    of.kept()
    [[rows]] = of.evict().values()
    of.bring_back([rows])
    [taken] = of.snapshot().arenas
    assert (taken.gone, taken.streams) == (rows.streams, rows.streams)


def test_an_open_anomaly_keeps_its_row() -> None:
    """Other streams' records look at it, when silence is looked for."""
    of = engine(max_streams=1, max_cold_streams=9)
    of.advance(records([s("open", 0, 9), s("a", 1, 1), s("b", 2, 1)]))
    assert of.is_crowded
    assert {stream for rows in of.evict().values() for each in rows for stream in each.streams} == {"a", "b"}
    assert (of.streams, of.open_anomalies, of.is_crowded) == (1, 1, False)


def test_who_was_heard_the_longest_ago_leaves_first() -> None:
    """By polls, and after a restart by event times until polls have told."""
    of = engine(max_streams=2, max_cold_streams=9)
    of.advance(records([s("a", 7), s("b", 5), s("c", 6)]))
    taken = of.snapshot(full=True)
    of.restore(taken.next_position, taken.highest_event_ns, taken.arenas)
    assert [rows.streams for each in of.evict().values() for rows in each] == [["b"]]
    of.advance(records([s("c", 8), s("d", 1)], first=3))
    assert [rows.streams for each in of.evict().values() for rows in each] == [["a"]]


def test_cold_streams_count_as_streams() -> None:
    """A new one is refused once rows here and in the store are as many as may be."""
    of = engine(max_streams=1, max_cold_streams=1)
    of.advance(records([s("a", 0), s("b", 0)]))
    of.evict()
    outcome = of.advance(records([s("c", 1)], first=2))
    assert [reject.reason for reject in outcome.rejects] == [Reason.TOO_MANY_STREAMS]


def test_adopted_rows_are_clean() -> None:
    """They are in the checkpoint already."""
    from_before, of = engine(), engine()
    from_before.advance(records([s("a", 0, 9)]))
    for rows in from_before.snapshot(full=True).arenas:
        of.adopt(rows)
    assert of.snapshot().arenas == []
    assert (of.streams, of.open_anomalies) == (1, 1)


def test_rows_of_an_unknown_detector_are_refused() -> None:
    """The operator took it out of the configuration, or gave it another name."""
    from_before = engine()
    from_before.advance(records([s("a", 0)]))
    with pytest.raises(LineageError, match="plain"):
        engine(detector(PlainModel(name="other"))).adopt(from_before.snapshot(full=True).arenas[0])


def test_samples_decoded_elsewhere_take_the_same_way() -> None:
    """`score` hands over samples; they come to the same scores and memory."""
    feed = [s("a", 0, 1), s("b", 0, 2), s("a", 60, 5), s("a", 30, 1)]
    by_records, by_samples = engine(), engine()
    outcome = by_records.advance(records(feed))
    samples, _ = Decoder(RecordSettings()).decode(records(feed))
    other = by_samples.advance_samples(samples, Outcome(SHARD, 4))
    assert scores_by_stream([outcome]) == scores_by_stream([other])
    assert [reject.reason for reject in other.rejects] == [Reason.LATE]
    assert memory(by_records) == memory(by_samples)
    assert by_samples.snapshot().next_position == 4


def test_an_empty_poll_moves_only_the_position() -> None:
    """As when a transaction's marker is all that was there."""
    of = engine()
    outcome = of.advance(records([], first=7))
    assert (outcome.scores, outcome.alerts, outcome.rejects) == ([], [], [])
    assert of.snapshot().next_position == 7


# Silence --------------------------------------------------------------------------------------------------------------


def silent_feed() -> list[S]:
    """An anomaly opens on stream a, which then says nothing while b goes on, one position a second."""
    return [s("a", 0, 9), *(s("b", i) for i in range(1, 3000))]


def test_silence_is_told_at_the_first_record_past_a_thousandth_position() -> None:
    """Not at position 901, when 900 s have passed, but before position 1000; and once."""
    outcome = engine().advance(records(silent_feed()))
    assert told(outcome) == [("a", "open", 0), ("a", "silent", 0)]
    first = engine().advance(records(silent_feed()[:1000]))
    second = engine().advance(records(silent_feed()[:1001]))
    assert (told(first), told(second)) == ([("a", "open", 0)], [("a", "open", 0), ("a", "silent", 0)])


def test_positions_may_skip_over_the_thousandth() -> None:
    """The first record at or past it looks, once."""
    positions = [*range(950), 1007, 1008, 2500]
    feed = [s("a", 0, 9), *(s("b", 2 * i) for i in range(1, 953))]
    of = engine()
    assert told(of.advance(records(feed[:950], positions=positions[:950]))) == [("a", "open", 0)]
    assert told(of.advance(records(feed[950:951], positions=[1007]))) == [("a", "silent", 0)]
    assert told(of.advance(records(feed[951:], positions=[1008, 2500]))) == []


def test_a_record_that_is_rejected_looks_too() -> None:
    """Whether a record could be read has nothing to do with when silence is told."""
    feed = [s("a", 0, 9), *(s("b", i) for i in range(1, 1000)), b"broken"]
    assert told(engine().advance(records(feed)))[-1] == ("a", "silent", 0)


def test_scores_and_anomalies_do_not_depend_on_silence() -> None:
    """With and without the notices all else is the same."""
    feed = [*silent_feed(), s("a", 3001, 9), s("a", 3002)]
    with_notices, without = engine(), engine(report_silence=False)
    loud, quiet = with_notices.advance(records(feed)), without.advance(records(feed))
    assert scores_by_stream([loud]) == scores_by_stream([quiet])
    assert [alert for alert in loud.alerts if alert.event != "silent"] == quiet.alerts
    assert [alert.event for alert in quiet.alerts] == ["open", "close"]


def test_a_restored_engine_looks_at_the_same_records() -> None:
    """Whatever the positions skipped, also where they count bytes and the next one is not the last plus one."""
    feed = [s("a", 0, 9), *(s("b", 40 * i) for i in range(1, 60))]
    positions = [i * 37 for i in range(60)]
    whole = engine()
    expected = told(whole.advance(records(feed, positions=positions)))
    assert [event for _, event, _ in expected] == ["open", "silent"]
    for cut in range(1, 60):
        before, after = engine(), engine()
        poll = records(feed[:cut], positions=positions[:cut])
        poll.next_position = positions[cut]
        found = told(before.advance(poll))
        taken = before.snapshot(full=True)
        after.restore(taken.next_position, taken.highest_event_ns, taken.arenas, taken.last_position)
        found += told(after.advance(records(feed[cut:], positions=positions[cut:])))
        assert found == expected, cut


def test_the_snapshot_of_a_silence_is_dirty() -> None:
    """That it was told must be in the checkpoint, else it is told again."""
    of = engine()
    of.advance(records(silent_feed()[:1000]))
    of.snapshot()
    of.kept()
    of.advance(records([s("b", 1000)], first=1000))
    assert of.snapshot().arenas[0].streams == ["a", "b"]


def test_counts_of_time_cover_all_stages() -> None:
    """The seconds per stage are what telemetry shows."""
    outcome = engine().advance(records([s("a", 0)]))
    assert set(outcome.stage_s) == {"decode", "route", "align", "wave", "infer", "decide"}
    assert all(seconds >= 0 for seconds in outcome.stage_s.values())
    assert len(outcome.wave_s) == len(outcome.wave_rows) == 1
    assert np.isfinite(outcome.wave_s).all()


def test_the_hot_path_leaves_no_cycles() -> None:
    """What a poll makes is freed by its last reference: that is why the collector may look rarely."""
    of = engine()
    polls = [records([s(name, t, t) for t in (2 * i, 2 * i + 1) for name in "abc"], first=6 * i) for i in range(5)]
    of.advance(polls[0])
    gc.collect()
    gc.disable()
    try:
        for poll in polls[1:]:
            of.advance(poll)
        assert gc.collect() == 0
        cycle: list[object] = []
        cycle.append(cycle)  # the control
        del cycle
        assert gc.collect() > 0
    finally:
        gc.enable()
