"""Why a record could not be read: a second, slower look at one that was refused.

What it is, is told in the order in which one would mend it: not there, not text, not the format, not a record, a time
or a number that is none, a field that is absent, a field of another type.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec

from detector.records import Reason
from detector.settings import RecordSettings

Fault: TypeAlias = tuple[Reason, str]

MAX_DETAIL = 200  # characters of a reason's detail


def fault_of(value: bytes | None, error: Exception, settings: RecordSettings) -> Fault:
    """What is wrong with a record that msgspec refused; a laxer reading of it helps to tell."""
    if not value:
        return Reason.EMPTY, ""
    detail = str(error)[:MAX_DETAIL]
    try:
        document = _LOOSELY[settings.format](value)
    except UnicodeDecodeError as utf8_error:
        return Reason.NOT_UTF8, str(utf8_error)[:MAX_DETAIL]
    except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors too
        return Reason.MALFORMED, detail
    if not isinstance(document, dict):
        return Reason.BAD_TYPE, detail
    time = document.get(settings.time)
    if isinstance(time, float) and not math.isfinite(time):
        return Reason.BAD_TIME, detail
    if _is_infinite(document.values()):
        return Reason.NOT_FINITE, detail
    missing = [name for name in _needed(settings) if name not in document]
    if missing:
        return Reason.MISSING_FIELD, ", ".join(missing)
    return (Reason.BAD_TYPE if isinstance(error, msgspec.ValidationError) else Reason.MALFORMED), detail


def nan_in(record: Any, settings: RecordSettings) -> bool:
    """Whether one of the numbers of a record that could be read is NaN."""
    if settings.channel is not None:
        numbers: Iterable[float | None] = [record.value]
    elif settings.values is not None:
        numbers = record.values.values()
    else:
        numbers = [getattr(record, f"c{c}") for c in range(len(settings.channels or ()))]
    return any(number is not None and math.isnan(number) for number in numbers)


def _json_loosely(value: bytes) -> object:
    """JSON with NaN and infinities; integers as floats: a number of a million digits is infinite rather than slow."""
    return json.loads(value.decode(), parse_int=float)


_LOOSELY: dict[str, Callable[[bytes], object]] = {"json": _json_loosely, "msgpack": msgspec.msgpack.decode}


def _needed(settings: RecordSettings) -> list[str]:
    """The fields without which there is no record."""
    values = [settings.values] if settings.channel is None else [settings.channel, settings.value]
    return [name for name in (settings.stream, settings.time, *values) if name]


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
