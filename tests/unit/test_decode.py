"""Decode: every record becomes a sample or a reject with its reason, whatever stands beside it."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from detector.errors import ConfigurationError
from detector.records import NO_TIME, Reason, Records, Samples, Shard
from detector.settings import RecordSettings
from detector.stages.decode import Decoder, iso_to_ns, number_to_ns, screen

SHARD = Shard("c", "t", 0)
GOOD = b'{"stream":"s","time":1732190000.25,"values":{"v":1.25}}'


def records(
    *values: bytes | None, keys: list[bytes | None] | None = None, append_ns: list[int] | None = None
) -> Records:
    n = len(values)
    return Records(
        shard=SHARD,
        values=list(values),
        keys=keys or [None] * n,
        positions=np.arange(100, 100 + n),
        append_ns=np.array(append_ns or [NO_TIME] * n, np.int64),
        next_position=100 + n,
    )


def decode(*values: bytes | None, **settings: Any) -> tuple[Samples, list[tuple[int, Reason]]]:
    samples, rejects = Decoder(RecordSettings(**settings)).decode(records(*values))
    assert [reject.position for reject in rejects] == [100 + reject.index for reject in rejects]
    return samples, [(reject.index, reject.reason) for reject in rejects]


def test_a_record_becomes_a_sample() -> None:
    """The defaults read stream, time in seconds and a map of values."""
    samples, rejects = decode(GOOD)
    assert (samples.streams, samples.event_ns.tolist(), rejects) == (["s"], [1_732_190_000_250_000_000], [])
    assert (samples.shapes, samples.cells[0].tolist(), samples.labels) == ([("v",)], [[1.25]], None)
    assert (samples.index.tolist(), samples.positions.tolist()) == ([0], [100])


BROKEN = {
    "null value": (None, Reason.EMPTY),
    "no bytes": (b"", Reason.EMPTY),
    "not UTF-8": (b'{"stream":"\xff","time":1,"values":{"v":1}}', Reason.NOT_UTF8),
    "truncated": (GOOD[:-3], Reason.MALFORMED),
    "blank": (b"  ", Reason.MALFORMED),
    "two documents": (GOOD + GOOD, Reason.MALFORMED),
    "two lines": (GOOD + b"\n" + GOOD, Reason.MALFORMED),
    "deep": (b'{"x":' + b"[" * 100_000, Reason.MALFORMED),
    "lone surrogate": (b'{"stream":"\\ud800","time":1,"values":{"v":1}}', Reason.MALFORMED),
    "too large": (b'{"x":"' + b"x" * 1_048_576 + b'"}', Reason.TOO_LARGE),
    "no stream": (b'{"time":1,"values":{"v":1}}', Reason.MISSING_FIELD),
    "no time": (b'{"stream":"s","values":{"v":1}}', Reason.MISSING_FIELD),
    "no values": (b'{"stream":"s","time":1}', Reason.MISSING_FIELD),
    "a list": (b"[1]", Reason.BAD_TYPE),
    "null": (b"null", Reason.BAD_TYPE),
    "stream a number": (b'{"stream":1,"time":1,"values":{"v":1}}', Reason.BAD_TYPE),
    "time a text": (b'{"stream":"s","time":"1","values":{"v":1}}', Reason.BAD_TYPE),
    "value a text": (b'{"stream":"s","time":1,"values":{"v":"1"}}', Reason.BAD_TYPE),
    "value a truth": (b'{"stream":"s","time":1,"values":{"v":true}}', Reason.BAD_TYPE),
    "values a list": (b'{"stream":"s","time":1,"values":[1]}', Reason.BAD_TYPE),
    "labels of numbers": (b'{"stream":"s","time":1,"values":{"v":1},"labels":{"a":1}}', Reason.BAD_TYPE),
    "before 1970": (b'{"stream":"s","time":-1,"values":{"v":1}}', Reason.BAD_TIME),
    "after 2262": (b'{"stream":"s","time":9.3e9,"values":{"v":1}}', Reason.BAD_TIME),
    "time infinite": (b'{"stream":"s","time":1e999,"values":{"v":1}}', Reason.BAD_TIME),
    "time NaN": (b'{"stream":"s","time":NaN,"values":{"v":1}}', Reason.BAD_TIME),
    "NaN": (b'{"stream":"s","time":1,"values":{"v":NaN}}', Reason.NOT_FINITE),
    "Infinity": (b'{"stream":"s","time":1,"values":{"v":-Infinity}}', Reason.NOT_FINITE),
    "1e999": (b'{"stream":"s","time":1,"values":{"v":1e999}}', Reason.NOT_FINITE),
    "a million digits": (b'{"stream":"s","time":1,"values":{"v":' + b"9" * 1_000_000 + b"}}", Reason.NOT_FINITE),
}


@pytest.mark.parametrize(("value", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_record_names_its_fault(value: bytes | None, reason: Reason) -> None:
    """Each way to be broken has its reason, and the records beside it are untouched."""
    samples, rejects = decode(GOOD, value, GOOD)
    assert rejects == [(1, reason)]
    assert (samples.index.tolist(), samples.positions.tolist()) == ([0, 2], [100, 102])
    assert samples.cells[0].tolist() == [[1.25], [1.25]]


def test_what_became_of_a_record_does_not_depend_on_its_neighbours() -> None:
    """In any order and any company each record has the same sample or the same reason as alone."""
    lines = [value for value, _ in BROKEN.values()] + [
        GOOD,
        b' {"time":7,"values":{"w":2,"v":null},"stream":"t"} ',
        b'{"stream":"pretty",\n "time":8,\n "values":{"v":3}}',
        b'{"stream":"u","time":9,"values":{}}',
    ]
    shuffler = random.Random(5)
    alone = {line: decode(line) for line in lines}
    for _ in range(5):
        mixed = shuffler.sample(lines, len(lines))
        samples, rejects = decode(*mixed)
        assert rejects == [(i, alone[line][1][0][1]) for i, line in enumerate(mixed) if alone[line][1]]
        for at, i in enumerate(samples.index.tolist()):
            one, _ = alone[mixed[i]]
            shape = samples.shape_of[at]
            row = np.count_nonzero(samples.shape_of[:at] == shape)
            assert samples.streams[at] == one.streams[0]
            assert samples.event_ns[at] == one.event_ns[0]
            assert samples.shapes[shape] == one.shapes[0]
            np.testing.assert_array_equal(samples.cells[shape][row], one.cells[0][0])


@pytest.mark.parametrize("number", ["-0.0", "5e-324", "1e308", "-1.7976931348623157e308", "12345678901234567", "3"])
def test_numbers_arrive_as_the_nearest_double(number: str) -> None:
    """Denormals, minus zero, huge and whole numbers keep their bits."""
    samples, rejects = decode(f'{{"stream":"s","time":1,"values":{{"v":{number}}}}}'.encode())
    assert not rejects
    assert samples.cells[0].tobytes() == np.array([[float(number)]]).tobytes()


def test_null_is_a_missing_channel() -> None:
    """A null value leaves a hole that arithmetic never sees."""
    samples, _ = decode(b'{"stream":"s","time":1,"values":{"a":null,"b":2}}')
    np.testing.assert_array_equal(samples.cells[0], [[np.nan, 2.0]])


def test_flat_records_take_their_channels_from_the_top_level() -> None:
    """With `values: null` the declared fields are the channels; an absent one is missing."""
    settings = {"values": None, "channels": ["b", "a"], "stream": "id", "time": "ts", "time_unit": "ms"}
    samples, rejects = decode(b'{"id":"s","ts":1500,"a":1,"b":2,"c":"x"}', b'{"id":"s","ts":1501,"a":null}', **settings)
    assert (rejects, samples.shapes) == ([], [("b", "a")])
    np.testing.assert_array_equal(samples.cells[0], [[2.0, 1.0], [np.nan, np.nan]])
    assert samples.event_ns.tolist() == [1_500_000_000, 1_501_000_000]


def test_stream_and_time_can_come_from_the_record_itself() -> None:
    """With null fields, the key is the stream and the record's timestamp the time; without them there is no sample."""
    decoder = Decoder(RecordSettings(stream=None, time=None))
    value = b'{"values":{"v":1}}'
    given = records(value, value, value, value, keys=[b"k", None, b"\xff", b"l"], append_ns=[5, 6, 7, NO_TIME])
    samples, rejects = decoder.decode(given)
    assert (samples.streams, samples.event_ns.tolist()) == (["k"], [5])
    assert [reject.reason for reject in rejects] == [Reason.MISSING_FIELD, Reason.NOT_UTF8, Reason.BAD_TIME]


def test_labels_come_along() -> None:
    """Labels belong to the record that carries them."""
    samples, _ = decode(GOOD, b'{"stream":"s","time":2,"values":{"v":1},"labels":{"site":"a"}}')
    assert samples.labels == [None, {"site": "a"}]


@pytest.mark.parametrize(
    ("time", "unit", "ns"),
    [
        (1732190000, "s", 1_732_190_000_000_000_000),
        (1732190000.25, "s", 1_732_190_000_250_000_000),
        (0.1, "s", 100_000_000),
        (1732190000.1, "s", 1_732_190_000_099_999_905),  # the double nearest to .1 is that
        (1732190000123, "ms", 1_732_190_000_123_000_000),
        (1732190000123.5, "ms", 1_732_190_000_123_500_000),
        (1732190000123456, "us", 1_732_190_000_123_456_000),
        (1732190000123456789, "ns", 1_732_190_000_123_456_789),
        (2**63 - 1, "ns", 2**63 - 1),
        (2**63, "ns", -1),
        (10**30, "s", -1),
        (-0.5, "s", -1),
        (0, "s", 0),
    ],
)
def test_numbers_become_nanoseconds_exactly(time: float, unit: str, ns: int) -> None:
    """Integers are exact, floats are rounded to the nearest nanosecond; beside a number of the other kind, the same."""
    assert number_to_ns([time], unit).tolist() == [ns]
    assert number_to_ns([time, 7, 7.5], unit)[0] == ns
    assert number_to_ns([time, -1], unit)[0] == ns


ISO = {
    "2024-11-21T11:53:20Z": 1_732_190_000_000_000_000,
    "2024-11-21T11:53:20.25Z": 1_732_190_000_250_000_000,
    "2024-11-21 11:53:20.123456789z": 1_732_190_000_123_456_789,
    "2024-11-21T11:53:20": 1_732_190_000_000_000_000,
    "2024-11-21T13:53:20+02:00": 1_732_190_000_000_000_000,
    "2024-11-21T08:23:20-0330": 1_732_190_000_000_000_000,
    "1970-01-01T00:00:00Z": 0,
    "1969-12-31T23:59:59Z": -1,
    "2262-04-11T23:47:16.854775807Z": 2**63 - 1,
    "2262-04-11T23:47:16.854775808Z": -1,
    "2024-13-21T11:53:20Z": -1,
    "2024-11-21T11:53:60Z": -1,
    "2024-11-21": -1,
    "now": -1,
    "": -1,
    "2024-11-21T11:53:20.Z": -1,
    "2024-11-21T11:53:20.1234567890Z": -1,
    "２024-11-21T11:53:20Z": -1,
}


@pytest.mark.parametrize(("text", "ns"), ISO.items())
def test_iso_8601_becomes_nanoseconds_exactly(text: str, ns: int) -> None:
    """Alone, among texts of its own layout and among others."""
    assert iso_to_ns([text]).tolist() == [ns]
    assert iso_to_ns([text, text, text]).tolist() == [ns] * 3
    assert iso_to_ns([*ISO, text])[-1] == ns


def test_iso_8601_is_read_from_records() -> None:
    """A text that is no time is rejected, the others are read."""
    lines = [json.dumps({"stream": "s", "time": time, "values": {"v": 1}}).encode() for time in ISO]
    samples, rejects = decode(*lines, time_unit="iso8601")
    assert samples.event_ns.tolist() == [ns for ns in ISO.values() if ns >= 0]
    assert {reason for _, reason in rejects} == {Reason.BAD_TIME}


def test_a_large_record_is_read_up_to_the_limit() -> None:
    """The limit itself is allowed."""
    limit = len(GOOD)
    assert decode(GOOD, GOOD + b" ", max_record_bytes=limit)[1] == [(1, Reason.TOO_LARGE)]


def test_screen_refuses_what_no_stream_could_use() -> None:
    """A future time, an infinity and an empty sample; the limit itself is still allowed."""
    hour_ns = 3600 * 10**9
    samples = Samples(
        shard=SHARD,
        index=np.arange(6),
        streams=list("abcdef"),
        event_ns=np.array([300, 301, 1, 1, 1, hour_ns]) * 10**9,
        append_ns=np.array([0, 0, NO_TIME, NO_TIME, 5, NO_TIME]),
        positions=np.arange(6),
        shapes=[("v",), ("v", "w")],
        shape_of=np.array([0, 0, 1, 1, 1, 0]),
        cells=[np.ones((3, 1)), np.array([[np.inf, 1], [np.nan, np.nan], [np.nan, 2]])],
    )
    kept, rejects = screen(samples, 300.0)
    assert kept.streams == ["a", "e", "f"]
    np.testing.assert_array_equal(kept.cells[1], [[np.nan, 2]])
    assert [(reject.index, reject.reason) for reject in rejects] == [
        (1, Reason.FUTURE),
        (2, Reason.NOT_FINITE),
        (3, Reason.NOTHING_OBSERVED),
    ]


def test_a_sample_without_any_cell_is_refused() -> None:
    """An empty map of values observes nothing, also where all records of a poll are so."""
    samples, _ = decode(b'{"stream":"s","time":1,"values":{}}')
    kept, rejects = screen(samples, 300.0)
    assert (len(kept), [reject.reason for reject in rejects]) == (0, [Reason.NOTHING_OBSERVED])


def test_an_empty_poll_is_no_trouble() -> None:
    """No records, no samples."""
    samples, rejects = decode()
    assert (len(samples), rejects) == (0, [])
    assert screen(samples, 1.0) == (samples, [])


def test_one_field_cannot_be_two_things() -> None:
    """That is said when the decoder is made, not by the first record."""
    with pytest.raises(ConfigurationError, match="different field"):
        Decoder(RecordSettings(stream="id", time="id"))
