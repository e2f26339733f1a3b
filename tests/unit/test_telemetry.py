"""Telemetry: each event moves the metrics and the status that it names, and nothing grows without bound."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from detector.clock import ManualClock
from detector.records import (
    NO_TIME,
    Alert,
    ChannelReading,
    Outcome,
    Reason,
    Records,
    Reject,
    Scores,
    Shard,
    SourcePosition,
)
from detector.telemetry import Telemetry

SHARD = Shard("c", "pumps", 3)
LABELS = {"source": "plant", "topic": "pumps", "partition": "3"}
NOW_NS = 1_700_000_100_000_000_000
EVENT_NS = 1_700_000_000_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_NS)


@pytest.fixture
def told(clock: ManualClock) -> Telemetry:
    telemetry = Telemetry(clock=clock)
    telemetry.bundle_loaded("d", "gru@1", "ab" * 32, channels=["flow"], budget_per_day=2.0)
    telemetry.self_tested()
    telemetry.assigned("plant", [SHARD])
    telemetry.restored(SHARD, 10, seconds=0.5, rows=4, replay=7)
    return telemetry


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(f"tidewarden_{name}", labels)


def records(count: int = 8, append_ns: int = NOW_NS - 2_000_000_000) -> Records:
    return Records(SHARD, [b""] * count, [None] * count, np.arange(count), np.full(count, append_ns), 10 + count)


def scores(count: int, watched_s: float = 0.0) -> Scores:
    some = np.full(count, 5.0, np.float32)
    index = np.arange(count)
    event_ns = EVENT_NS + index * 1_000_000_000
    return Scores("d", ("flow",), index, ["s"] * count, event_ns, index, some, some, index > 0, watched_s=watched_s)


def alert(event: str = "open", number: int = 0) -> Alert:
    return Alert(
        id=f"a{number}",
        anomaly_id="n",
        sequence=number,
        event=event,
        status="firing",
        reason="threshold",
        stream="pump-7",
        labels={},
        detector="d",
        bundle="gru@1",
        time="2026-01-01T00:00:00Z",
        started_at="2026-01-01T00:00:00Z",
        detected_at="2026-01-01T00:00:00Z",
        ended_at=None,
        score=6.0,
        peak_score=6.0,
        threshold=5.0,
        channels=[
            ChannelReading(channel="flow", observed=1.0, expected=2.0, lower=1.5, upper=2.5, blame=0.25),
            ChannelReading(channel="current", observed=None, expected=2.0, lower=1.5, upper=2.5, blame=0.75),
        ],
        source=SourcePosition(cluster="c", topic="pumps", partition=3, offset=9),
    )


def outcome(**parts: object) -> Outcome:
    return Outcome(SHARD, 18, **parts)


class TestPolls:
    def test_a_poll_moves_its_shard(self, told):
        """Records, position, times, streams: by source, topic and partition."""
        told.polled(records(), outcome(scores=[scores(8)]), streams=6, open_anomalies=1, frozen_streams=2)
        assert value(told, "records_total", **LABELS) == 8
        assert value(told, "next_position", **LABELS) == 18
        assert value(told, "streams", **LABELS) == 6
        assert value(told, "open_anomalies", **LABELS) == 1
        assert value(told, "frozen_streams", **LABELS) == 2
        assert value(told, "last_event_timestamp_seconds", **LABELS) == EVENT_NS / 1e9 + 7
        assert value(told, "last_append_timestamp_seconds", **LABELS) == NOW_NS / 1e9 - 2
        assert value(told, "processing_delay_seconds_sum") == 2.0
        assert value(told, "samples_total", detector="d") == 8
        assert value(told, "threshold_nines", detector="d") == 5.0

    def test_event_time_does_not_go_back(self, told):
        """A stream that lags behind the others does not move the shard's time."""
        told.polled(records(), outcome(scores=[scores(8)]))
        told.polled(records(), outcome(scores=[scores(2)]))
        assert value(told, "last_event_timestamp_seconds", **LABELS) == EVENT_NS / 1e9 + 7

    def test_records_without_append_time_tell_no_delay(self, told):
        """A file knows none; 1970 would be a lie."""
        told.polled(records(append_ns=NO_TIME), outcome())
        assert value(told, "last_append_timestamp_seconds", **LABELS) is None
        assert value(told, "processing_delay_seconds_count") == 0

    def test_an_empty_poll_is_no_trouble(self, told):
        """Nothing read, nothing scored."""
        told.polled(records(0), outcome(scores=[scores(0)]))
        assert value(told, "records_total", **LABELS) == 0

    def test_each_stage_takes_what_the_one_before_let_through(self, told):
        """Items in and out add up, so that a loss would show."""
        refused = [Reason.MALFORMED, Reason.UNWANTED, Reason.LATE, Reason.LATE, Reason.NOTHING_OBSERVED]
        rejects = [Reject(at, at, reason) for at, reason in enumerate(refused)]
        told.polled(
            records(8),
            outcome(rejects=rejects, alerts=[alert()], counts={"samples": 3}, stage_s={"decode": 0.25, "infer": 0.5}),
        )
        flow = {stage: (value(told, "stage_in_total", stage=stage), value(told, "stage_out_total", stage=stage))
                for stage in ("decode", "route", "align", "wave", "infer", "decide")}  # fmt: skip
        assert flow == {
            "decode": (8, 7),
            "route": (7, 6),
            "align": (6, 3),
            "wave": (3, 3),
            "infer": (3, 3),
            "decide": (3, 1),
        }
        assert value(told, "stage_seconds_total", stage="infer") == 0.5
        assert value(told, "rejects_total", source="plant", reason="late") == 2
        assert told.status.rejects == {"malformed": 1, "unwanted": 1, "late": 2, "nothing_observed": 1}

    def test_every_reason_has_a_stage_that_refuses_it(self, told):
        """Whatever is refused, the stages still add up."""
        for reason in Reason:
            told.polled(records(1), outcome(rejects=[Reject(0, 0, reason)]))
        assert value(told, "stage_in_total", stage="infer") == 0

    def test_waves_are_told_one_by_one(self, told):
        """Their sizes and durations are distributions."""
        told.polled(records(), outcome(wave_rows=[5, 3], wave_s=[0.001, 0.002]))
        assert value(told, "wave_rows_count") == 2
        assert value(told, "wave_rows_sum") == 8
        assert value(told, "model_step_seconds_sum") == pytest.approx(0.003)

    def test_a_poll_is_cheap(self, told):
        """Told once per poll of thousands of records: a share of the engine's time that nobody sees."""
        poll, result = records(4000), outcome(scores=[scores(4000)], wave_rows=[1000] * 4, wave_s=[0.001] * 4)
        best = min(_timed(lambda: told.polled(poll, result, streams=5)) for _ in range(200))
        assert best < 500e-6  # 50 us on an idle machine


def _timed(act) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


class TestAnomalies:
    def test_realised_alarms_stand_beside_the_promise(self, told):
        """Alarms over watched stream-days, against the budget."""
        told.polled(records(), outcome(scores=[scores(8, watched_s=43_200.0)], alerts=[alert(), alert("update")]))
        told.polled(records(), outcome(scores=[scores(8, watched_s=43_200.0)]))
        assert value(told, "budget_alarms_per_stream_day", detector="d") == 2.0
        assert value(told, "realised_alarms_per_stream_day", detector="d") == 1.0
        assert value(told, "alarms_total", detector="d") == 1
        assert value(told, "alerts_total", detector="d", event="update") == 1

    def test_only_what_was_sent_is_shown(self, told):
        """Suppressed copies are counted, not shown; the page keeps the latest fifty."""
        told.suppressed(SHARD, 3)
        told.alerts_delivered([alert(number=number) for number in range(60)])
        assert value(told, "alerts_suppressed_total", topic="pumps") == 3
        assert [each.id for each in told.status.alerts] == [f"a{number}" for number in range(10, 60)]

    def test_sinks_are_told_by_kind(self, told):
        """Alerts, scores and dead letters, each sink its own."""
        told.delivered({("out", "alerts"): 2, ("broken", "dead_letters"): 1})
        assert value(told, "delivered_total", sink="out", kind="alerts") == 2


class TestShards:
    def test_a_lost_shard_takes_its_series_with_it(self, told):
        """Else its lag would stand there for ever."""
        told.lagged(SHARD, 5)
        told.released("plant", [SHARD])
        assert value(told, "lag_records", **LABELS) is None
        assert value(told, "shards", source="plant") == 0
        told.lagged(SHARD, 5)  # a late word about it is not heard
        told.checkpointed(SHARD, position=1, seconds=1.0, rows=1, size_bytes=1)
        assert value(told, "lag_records", **LABELS) is None

    def test_a_shard_can_come_back(self, told):
        """A rebalance gives and takes."""
        told.released("plant", [SHARD])
        told.assigned("plant", [SHARD])
        told.restored(SHARD, 20)
        assert value(told, "next_position", **LABELS) == 20

    def test_a_checkpoint_leaves_its_time(self, told, clock):
        """A time stamp, not an age."""
        clock.advance(5)
        told.checkpointed(SHARD, position=18, seconds=0.25, rows=3, size_bytes=999)
        told.checkpoint_failed(SHARD)
        told.fell_back(SHARD)
        assert value(told, "checkpoint_last_success_timestamp_seconds", **LABELS) == NOW_NS / 1e9 + 5
        assert value(told, "checkpoint_bytes", **LABELS) == 999
        assert value(told, "checkpoint_failures_total", **LABELS) == 1
        assert value(told, "checkpoint_fallbacks_total", **LABELS) == 1


class TestReadiness:
    def test_each_step_is_a_reason_until_it_is_done(self, clock):
        """Self-tested, assigned, restored; and not while draining."""
        telemetry = Telemetry(clock=clock)
        assert telemetry.status.unready() == ["the self-test of the model has not passed yet"]
        telemetry.awaited(["plant", "other"])
        telemetry.self_tested()
        telemetry.assigned("other", [])
        assert telemetry.status.unready() == ["source plant has not assigned shards yet"]
        telemetry.assigned("plant", [SHARD])
        assert telemetry.status.unready() == ["shard pumps-3 is not restored yet"]
        assert value(telemetry, "ready") == 0
        telemetry.restored(SHARD, 0)
        assert value(telemetry, "ready") == 1
        telemetry.draining()
        assert telemetry.status.unready() == ["draining"]

    def test_a_member_without_shards_is_ready(self, clock):
        """More replicas than partitions: the spare one is not ill."""
        telemetry = Telemetry(clock=clock)
        telemetry.self_tested()
        telemetry.awaited(["plant"])
        telemetry.assigned("plant", [])
        assert telemetry.status.unready() == []


class TestStatus:
    def test_snapshot_is_plain_json(self, told, clock):
        """For programs; the blamed channel is the one with the largest share."""
        told.polled(records(), outcome(scores=[scores(8)], alerts=[alert()]), streams=2, open_anomalies=1)
        told.alerts_delivered([alert(), alert("silent", 1)])
        clock.advance(2)
        seen = json.loads(json.dumps(told.status.snapshot(clock.now_ns(), clock.monotonic_s())))
        assert seen["ready"] is True
        assert seen["records_per_second"] == 4.0
        assert seen["shards"][0]["last_event"] == EVENT_NS / 1e9 + 7
        assert seen["alerts"][1]["channel"] == "current"
        assert seen["alerts"][0]["event"] == "silent"  # the newest first

    def test_rate_forgets(self, told, clock):
        """A source that stopped shows no records per second."""
        told.polled(records(), outcome())
        clock.advance(60)
        assert told.status.record_rate.per_second(clock.monotonic_s()) == 0.0


def test_names_follow_the_conventions(told):
    """One prefix, `_total` on counters only, labels that stay few, a meaning for each."""
    bounded = {"source", "topic", "partition", "reason", "detector", "stage", "sink", "kind", "event", "what"}
    identity = {"version", "python", "onnxruntime", "bundle", "sha256"}
    for each in told.described:
        assert each.name.startswith("tidewarden_")
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert set(each.labels) <= bounded | (identity if each.name.endswith("_info") else set())
        assert each.meaning.endswith(".")
    assert told.registry.get_sample_value("process_resident_memory_bytes")
