"""Decode: bytes into samples, columnar; what cannot be read becomes a `Reject` with its reason.

A record is read by a msgspec struct that is made from `RecordSettings` once. All good records of a poll go through C
code in one call; a broken one costs itself and no more. Only then is it looked at again, slowly, to name its fault.

Times become integer nanoseconds. Integers are exact. Of a float the whole part is exact and the fraction is rounded
to the nearest nanosecond of the number that the float really is: in seconds a float near 2026 has steps of 238 ns, so
write seconds with more than six decimals, or anything that must be exact, as an integer of a smaller unit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.errors import ConfigurationError
from detector.records import NO_TIME, Float64, Int64, Reason, Records, Reject, Samples
from detector.settings import RecordSettings

Parsed: TypeAlias = Any
"""A struct made from the settings, with `stream`, `time`, `values` or `c0, c1, ...`, `labels` as configured."""
Fault: TypeAlias = tuple[Reason, str]

_LAST_NS = np.iinfo(np.int64).max  # in the year 2262
_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:[Zz]|([+-])(\d\d):?([0-5]\d))?", flags=re.ASCII
)
_MAX_DETAIL = 200  # characters of a reason's detail


class Decoder:
    """Reads the records of one source."""

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._decode: Callable[[bytes | None], Parsed] = msgspec.json.Decoder(_struct(settings)).decode  # type: ignore[assignment]  # None raises TypeError, which is caught

    def decode(self, records: Records) -> tuple[Samples, list[Reject]]:
        """Turn one poll into samples and rejects, both in record order."""
        faults: dict[int, Fault] = {}
        parsed, index = self._parse(records.values, faults)
        streams = self._streams(parsed, index, records.keys, faults)
        event_ns = self._event_ns(parsed, index, records.append_ns, faults)
        shapes, shape_of, cells = self._cells(parsed)
        labels = [one.labels for one in parsed] if self._settings.labels is not None else []
        samples = Samples(
            shard=records.shard,
            index=index,
            streams=streams,
            event_ns=event_ns,
            append_ns=records.append_ns[index],
            positions=records.positions[index],
            shapes=shapes,
            shape_of=shape_of,
            cells=cells,
            labels=labels if any(labels) else None,
        )
        rejects = [Reject(at, int(records.positions[at]), *fault) for at, fault in sorted(faults.items())]
        is_good = np.array([at not in faults for at in index.tolist()], np.bool_) if faults else None
        return (samples if is_good is None or is_good.all() else samples.take(np.flatnonzero(is_good))), rejects

    def _parse(self, values: Sequence[bytes | None], faults: dict[int, Fault]) -> tuple[list[Parsed], Int64]:
        limit = self._settings.max_record_bytes
        if max(map(len, filter(None, values)), default=0) > limit:
            lengths = {at: len(value) for at, value in enumerate(values) if value and len(value) > limit}
            faults |= {at: (Reason.TOO_LARGE, f"{length} bytes") for at, length in lengths.items()}
            values = [None if at in faults else value for at, value in enumerate(values)]
        parsed: list[Parsed] = []
        broken: list[int] = []
        todo = iter(values)
        while len(parsed) + len(broken) < len(values):
            try:
                parsed.extend(map(self._decode, todo))  # keeps what came before a broken one; `todo` stands behind it
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:
                at = len(parsed) + len(broken)
                broken.append(at)
                if at not in faults:
                    faults[at] = _fault(values[at], error, self._settings)
        return parsed, np.delete(np.arange(len(values)), broken)

    def _streams(
        self, parsed: list[Parsed], index: Int64, keys: Sequence[bytes | None], faults: dict[int, Fault]
    ) -> list[str]:
        if self._settings.stream is not None:
            return [one.stream for one in parsed]
        streams = []
        for at in index.tolist():
            key = keys[at]
            try:
                streams.append("" if key is None else key.decode())
            except UnicodeDecodeError:
                streams.append("")
                faults[at] = (Reason.NOT_UTF8, "the record's key")
            if key is None:
                faults[at] = (Reason.MISSING_FIELD, "the record has no key to take the stream from")
        return streams

    def _event_ns(self, parsed: list[Parsed], index: Int64, append_ns: Int64, faults: dict[int, Fault]) -> Int64:
        if self._settings.time is None:
            event_ns = append_ns[index]
        elif self._settings.time_unit == "iso8601":
            event_ns = iso_to_ns([one.time for one in parsed])
        else:
            event_ns = number_to_ns([one.time for one in parsed], self._settings.time_unit)
        for at in np.flatnonzero(event_ns < 0).tolist():
            time = "the record has no timestamp" if self._settings.time is None else repr(parsed[at].time)
            faults.setdefault(int(index[at]), (Reason.BAD_TIME, time[:_MAX_DETAIL]))
        return event_ns

    def _cells(self, parsed: list[Parsed]) -> tuple[list[tuple[str, ...]], NDArray[np.intp], list[Float64]]:
        if not parsed:
            return [], np.empty(0, np.intp), []
        if self._settings.values is None:
            names = tuple(self._settings.channels or ())
            columns = [list(map(attrgetter(f"c{c}"), parsed)) for c in range(len(names))]
            return [names], np.zeros(len(parsed), np.intp), [np.array(columns, np.float64).T.copy()]
        return _group([one.values for one in parsed])


def _struct(settings: RecordSettings) -> type[msgspec.Struct]:
    """The struct that reads one record; a field that the settings leave out is not in it."""
    number = float | None
    time: Any = {"s": float, "iso8601": str}.get(settings.time_unit, int | float)
    fields: list[Any] = []
    if settings.stream is not None:
        fields.append(("stream", str, msgspec.field(name=settings.stream)))
    if settings.time is not None:
        fields.append(("time", time, msgspec.field(name=settings.time)))
    if settings.values is not None:
        fields.append(("values", dict[str, number], msgspec.field(name=settings.values)))
    for c, channel in enumerate(settings.channels or ()):
        fields.append((f"c{c}", number, msgspec.field(default=None, name=channel)))
    if settings.labels is not None:
        fields.append(("labels", dict[str, str] | None, msgspec.field(default=None, name=settings.labels)))
    try:
        return msgspec.defstruct("Record", fields, gc=False)  # gc=False: nothing in it can form a cycle
    except ValueError as error:
        raise ConfigurationError("record", "fields", expected="a different field for each", got=error) from error


def _group(maps: list[dict[str, float | None]]) -> tuple[list[tuple[str, ...]], NDArray[np.intp], list[Float64]]:
    """Values by shape. Nearly always there is one, and then the keys one after the other say so."""
    names = list(maps[0])
    # Equal lists mean equal shapes: keys are unique in a map, so none can be longer than `names`, hence none shorter.
    if list(chain.from_iterable(maps)) == names * len(maps):
        return [tuple(names)], np.zeros(len(maps), np.intp), [_matrix(maps, len(names))]
    of_shape: dict[tuple[str, ...], int] = {}
    shape_of = np.array([of_shape.setdefault(tuple(one), len(of_shape)) for one in maps], np.intp)
    cells = [
        _matrix([maps[at] for at in np.flatnonzero(shape_of == shape).tolist()], len(names))
        for names, shape in of_shape.items()
    ]
    return list(of_shape), shape_of, cells


def _matrix(maps: list[dict[str, float | None]], width: int) -> Float64:
    numbers = list(chain.from_iterable(map(dict.values, maps)))
    return np.array(numbers, np.float64).reshape(len(maps), width)  # None becomes NaN


def number_to_ns(times: Sequence[int | float], unit: str) -> Int64:
    """Nanoseconds since 1970 of times in `unit` (s, ms, us, ns), -1 where one lies outside 1970 to 2262."""
    scale = _UNIT_NS[unit]
    kinds = set(map(type, times))
    if kinds == {float}:
        return _floats_to_ns(np.array(times, np.float64), scale)
    if kinds == {int} and min(times) >= 0 and max(times) <= _LAST_NS // scale:
        return np.array(times, np.int64) * scale
    return np.array([_number_to_ns(time, scale) for time in times], np.int64)


def _floats_to_ns(times: Float64, scale: int) -> Int64:
    in_range = (times >= 0) & (times < _LAST_NS // scale)
    times = np.where(in_range, times, 0.0)
    whole = np.floor(times)
    rounded = np.rint((times - whole) * scale)  # to even at a tie, as Python's round
    return np.where(in_range, whole.astype(np.int64) * scale + rounded.astype(np.int64), -1)


def _number_to_ns(time: float, scale: int) -> int:
    if not 0 <= time <= _LAST_NS // scale:
        return -1
    return time * scale if isinstance(time, int) else int(_floats_to_ns(np.array([time]), scale)[0])


def iso_to_ns(texts: Sequence[str]) -> Int64:
    """Nanoseconds since 1970 of ISO 8601 texts, UTC where they name no offset; -1 where one cannot be read."""
    times = _alike_to_ns(texts)
    return np.array([_iso_to_ns(text) for text in texts], np.int64) if times is None else times


def _alike_to_ns(texts: Sequence[str]) -> Int64 | None:
    """The fast way, for texts that are all of one layout, in UTC and right; else None."""
    match = _ISO.fullmatch(texts[0]) if texts else None
    if match is None or match.group(4):
        return None
    together, width = "".join(texts), len(texts[0])
    if not together.isascii() or set(map(len, texts)) != {width}:
        return None
    letters = np.frombuffer(together.encode(), np.uint8).reshape(len(texts), width)
    is_digit = (letters >= ord("0")) & (letters <= ord("9"))
    if not ((letters == letters[0]) | (is_digit & is_digit[0])).all():
        return None
    try:
        seconds = np.array([f"{text[:10]}T{text[11:19]}" for text in texts], "datetime64[s]").astype(np.int64)
    except ValueError:  # such as month 13
        return None
    if seconds.min() < 0 or seconds.max() >= _LAST_NS // 10**9:
        return None
    digits = len(match.group(3) or ".") - 1
    powers = 10 ** np.arange(8, 8 - digits, -1)
    fraction = (letters[:, 20 : 20 + digits].astype(np.int64) - ord("0")) * powers  # (n, digits), nanoseconds
    times: Int64 = seconds * 10**9 + fraction.sum(axis=1)
    return times


def _iso_to_ns(text: str) -> int:
    match = _ISO.fullmatch(text)
    if match is None:
        return -1
    day, time, fraction, sign, hours, minutes = match.groups()
    try:
        ns = int(np.datetime64(f"{day}T{time}", "s").astype(np.int64)) * 10**9
    except ValueError:  # such as month 13
        return -1
    ns += int((fraction or ".0")[1:].ljust(9, "0"))
    if sign:
        ns -= int(sign + "1") * (int(hours) * 60 + int(minutes)) * 60 * 10**9
    return ns if 0 <= ns <= _LAST_NS else -1


def screen(samples: Samples, future_s: float) -> tuple[Samples, list[Reject]]:
    """Refuse what no stream could use, before it can make a new one: future, not finite, nothing observed."""
    limit_ns = round(min(future_s * 1e9, 2.0**62))
    append_ns = samples.append_ns
    is_future = (append_ns != NO_TIME) & (samples.event_ns > np.minimum(append_ns, _LAST_NS - limit_ns) + limit_ns)
    if not is_future.any() and all(cells.shape[1] and np.isfinite(cells).all() for cells in samples.cells):
        return samples, []
    is_infinite, is_empty = np.zeros((2, len(samples)), np.bool_)
    for shape, cells in enumerate(samples.cells):
        of_shape = samples.shape_of == shape
        is_infinite[of_shape] = np.isinf(cells).any(axis=1)
        is_empty[of_shape] = np.isnan(cells).all(axis=1)
    rejects = []
    for at in np.flatnonzero(is_future | is_infinite | is_empty).tolist():
        if is_future[at]:
            ahead_s = (int(samples.event_ns[at]) - int(append_ns[at])) / 1e9
            fault = (Reason.FUTURE, f"{ahead_s:g} s after the record's timestamp")
        else:
            fault = (Reason.NOT_FINITE, "") if is_infinite[at] else (Reason.NOTHING_OBSERVED, "")
        rejects.append(Reject(int(samples.index[at]), int(samples.positions[at]), *fault))
    good = np.flatnonzero(~(is_future | is_infinite | is_empty))
    return (samples.take(good) if rejects else samples), rejects


def _fault(value: bytes | None, error: Exception, settings: RecordSettings) -> Fault:
    """What is wrong with a record that msgspec refused; the standard library's laxer parser helps to tell."""
    if not value:
        return Reason.EMPTY, ""
    detail = str(error)[:_MAX_DETAIL]
    try:
        text = value.decode()
    except UnicodeDecodeError as utf8_error:
        return Reason.NOT_UTF8, str(utf8_error)[:_MAX_DETAIL]
    try:
        # As floats also integers: a number of a million digits is then infinite rather than slow.
        document = json.loads(text, parse_int=float)
    except (ValueError, RecursionError):
        return Reason.MALFORMED, detail
    if not isinstance(document, dict):
        return Reason.BAD_TYPE, detail
    time = document.get(settings.time)
    if isinstance(time, float) and not math.isfinite(time):
        return Reason.BAD_TIME, detail
    if _is_infinite(document.values()):
        return Reason.NOT_FINITE, detail
    missing = [name for name in (settings.stream, settings.time, settings.values) if name and name not in document]
    if missing:
        return Reason.MISSING_FIELD, ", ".join(missing)
    return (Reason.BAD_TYPE if isinstance(error, msgspec.ValidationError) else Reason.MALFORMED), detail


def _is_infinite(values: Iterable[object]) -> bool:
    """Whether a number in there, at any depth, is NaN or infinite."""
    todo = list(values)
    while todo:
        value = todo.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return True
        if isinstance(value, dict | list):
            todo += value.values() if isinstance(value, dict) else value
    return False
