"""Holds what was computed against what stands on an output: equal, or what differs, named.

Equal means equal bytes, however often a record stands there. Where the numerics are not those of the daemon, numbers
may differ by the bundle's tolerance: scores and thresholds by `score`, absolute; raw units and shares by `state`,
relative. Everything else is equal or it is a difference, and so is what is missing or was never computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from detector.model.bundle import Tolerance
from detector.records import Alert, Scores, Shard
from detector.sinks.encode import encode_alert, encode_scores

Kind: TypeAlias = Literal["scores", "alerts"]
Key: TypeAlias = int | str
"""What names a record on an output: a score's offset in the input, an alert's id."""

_NINES = ("score", "peak_score", "threshold")
_ABSENT = "nothing"


class _Source(msgspec.Struct):
    cluster: str
    topic: str
    partition: int
    offset: int


class _Identity(msgspec.Struct):
    """What every record of ours has; alerts have an id and an event too."""

    stream: str
    source: _Source
    id: str | None = None
    event: str | None = None


_identify = msgspec.json.Decoder(_Identity).decode


@dataclass(frozen=True, slots=True)
class Computed:
    """One record as it must stand on the outputs."""

    offset: int
    stream: str
    value: bytes


@dataclass(slots=True)
class Expected:
    """All that the range gives."""

    scores: dict[Key, Computed] = field(default_factory=dict)
    alerts: dict[Key, Computed] = field(default_factory=dict)

    def add_scores(self, shard: Shard, scores: Scores) -> None:
        """Of one arena."""
        columns = zip(scores.positions.tolist(), scores.streams, encode_scores(shard, scores), strict=True)
        self.scores.update((offset, Computed(offset, stream, value)) for offset, stream, value in columns)

    def add_alert(self, alert: Alert) -> None:
        """One alert."""
        self.alerts[alert.id] = Computed(alert.source.offset, alert.stream, encode_alert(alert))

    def of(self, kind: Kind) -> Mapping[Key, Computed]:
        """Those of a kind."""
        return self.scores if kind == "scores" else self.alerts


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as computed."""

    kind: Kind
    stream: str
    offset: int
    """Of the input record that it comes from."""
    what: Literal["altered", "missing", "extra"]
    field: str | None
    """The first field that differs, such as `channels.0.observed`."""
    expected: object
    got: object
    where: str
    """Where on the output it stands, or which output it is missing from."""

    def __str__(self) -> str:
        of = f"{self.where}: {self.kind.removesuffix('s')} of stream {self.stream!r} at offset {self.offset}"
        named = "" if self.field is None else f" {self.field}:"
        return f"{of}: {self.what}:{named} expected {self.expected}, got {self.got}"


class Comparison:
    """One output against what was computed: `take` every record of it, then `finish`.

    Args:
        kind: What the output holds.
        output: Its name, for people.
        expected: What must stand there.
        shard: Whose records are compared; others are passed over.
        span: Offsets of the range, [start, end).
        is_complete: Whether all of `expected` must be there; sampled scores promise nothing.
        tolerances: By detector, how far numbers may be off; None where only equal bytes will do.
    """

    def __init__(
        self,
        kind: Kind,
        output: str,
        expected: Mapping[Key, Computed],
        *,
        shard: Shard,
        span: tuple[int, int],
        is_complete: bool = True,
        tolerances: Mapping[str, Tolerance] | None = None,
    ) -> None:
        self.kind, self.output = kind, output
        self._expected, self._shard, self._span = expected, shard, span
        self._is_complete, self._tolerances = is_complete, tolerances
        self._seen: set[Key] = set()
        self.copies = 0
        """Records that stood there once more."""
        self.told_later = 0
        """Notices of silence about the range that were sent after it: not compared."""
        self.differences: list[Difference] = []

    @property
    def compared(self) -> int:
        """How many different records were held against what was computed."""
        return len(self._seen)

    def take(self, value: bytes | None, place: str) -> None:
        """One record of the output; what is not of the range, or not ours, is passed over."""
        try:
            identity = _identify(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):  # others may write to the same output
            return
        source = identity.source
        if Shard(source.cluster, source.topic, source.partition) != self._shard:
            return
        key = source.offset if self.kind == "scores" else identity.id
        computed = None if key is None else self._expected.get(key)
        where = f"{self.output}, {place}"
        if key is not None and computed is not None:
            self.copies += key in self._seen
            self._seen.add(key)
            self._compare(computed, value or b"", where)
        elif self._span[0] <= source.offset < self._span[1]:
            if identity.event == "silent":
                self.told_later += 1
            else:
                self._note(Computed(source.offset, identity.stream, b""), "extra", None, _ABSENT, key, where)

    def finish(self) -> None:
        """All was taken: what is still missing is a difference, and the list is put in order."""
        if self._is_complete:
            for key, computed in self._expected.items():
                if key not in self._seen:
                    self._note(computed, "missing", None, computed.value.decode(), _ABSENT, self.output)
        self.differences.sort(key=lambda each: each.offset)

    def _compare(self, computed: Computed, value: bytes, where: str) -> None:
        if value == computed.value:
            return
        expected, got = msgspec.json.decode(computed.value), msgspec.json.decode(value)
        tolerance = None if self._tolerances is None else self._tolerances.get(expected["detector"])
        for name, one, other in _pairs(expected, got, ""):
            if not _is_equal(name, one, other, tolerance):
                self._note(computed, "altered", name, one, other, where)
                return
        if tolerance is None:
            self._note(computed, "altered", None, computed.value.decode(), value.decode(), where)

    def _note(
        self,
        computed: Computed,
        what: Literal["altered", "missing", "extra"],
        name: str | None,
        expected: object,
        got: object,
        where: str,
    ) -> None:
        self.differences.append(
            Difference(self.kind, computed.stream, computed.offset, what, name, expected, got, where)
        )


def _pairs(expected: Any, got: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Leaves of two documents side by side, in the order of the first."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for name in dict.fromkeys([*expected, *got]):
            yield from _pairs(expected.get(name, _ABSENT), got.get(name, _ABSENT), f"{path}.{name}" if path else name)
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for number, (one, other) in enumerate(zip(expected, got, strict=True)):
            yield from _pairs(one, other, f"{path}.{number}")
    else:
        yield path, expected, got


def _is_equal(name: str, expected: object, got: object, tolerance: Tolerance | None) -> bool:
    if tolerance is None or not (isinstance(expected, float) and isinstance(got, float)):
        return type(expected) is type(got) and expected == got
    if name in _NINES:
        return abs(expected - got) <= tolerance.score
    return abs(expected - got) <= tolerance.state * max(1.0, abs(expected))
