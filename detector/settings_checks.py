"""Types of settings that are checked as soon as they are read: regular expressions, time zones, files, partitions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

_MOST_PARTITIONS = 10_000  # of one range; more is a slip of the finger


def parse_partitions(text: str) -> list[int]:
    """Partitions meant by "0-3" or "0,2,5-7", rising.

    Raises:
        ValueError: The text is something else.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last - first >= _MOST_PARTITIONS:
            raise ValueError(f'expected partitions such as "0-3" or "0,2,5-7", got {text!r}')
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"expected a regular expression, got {text!r} ({error})") from error
    return text


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # what zoneinfo raises for unknown, absurd and unreadable names
        raise ValueError(f"expected a time zone such as Europe/Berlin, got {name!r}") from error
    return name


def _readable(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"expected a file to read, got {str(path)!r} ({error.strerror})") from error
    return path


Regex: TypeAlias = Annotated[str, AfterValidator(_regex)]
"""A regular expression."""

TimeZone: TypeAlias = Annotated[str, AfterValidator(_time_zone)]
"""An IANA time zone."""

ReadableFile: TypeAlias = Annotated[Path, AfterValidator(_readable)]
"""A file that is there and may be read."""
