"""Which column of a file is the time, and what its cells mean: the same for `score` and for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from detector.errors import InputError
from detector.records import Int64
from detector.stages.decode import iso_to_ns, number_to_ns
from detector.tables import Table

TimeUnit: TypeAlias = Literal["s", "ms", "us", "ns", "iso8601"]

_TIME_NAMES = ("time", "timestamp", "ts", "date", "datetime")


def time_column(names: Sequence[str], given: str | None = None) -> str | None:
    """The column that was given, else the first that is called like a time, in any case; None where none is."""
    if given is not None:
        return given
    return next((name for wanted in _TIME_NAMES for name in names if name.lower() == wanted), None)


def event_times(table: Table, column: str, unit: TimeUnit | None, *, option: str) -> Int64:
    """Read a column of times.

    Args:
        table: Holds the column as text.
        column: Which one.
        unit: What a number counts; None reads ISO 8601.
        option: The setting that names the unit, for the message.

    Returns:
        (n,) Unix nanoseconds, -1 where a cell cannot be read as a time.

    Raises:
        InputError: No cell can, or they are numbers and the unit was not named.
    """
    cells = [cell.strip() for cell in table.texts[column]]
    first = next((cell for cell in cells if cell), "")
    where = f"{table.path}:2: column {column!r}"
    if unit in (None, "iso8601"):
        if _number(first) is not None:
            raise InputError(where, "holds numbers", expected=f"{option} s, ms, us or ns", got=first)
        event_ns = iso_to_ns([_completed(cell) for cell in cells])
    else:
        numbers = [_number(cell) for cell in cells]
        as_float = unit == "s"  # as the decoder of records does: see detector/stages/decode.py
        event_ns = number_to_ns([-1 if n is None else float(n) if as_float else n for n in numbers], unit)
    if len(event_ns) and (event_ns < 0).all():
        raise InputError(where, "not a time", expected=unit or "ISO 8601", got=repr(first))
    return event_ns


def _number(cell: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return None


def _completed(cell: str) -> str:
    """A date alone is its midnight; a time may go without seconds."""
    if len(cell) == 10:
        return f"{cell}T00:00:00"
    return f"{cell}:00" if len(cell) == 16 else cell
