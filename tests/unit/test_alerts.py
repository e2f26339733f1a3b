"""Alerts: names, ids, times and bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import resources

import jsonschema
import msgspec
import numpy as np
import pytest

from detector.alerts import Message, Reading, alert_schema, id_of, rfc3339, to_alert
from detector.records import Alert, Shard

SHARD = Shard("cluster-1", "plant.sensors", 3)
MESSAGE = Message(
    slot=7,
    event="update",
    reason="peak",
    sequence=2,
    position=51_000,
    time_ns=1_700_000_060_250_000_000,
    score=float(np.float32(6.1)),
    peak=float(np.float32(7.3)),
    threshold=float(np.float32(5.4)),
    started_ns=1_699_999_940_000_000_000,
    fired_ns=1_700_000_000_000_000_001,
    fired_position=50_000,
    ended_ns=None,
    reading=Reading(
        values=np.array([3.25, np.nan]),
        expected=np.array([1.1, 20.0]),
        lower=np.array([0.9, 19.0]),
        upper=np.array([1.3, 21.0]),
        blame=np.array([0.9, 0.1], np.float32),
    ),
)
SILENT = replace(MESSAGE, event="silent", reason="silent", ended_ns=MESSAGE.time_ns, reading=None)


def _alert(
    message: Message = MESSAGE, *, stream: str = "pump-12", shard: Shard = SHARD, detector: str = "pumps"
) -> Alert:
    return to_alert(
        message,
        shard=shard,
        stream=stream,
        labels={"site": "north"},
        detector=detector,
        bundle_label="pumps@3",
        channels=("flow", "pressure"),
    )


def test_an_alert_names_what_a_message_numbers() -> None:
    """Slots, nanoseconds and arrays become stream, RFC 3339 and channels; a missing value becomes null."""
    alert = _alert()
    assert (alert.stream, alert.labels, alert.detector, alert.bundle) == (
        "pump-12",
        {"site": "north"},
        "pumps",
        "pumps@3",
    )
    assert (alert.event, alert.status, alert.reason, alert.sequence) == ("update", "firing", "peak", 2)
    assert alert.time == "2023-11-14T22:14:20.25Z"
    assert alert.started_at == "2023-11-14T22:12:20Z"
    assert alert.detected_at == "2023-11-14T22:13:20.000000001Z"
    assert alert.ended_at is None
    assert alert.source == msgspec.convert(
        {"cluster": "cluster-1", "topic": "plant.sensors", "partition": 3, "offset": 51_000}, type(alert.source)
    )
    assert [(c.channel, c.observed, c.expected, c.lower, c.upper) for c in alert.channels] == [
        ("flow", 3.25, 1.1, 0.9, 1.3),
        ("pressure", None, 20.0, 19.0, 21.0),
    ]


@pytest.mark.parametrize(
    ("event", "status"), [("open", "firing"), ("update", "firing"), ("close", "resolved"), ("silent", "resolved")]
)
def test_status_follows_from_the_event(event: str, status: str) -> None:
    """Firing until it closes or falls silent."""
    assert _alert(replace(MESSAGE, event=event)).status == status  # type: ignore[arg-type]  # a str from the table


def test_float32_are_printed_as_their_shortest_decimal() -> None:
    """A reader sees 6.1 and 0.9, and float32 of it has the detector's bits."""
    text = msgspec.json.encode(_alert())
    assert b'"score":6.1,"peak_score":7.3,"threshold":5.4' in text
    assert b'"blame":0.9}' in text
    assert np.float32(_alert().score) == np.float32(MESSAGE.score)


def test_ids_are_the_hash_that_the_contract_states() -> None:
    """First 32 hex digits of SHA-256 over the JSON array of the parts."""
    parts = ["cluster-1", "plant.sensors", 3, 50_000, "pump-12", "pumps"]
    anomaly_id = hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()[:32]
    assert _alert().anomaly_id == anomaly_id
    assert _alert().id == hashlib.sha256(f'["{anomaly_id}",2]'.encode()).hexdigest()[:32]


def test_ids_never_change() -> None:
    """An id that was written once is found again by every later version."""
    assert (_alert().anomaly_id, _alert().id) == (
        "dccdd1640c0b0b647603f7a446941c8b",
        "2dccc5a9a053893cad2e84184cbe6975",
    )


def test_ids_tell_anomalies_messages_and_silences_apart() -> None:
    """Whatever differs in place, stream, detector or number gives another id."""
    alerts = [
        _alert(),
        _alert(replace(MESSAGE, sequence=3)),
        _alert(replace(MESSAGE, fired_position=50_001)),
        _alert(stream="pump-13"),
        _alert(detector="pumps2"),
        *(_alert(shard=shard) for shard in (Shard("c", "plant.sensors", 3), Shard("cluster-1", "t", 3))),
        _alert(shard=Shard("cluster-1", "plant.sensors", 4)),
        _alert(SILENT),
        _alert(replace(SILENT, position=51_001)),
    ]
    assert len({alert.id for alert in alerts}) == len(alerts)


def test_parts_of_an_id_do_not_run_together() -> None:
    """Text with quotes and commas in it cannot imitate two parts."""
    assert id_of("a", "b") != id_of('a","b')
    assert id_of("1") != id_of(1)


def test_a_message_has_its_own_time_out_of_its_id() -> None:
    """Ids depend on where the firing sample stands, so that a copy sent after a restart is known."""
    assert _alert(replace(MESSAGE, position=60_000, score=1.0)).id == _alert().id


def test_the_same_input_gives_the_same_bytes() -> None:
    """No wall time, no order of sets, no random."""
    assert msgspec.json.encode(_alert()) == msgspec.json.encode(_alert())


@pytest.mark.parametrize("message", [MESSAGE, SILENT, replace(MESSAGE, event="close", reason="gap", ended_ns=0)])
def test_an_alert_is_valid_by_its_schema(message: Message) -> None:
    """What we write, a reader's validator accepts, and our own reader takes back."""
    text = msgspec.json.encode(_alert(message))
    jsonschema.Draft202012Validator(alert_schema()).validate(json.loads(text))
    assert msgspec.json.decode(text, type=Alert) == _alert(message)


@pytest.mark.parametrize(
    ("field", "value"), [("status", "open"), ("score", None), ("version", 2), ("channels", [{}]), ("source", 5)]
)
def test_the_schema_refuses_what_is_no_alert(field: str, value: object) -> None:
    """The schema is not empty."""
    document = json.loads(msgspec.json.encode(_alert())) | {field: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(alert_schema()).validate(document)


def test_the_schema_asks_for_every_field() -> None:
    """A reader may rely on all of them, the version included."""
    definition = alert_schema()["$defs"]["Alert"]
    assert sorted(definition["required"]) == sorted(definition["properties"])


def test_the_published_schema_is_the_generated_one() -> None:
    """Write it anew with: tidewarden schema alert > detector/schemas/alert.v1.json."""
    published = resources.files("detector").joinpath("schemas/alert.v1.json").read_text("utf-8")
    assert json.loads(published) == alert_schema()


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_700_000_000_100_000_000, "2023-11-14T22:13:20.1Z"),
        (951_782_399_999_999_999, "2000-02-28T23:59:59.999999999Z"),
        (2**63 - 1, "2262-04-11T23:47:16.854775807Z"),
    ],
)
def test_times_are_rfc_3339_to_the_nanosecond(time_ns: int, text: str) -> None:
    """As many fractional digits as are needed."""
    assert rfc3339(time_ns) == text
