"""MessagePack: the same samples and the same reasons as JSON, and what only it can carry."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from detector.records import NO_TIME, Reason, Records, Samples, Shard
from detector.settings import RecordSettings
from detector.stages.decode import Decoder, screen

pack = msgspec.msgpack.Encoder().encode
GOOD = pack({"stream": "s", "time": 1732190000.25, "values": {"v": 1.25}})
NARROW: dict[str, Any] = {"channel": "channel", "value": "value"}


def decode(*values: bytes | None, **options: Any) -> tuple[Samples, list[tuple[int, Reason]]]:
    """Samples and reasons, after the screen."""
    n = len(values)
    records = Records(Shard("c", "t", 0), list(values), [None] * n, np.arange(n), np.full(n, NO_TIME), n)
    samples, rejects = Decoder(RecordSettings(**{"format": "msgpack"} | options)).decode(records)
    samples, screened = screen(samples, 300.0)
    return samples, sorted((reject.index, reject.reason) for reject in (*rejects, *screened))


def record(time: Any = 1, values: Any = {"v": 1}, **more: Any) -> bytes:  # noqa: B006  # never changed
    """A record with parts replaced."""
    return pack({"stream": "s", "time": time, "values": values} | more)


def raw(*pairs: bytes) -> bytes:
    """A map of packed keys and values, which need not be sound."""
    return bytes([0x80 | len(pairs) // 2]) + b"".join(pairs)


BROKEN = {
    "null value": (None, Reason.EMPTY),
    "no bytes": (b"", Reason.EMPTY),
    "stream not UTF-8": (
        raw(pack("stream"), b"\xa1\xff", pack("time"), pack(1), pack("values"), pack({"v": 1})),
        Reason.NOT_UTF8,
    ),
    "truncated": (GOOD[:-3], Reason.MALFORMED),
    "a size without an end": (b"\xdf\xff\xff\xff\xff", Reason.MALFORMED),
    "a byte that is no type": (b"\xc1", Reason.MALFORMED),
    "two documents": (GOOD + GOOD, Reason.MALFORMED),
    "JSON": (b'{"stream":"s","time":1,"values":{"v":1}}', Reason.MALFORMED),
    "deep": (b"\x81\xa1x" + b"\x91" * 100_000, Reason.MALFORMED),
    "too large": (record(x="x" * 1_048_576), Reason.TOO_LARGE),
    "no stream": (pack({"time": 1, "values": {"v": 1}}), Reason.MISSING_FIELD),
    "no time": (pack({"stream": "s", "values": {"v": 1}}), Reason.MISSING_FIELD),
    "no values": (pack({"stream": "s", "time": 1}), Reason.MISSING_FIELD),
    "a list": (pack([1]), Reason.BAD_TYPE),
    "nil": (pack(None), Reason.BAD_TYPE),
    "stream as bytes": (record(stream=b"s"), Reason.BAD_TYPE),
    "stream a number": (record(stream=1), Reason.BAD_TYPE),
    "a key that is a number": (pack({1: 2, "stream": "s", "time": 1, "values": {"v": 1}}), Reason.BAD_TYPE),
    "time a text": (record("1"), Reason.BAD_TYPE),
    "value a text": (record(values={"v": "1"}), Reason.BAD_TYPE),
    "value a truth": (record(values={"v": True}), Reason.BAD_TYPE),
    "value an extension": (record(values={"v": Ext(5, b"x")}), Reason.BAD_TYPE),
    "values a list": (record(values=[1]), Reason.BAD_TYPE),
    "before 1970": (record(-1), Reason.BAD_TIME),
    "after 2262": (record(9.3e9), Reason.BAD_TIME),
    "time infinite": (record(math.inf), Reason.BAD_TIME),
    "time NaN": (record(math.nan), Reason.BAD_TIME),
    "another extension as time": (record(Ext(5, b"abcd")), Reason.BAD_TIME),
    "a timestamp of 5 bytes": (record(Ext(-1, b"abcde")), Reason.BAD_TIME),
    "a timestamp before 1970": (record(Ext(-1, struct.pack(">Iq", 0, -1))), Reason.BAD_TIME),
    "a timestamp with too many nanoseconds": (record(Ext(-1, struct.pack(">Iq", 10**9, 1))), Reason.BAD_TIME),
    "NaN": (record(values={"v": math.nan}), Reason.NOT_FINITE),
    "NaN beside nil": (record(values={"v": None, "w": math.nan}), Reason.NOT_FINITE),
    "infinity": (record(values={"v": -math.inf}), Reason.NOT_FINITE),
    "nothing observed": (record(values={"v": None}), Reason.NOTHING_OBSERVED),
}


@pytest.mark.parametrize(("value", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_record_names_its_fault(value: bytes | None, reason: Reason) -> None:
    """Each way to be broken has its reason, and the records beside it are untouched."""
    samples, rejects = decode(GOOD, value, GOOD)
    assert rejects == [(1, reason)]
    assert (samples.index.tolist(), samples.streams) == ([0, 2], ["s", "s"])


def test_counts_are_exact_in_any_company() -> None:
    """Shuffled together, many times over, every record keeps its own reason."""
    lines = [*BROKEN.values(), *[(GOOD, None)] * 20]
    shuffler = random.Random(7)
    for _ in range(5):
        mixed = shuffler.sample(lines, len(lines))
        samples, rejects = decode(*(value for value, _ in mixed))
        assert rejects == [(at, reason) for at, (_, reason) in enumerate(mixed) if reason]
        assert samples.index.tolist() == [at for at, (_, reason) in enumerate(mixed) if reason is None]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "iso8601"])
def test_its_own_timestamps_are_exact_in_any_unit(unit: str) -> None:
    """All three sizes, to the nanosecond, also beside times of the declared unit."""
    seconds, ns = 1_732_190_000, 123_456_789
    stamps = [struct.pack(">I", seconds), struct.pack(">Q", ns << 34 | seconds), struct.pack(">Iq", ns, seconds)]
    plain: Any = "1970-01-01T00:00:07Z" if unit == "iso8601" else 7
    samples, rejects = decode(*(record(Ext(-1, stamp)) for stamp in stamps), record(plain), time_unit=unit)
    assert rejects == []
    of_plain = 7 * {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1, "iso8601": 10**9}[unit]
    assert samples.event_ns.tolist() == [seconds * 10**9, *[seconds * 10**9 + ns] * 2, of_plain]


def test_small_floats_and_large_integers_are_numbers() -> None:
    """MessagePack has several sizes of each; a nil is a missing channel."""
    half = raw(
        pack("stream"), pack("s"), pack("time"), pack(1), pack("values"), b"\x81\xa1v\xca" + struct.pack(">f", 1.5)
    )
    samples, rejects = decode(half, record(values={"v": 2**64 - 1}), record(values={"v": -3, "w": None}))
    assert rejects == []
    assert samples.cells[0].tolist() == [[1.5], [2.0**64]]
    np.testing.assert_array_equal(samples.cells[1], [[-3.0, np.nan]])


NUMBERS = st.none() | st.floats() | st.integers(-(2**63), 2**64 - 1)
WIDE = st.fixed_dictionaries(
    {
        "stream": st.text(max_size=3),
        "time": st.floats(0, 9e9) | st.integers(0, 2**40),
        "values": st.dictionaries(st.sampled_from(["a", "b", "é"]), NUMBERS, max_size=3),
    },
    optional={"labels": st.none() | st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2)},
)
ONE_CHANNEL = st.fixed_dictionaries(
    {"stream": st.text(max_size=3), "time": st.floats(0, 9e9), "channel": st.sampled_from(["a", "b"]), "value": NUMBERS}
)


@settings(max_examples=200, deadline=None)
@given(st.lists(WIDE, max_size=8), st.lists(ONE_CHANNEL, max_size=8))
def test_both_formats_say_the_same(wide: list[dict[str, Any]], narrow: list[dict[str, Any]]) -> None:
    """The same feed as JSON and as MessagePack: the same samples, bit for bit, and the same reasons."""
    for feed, options in ((wide, {}), (narrow, NARROW)):
        as_json = decode(*(json.dumps(one).encode() for one in feed), **options, format="json")
        as_msgpack = decode(*map(pack, feed), **options)
        assert as_json[1] == as_msgpack[1]
        assert list(each_of(as_json[0])) == list(each_of(as_msgpack[0]))


def each_of(samples: Samples) -> Iterator[tuple[object, ...]]:
    """Sample by sample all that is known of it."""
    for at in range(len(samples)):
        one = samples.take(np.array([at]))
        names = one.shapes[one.shape_of[0]] if one.channel_of is None else one.shapes[0][one.channel_of[0]]
        cells = one.cells[one.shape_of[0]].tobytes()
        labels = (one.labels[0] if one.labels else None) or None  # none at all, or an empty object: the same
        yield int(one.index[0]), one.streams, int(one.event_ns[0]), names, cells, labels
