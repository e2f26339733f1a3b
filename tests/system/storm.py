"""A storm of records, a third of them broken in every way that there is, and what must become of each.

A `Storm` makes records for a few partitions, in order, and counts by itself what it broke, and how: that count is what
a daemon's dead letters and metrics are compared with. Every broken record stands between good ones; the good ones are
samples of streams whose every time must be scored, once.

    storm = Storm(seed=1, encoding="json", is_narrow=False)
    for record in storm.records(30_000): ...
    storm.expected, storm.good
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

PARTITIONS = 4
STREAMS = 80
CHANNELS = ("flow", "heat")
START_S, PERIOD_S = 1_600_000_000, 10
LONGEST = 16_384  # bytes of a record that the daemon is told to take
_BROKEN = 1 / 3
_ABSURD = 15_000  # levels of nesting, in a record that is not too large
_MEBIBYTE = 1 << 20
_MEBIBYTE_EVERY = 20  # of the records that are too large


@dataclass(frozen=True, slots=True)
class Blow:
    """One record of the storm."""

    partition: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


@dataclass
class _Stream:
    """How far a stream has come."""

    name: str
    partition: int
    tick: int = -1
    arrived: list[str] = field(default_factory=list)
    """Channels of that tick that have arrived."""


class Storm:
    """Makes records, and knows what must become of them."""

    def __init__(self, seed: int, *, encoding: str, is_narrow: bool) -> None:
        self.expected: Counter[str] = Counter()
        """Broken records by the reason that must be told."""
        self.good: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        """Per stream how many samples must be scored, and the sum of their ticks."""
        self.made = 0
        self._random = random.Random(seed)
        self._is_narrow = is_narrow
        self._encode: Callable[[Any], bytes] = (
            msgspec.msgpack.encode if encoding == "msgpack" else lambda document: json.dumps(document).encode()
        )
        names = ["pumpe-ü-{}", "pump-{}", "pump {} \U0001f30a", "pump-\u0000{}"]
        self._streams = [_Stream(names[i % len(names)].format(i), i % PARTITIONS) for i in range(STREAMS)]
        self._ways = [*_WAYS, *_ways_of(encoding, is_narrow)]

    def records(self, count: int) -> Iterator[Blow]:
        """So many records, all ways of being broken in turn, at random between the good ones."""
        good = self._good_ones()
        while self.made < count:
            self.made += 1
            if self._random.random() < _BROKEN and self.made > 4 * STREAMS:
                yield self._broken(self._ways[sum(self.expected.values()) % len(self._ways)])
            else:
                yield next(good)

    def _good_ones(self) -> Iterator[Blow]:
        """Samples of all streams, tick after tick, in a new order each time; narrow ones channel by channel."""
        for tick in range(1 << 31):
            for stream in self._random.sample(self._streams, STREAMS):
                values = {name: self._random.choice([self._random.gauss(50, 1), 7, -0.0, 1e-300]) for name in CHANNELS}
                stream.tick, stream.arrived = tick, []
                if not self._is_narrow:
                    if self._random.random() < 0.05:
                        values[self._random.choice(CHANNELS)] = None
                    stream.arrived = list(CHANNELS)
                    self._score(stream)
                    yield self._blow(stream, {**self._head(stream, tick), "values": values, "further": [{"a": None}]})
                    continue
                for name in self._random.sample(CHANNELS, len(CHANNELS)):
                    stream.arrived.append(name)
                    if len(stream.arrived) == len(CHANNELS):
                        self._score(stream)
                    yield self._blow(stream, {**self._head(stream, tick), "channel": name, "value": values[name]})

    def _score(self, stream: _Stream) -> None:
        of_stream = self.good[stream.name]
        of_stream[0] += 1
        of_stream[1] += stream.tick

    def _head(self, stream: _Stream, tick: float) -> dict[str, Any]:
        return {"stream": stream.name, "time": START_S + tick * PERIOD_S}

    def _document(self, stream: _Stream, tick: float) -> dict[str, Any]:
        """A whole record, as good as any."""
        body = {"channel": "flow", "value": 50.0} if self._is_narrow else {"values": {"flow": 50.0, "heat": 20.0}}
        return self._head(stream, tick) | body

    def _blow(self, stream: _Stream, document: Any) -> Blow:
        return self._raw(stream, document if isinstance(document, bytes | None) else self._encode(document))

    def _raw(self, stream: _Stream, value: bytes | None) -> Blow:
        key = self._random.choice([None, b"", b"\xff\x00\xfe", stream.name.encode()])
        return Blow(stream.partition, key, value, (START_S + max(stream.tick, 0) * PERIOD_S) * 1000)

    def _broken(self, way: _Way) -> Blow:
        reason, break_ = way
        stream = self._random.choice(self._streams)
        self.expected[reason] += 1
        document = self._document(stream, stream.tick + 0.5)  # later than its last: nothing else is wrong with it
        return self._blow(stream, break_(Case(self, stream, document)))


@dataclass(frozen=True, slots=True)
class Case:
    """A good record about to be broken."""

    storm: Storm
    stream: _Stream
    document: dict[str, Any]

    @property
    def encoded(self) -> bytes:
        """As it would have been sent."""
        return self.storm._encode(self.document)

    @property
    def random(self) -> random.Random:
        """The storm's."""
        return self.storm._random

    def without(self, name: str) -> dict[str, Any]:
        """Less a field."""
        return {key: value for key, value in self.document.items() if key != name}

    def with_value(self, value: Any) -> dict[str, Any]:
        """With this value of its first channel."""
        return self.document | ({"value": value} if "value" in self.document else {"values": {"flow": value}})

    def at(self, tick: float) -> dict[str, Any]:
        """At another time."""
        return self.document | {"time": START_S + tick * PERIOD_S}

    def cut(self) -> bytes:
        """Cut off somewhere."""
        return self.encoded[: self.random.randrange(1, len(self.encoded))]

    def large(self) -> bytes:
        """Too long, now and then by far."""
        is_huge = self.storm.expected["too_large"] % _MEBIBYTE_EVERY == 0
        return self.storm._encode(self.document | {"pad": "x" * (_MEBIBYTE if is_huge else LONGEST)})

    def again(self) -> dict[str, Any]:
        """What the stream has sent last."""
        channel = {"channel": self.stream.arrived[0]} if "channel" in self.document else {}
        return self.at(self.stream.tick) | channel


_Way = tuple[str, Callable[[Case], Any]]

_WAYS: list[_Way] = [
    ("empty", lambda _: None),
    ("empty", lambda _: b""),
    ("malformed", lambda case: case.cut()),
    ("too_large", lambda case: case.large()),
    ("missing_field", lambda case: case.without("stream")),
    ("missing_field", lambda case: case.without("time")),
    ("missing_field", lambda case: case.without("values" if "values" in case.document else "channel")),
    ("missing_field", lambda _: {}),
    ("bad_type", lambda case: case.document | {"stream": 7}),
    ("bad_type", lambda case: case.document | {"stream": None}),
    ("bad_type", lambda case: case.document | {"time": "yesterday"}),
    ("bad_type", lambda case: case.document | {"time": None}),
    ("bad_type", lambda case: case.with_value("high")),
    ("bad_type", lambda case: case.with_value(True)),
    ("bad_type", lambda case: case.with_value([1.0])),
    ("bad_type", lambda case: case.document | {"labels": {"site": 7}}),
    ("bad_type", lambda _: [1, 2, 3]),
    ("bad_type", lambda _: "text"),
    ("bad_type", lambda _: 42),
    ("bad_time", lambda case: case.document | {"time": -1}),
    ("bad_time", lambda case: case.document | {"time": 1e300}),
    ("bad_time", lambda case: case.document | {"time": 2**63}),
    ("future", lambda case: case.at(case.stream.tick + 100)),
    ("unwanted", lambda case: case.document | {"stream": "rogue-7"}),
    ("late", lambda case: case.at(case.stream.tick - 0.5)),
    ("duplicate", lambda case: case.again()),
]


def _ways_of(encoding: str, is_narrow: bool) -> list[_Way]:
    ways = _WAYS_OF_MSGPACK if encoding == "msgpack" else _WAYS_OF_JSON
    return [*ways, *(_WAYS_OF_NARROW if is_narrow else _WAYS_OF_WIDE)]


_WAYS_OF_WIDE: list[_Way] = [
    ("nothing_observed", lambda case: case.document | {"values": {"flow": None, "heat": None}}),
    ("nothing_observed", lambda case: case.document | {"values": {}}),
    ("unknown_channel", lambda case: case.document | {"values": {"flow": 1.0, "torque": 2.0}}),
    ("bad_type", lambda case: case.document | {"values": [1.0, 2.0]}),
    ("bad_type", lambda case: case.document | {"values": "flow"}),
]

_WAYS_OF_NARROW: list[_Way] = [
    ("unknown_channel", lambda case: case.document | {"channel": "torque"}),
    ("missing_field", lambda case: case.without("value")),
    ("bad_type", lambda case: case.document | {"channel": 7}),
]


def _text(case: Case, number: str) -> bytes:
    """A number as nobody's encoder would write it."""
    return case.storm._encode(case.with_value(12345.5)).replace(b"12345.5", number.encode())


_WAYS_OF_JSON: list[_Way] = [
    ("not_utf8", lambda case: case.encoded.replace(b'"stream": "', b'"stream": "\xff\xfe')),
    ("not_utf8", lambda _: b"\xff\xfe\x00"),
    ("malformed", lambda _: b"{"),
    ("malformed", lambda _: b"\x00" * 64),
    ("malformed", lambda _: b"pump-1 50.0 20.0"),
    ("malformed", lambda case: case.encoded + b"}"),
    ("malformed", lambda _: b"[" * _ABSURD),
    ("malformed", lambda case: case.encoded[:-1] + b', "deep": ' + b"[" * 7000 + b"]" * 7000 + b"}"),
    ("not_finite", lambda case: _text(case, "1e999")),
    ("not_finite", lambda case: _text(case, "-1e999")),
    ("not_finite", lambda case: _text(case, "NaN")),
    ("not_finite", lambda case: _text(case, "Infinity")),
    ("not_finite", lambda case: _text(case, "9" * 5000)),
    ("bad_time", lambda case: json.dumps(case.document | {"time": 10**400}).encode()),
]

_WAYS_OF_MSGPACK: list[_Way] = [
    (
        "not_utf8",
        lambda case: msgspec.msgpack.encode(case.document | {"stream": "nnnn"}).replace(b"nnnn", b"\xff\xfe\xff\xfe"),
    ),
    ("malformed", lambda _: b"\xc1"),
    ("malformed", lambda case: case.encoded + b"\xc0"),
    ("malformed", lambda _: b"\x91" * _ABSURD),
    ("malformed", lambda _: b"\xdf\xff\xff\xff\xff"),
    ("malformed", lambda _: b"\xdb\xff\xff\xff\xffshort"),
    ("not_finite", lambda case: case.with_value(float("inf"))),
    ("not_finite", lambda case: case.with_value(float("nan"))),
    ("bad_time", lambda case: case.document | {"time": float("inf")}),
    ("bad_type", lambda case: case.document | {"stream": b"binary"}),
    ("bad_type", lambda case: case.with_value(msgspec.msgpack.Ext(5, b"1234"))),
]
