"""The decoder: a struct made from the settings reads each record, and its fields become columns.

All good records of a poll go through C code in one call; a broken one costs itself and no more. Only then is it looked
at again, slowly, to name its fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec
import numpy as np
from msgspec.msgpack import Ext
from numpy.typing import NDArray

from detector.errors import ConfigurationError
from detector.records import Float64, Int64, Reason, Records, Reject, Samples
from detector.settings import RecordSettings
from detector.stages.decode.faults import MAX_DETAIL, Fault, fault_of, nan_in
from detector.stages.decode.times import iso_to_ns, number_to_ns, timestamp_to_ns

Parsed: TypeAlias = Any
"""A struct made from the settings: `stream`, `time`, `labels` and `values`, `c0, c1, ...` or `channel` and `value`."""

_DECODERS: dict[str, Any] = {"json": msgspec.json.Decoder, "msgpack": msgspec.msgpack.Decoder}


class Decoder:
    """Reads the records of one source."""

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._is_msgpack = settings.format == "msgpack"
        self._decode: Callable[[bytes | None], Parsed] = _DECODERS[settings.format](_struct(settings)).decode

    def decode(self, records: Records) -> tuple[Samples, list[Reject]]:
        """Turn one poll into samples and rejects, both in record order."""
        faults: dict[int, Fault] = {}
        parsed, index = self._parse(records.values, faults)
        streams = self._streams(parsed, index, records.keys, faults)
        event_ns = self._event_ns(parsed, index, records.append_ns, faults)
        shapes, shape_of, cells, channel_of = self._cells(parsed)
        if self._is_msgpack:
            self._refuse_nan(parsed, index, shape_of, cells, faults)
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
            channel_of=channel_of,
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
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:  # TypeError: None
                at = len(parsed) + len(broken)
                broken.append(at)
                if at not in faults:
                    faults[at] = fault_of(values[at], error, self._settings)
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
        event_ns = append_ns[index] if self._settings.time is None else self._times_ns([one.time for one in parsed])
        for at in np.flatnonzero(event_ns < 0).tolist():
            time = "the record has no timestamp" if self._settings.time is None else repr(parsed[at].time)
            faults.setdefault(int(index[at]), (Reason.BAD_TIME, time[:MAX_DETAIL]))
        return event_ns

    def _times_ns(self, times: list[Any]) -> Int64:
        """Times in the unit of the settings; MessagePack's own timestamps say theirs."""
        is_iso = self._settings.time_unit == "iso8601"
        stamps = [at for at, time in enumerate(times) if type(time) is Ext] if self._is_msgpack else []
        stamps_ns = [timestamp_to_ns(times[at].code, bytes(times[at].data)) for at in stamps]
        for at in stamps:
            times[at] = "" if is_iso else 0.0  # overwritten below
        event_ns = iso_to_ns(times) if is_iso else number_to_ns(times, self._settings.time_unit)
        event_ns[stamps] = stamps_ns
        return event_ns

    def _cells(
        self, parsed: list[Parsed]
    ) -> tuple[list[tuple[str, ...]], NDArray[np.intp], list[Float64], NDArray[np.intp] | None]:
        """Shapes, which of them each record has, their values, and of narrow records which channel each is."""
        one_shape = np.zeros(len(parsed), np.intp)
        if self._settings.channel is not None:
            names: dict[str, int] = {}
            channel_of = np.array([names.setdefault(one.channel, len(names)) for one in parsed], np.intp)
            numbers = np.array([one.value for one in parsed], np.float64)  # None becomes NaN
            return [tuple(names)], one_shape, [numbers[:, None]], channel_of
        if not parsed:
            return [], one_shape, [], None
        if self._settings.values is None:
            declared = tuple(self._settings.channels or ())
            columns = [list(map(attrgetter(f"c{c}"), parsed)) for c in range(len(declared))]
            return [declared], one_shape, [np.array(columns, np.float64).T.copy()], None
        return (*_group([one.values for one in parsed]), None)

    def _refuse_nan(
        self,
        parsed: list[Parsed],
        index: Int64,
        shape_of: NDArray[np.intp],
        cells: list[Float64],
        faults: dict[int, Fault],
    ) -> None:
        """MessagePack, unlike JSON, carries NaN, which must not pass for a value that is missing."""
        for shape, values in enumerate(cells):
            for at in np.flatnonzero(shape_of == shape)[np.isnan(values).any(axis=1)].tolist():
                if nan_in(parsed[at], self._settings):
                    faults.setdefault(int(index[at]), (Reason.NOT_FINITE, "NaN"))


def _struct(settings: RecordSettings) -> type[msgspec.Struct]:
    """The struct that reads one record; a field that the settings leave out is not in it."""
    number = float | None
    time: Any = {"s": float, "iso8601": str}.get(settings.time_unit, int | float)
    fields: list[Any] = []
    if settings.stream is not None:
        fields.append(("stream", str, msgspec.field(name=settings.stream)))
    if settings.time is not None:
        fields.append(("time", time | Ext if settings.format == "msgpack" else time, msgspec.field(name=settings.time)))
    if settings.channel is not None:
        fields.append(("channel", str, msgspec.field(name=settings.channel)))
        fields.append(("value", number, msgspec.field(name=settings.value)))
    elif settings.values is not None:
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
