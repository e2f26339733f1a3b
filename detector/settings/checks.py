"""Types of settings that are checked as soon as they are read: expressions, times, files, partitions, policies."""

from __future__ import annotations

import re
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator

_MOST_PARTITIONS = 10_000  # of one range; more is a slip of the finger
_MOST_OFFSET = 2**63 - 1
_TIMES = datetime(1970, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)  # what event times may be
_OF_TLS, _PASSWORDS, _TOKEN = (
    ("ca_file", "certificate_file", "key_file"),
    {"password", "password_file"},
    "token_command",
)
SECRETS = (*_OF_TLS, "username", "password", "password_file", _TOKEN)
"""Settings of a Kafka client that prove who somebody is."""

_UNIT_S = {"min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


@dataclass(frozen=True, slots=True)
class Keep:
    """How often a checkpoint is kept as history, and for how long."""

    every_s: float
    for_s: float


def parse_history(text: str) -> Keep:
    """What "1/h for 7d" means.

    Raises:
        ValueError: The text is something else.
    """
    match = re.fullmatch(r"\s*(\d{1,4})\s*/\s*(min|h|d)\s+for\s+(\d{1,4})\s*(h|d|w)\s*", text, re.ASCII)
    if match is None or int(match[1]) == 0 or int(match[3]) == 0:
        raise ValueError(f'expected a history such as "1/h for 7d", got {text!r}')
    return Keep(_UNIT_S[match[2]] / int(match[1]), _UNIT_S[match[4]] * int(match[3]))


def parse_ordinal(text: str) -> int | None:
    """How many replicas share the partitions where the text is "ordinal/3"; None where it is a list of partitions.

    Raises:
        ValueError: It says ordinal and no number of replicas.
    """
    if not text.strip().startswith("ordinal"):
        return None
    match = re.fullmatch(r"\s*ordinal\s*/\s*([1-9]\d{0,4})\s*", text, re.ASCII)
    if match is None:
        raise ValueError(f'expected "ordinal/" and the number of replicas, such as "ordinal/3", got {text!r}')
    return int(match[1])


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


def check_secrets(given: Set[str], protocol: str, mechanism: str) -> None:
    """See that those of `SECRETS` are given that the way to the broker needs, and no other.

    Raises:
        ValueError: One is missing, or would be of no use: somebody believes in a protection that is not there.
    """
    has_sasl, by_token = protocol.startswith("SASL"), mechanism == "OAUTHBEARER"
    useful = set(_OF_TLS) if protocol.endswith("SSL") else set()
    if has_sasl:
        useful |= {_TOKEN} if by_token else {"username", *_PASSWORDS}
    if useless := sorted(given - useful):
        way = f"{protocol} with {mechanism}" if has_sasl else protocol
        raise ValueError(f"expected no {' and no '.join(useless)} with security_protocol {way}")
    if "key_file" in given and "certificate_file" not in given:
        raise ValueError("expected certificate_file beside key_file")
    if has_sasl and by_token and _TOKEN not in given:
        raise ValueError("expected token_command with sasl_mechanism OAUTHBEARER")
    if has_sasl and not by_token:
        passwords = sorted(given & _PASSWORDS)
        if "username" not in given or len(passwords) != 1:
            got = " and ".join(sorted(given & useful - set(_OF_TLS))) or "none"
            raise ValueError(f"expected username, and password or password_file, with {mechanism}, got {got}")


def is_glob(text: str) -> bool:
    """Whether it may mean several names; fnmatch's signs."""
    return any(sign in text for sign in "*?[")


def _edge(given: object) -> object:
    """An offset, or a time; one without a zone is UTC, for so are all times that we print."""
    if isinstance(given, str) and given.strip().isdecimal():
        given = int(given)
    if isinstance(given, str):
        with suppress(ValueError):
            given = datetime.fromisoformat(given.strip())
    if isinstance(given, date) and not isinstance(given, datetime):
        given = datetime(given.year, given.month, given.day)  # noqa: DTZ001  # YAML reads 2026-11-21 so; UTC below
    if isinstance(given, datetime) and given.tzinfo is None:
        given = given.replace(tzinfo=UTC)
    is_offset = isinstance(given, int) and not isinstance(given, bool) and 0 <= given < _MOST_OFFSET
    if is_offset or (isinstance(given, datetime) and _TIMES[0] <= given < _TIMES[1]):
        return given.astimezone(UTC) if isinstance(given, datetime) else given
    raise ValueError(f"expected an offset such as 123456, or a time such as 2026-11-21T08:00Z, got {str(given)!r}")


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


def _history(text: str) -> str:
    parse_history(text)
    return text


def _readable(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"expected a file to read, got {str(path)!r} ({error.strerror})") from error
    return path


Edge: TypeAlias = Annotated[int | datetime, BeforeValidator(_edge)]
"""An offset, or an event time in UTC."""

Regex: TypeAlias = Annotated[str, AfterValidator(_regex)]
"""A regular expression."""

TimeZone: TypeAlias = Annotated[str, AfterValidator(_time_zone)]
"""An IANA time zone."""

ReadableFile: TypeAlias = Annotated[Path, AfterValidator(_readable)]
"""A file that is there and may be read."""

History: TypeAlias = Annotated[str, AfterValidator(_history)]
"""A policy such as "1/h for 7d"."""
