"""Times of records as integer nanoseconds since 1970, -1 where one cannot be read.

Integers are exact. Of a float the whole part is exact and the fraction is rounded to the nearest nanosecond of the
number that the float really is: in seconds a float near 2026 has steps of 238 ns, so write seconds with more than six
decimals, or anything that must be exact, as an integer of a smaller unit, or as MessagePack's own timestamp.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from detector.records import Float64, Int64

LAST_NS = np.iinfo(np.int64).max  # in the year 2262
_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_TIMESTAMP = -1  # the extension's type; 4 bytes of seconds, 30 + 34 bits, or 4 + 8 bytes: nanoseconds and seconds
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:[Zz]|([+-])(\d\d):?([0-5]\d))?", flags=re.ASCII
)


def number_to_ns(times: Sequence[int | float], unit: str) -> Int64:
    """Nanoseconds since 1970 of times in `unit` (s, ms, us, ns), -1 where one lies outside 1970 to 2262."""
    scale = _UNIT_NS[unit]
    kinds = set(map(type, times))
    if kinds == {float}:
        return _floats_to_ns(np.array(times, np.float64), scale)
    if kinds == {int} and min(times) >= 0 and max(times) <= LAST_NS // scale:
        return np.array(times, np.int64) * scale
    return np.array([_number_to_ns(time, scale) for time in times], np.int64)


def _floats_to_ns(times: Float64, scale: int) -> Int64:
    in_range = (times >= 0) & (times < LAST_NS // scale)
    times = np.where(in_range, times, 0.0)
    whole = np.floor(times)
    rounded = np.rint((times - whole) * scale)  # to even at a tie, as Python's round
    return np.where(in_range, whole.astype(np.int64) * scale + rounded.astype(np.int64), -1)


def _number_to_ns(time: float, scale: int) -> int:
    if not 0 <= time <= LAST_NS // scale:
        return -1
    return time * scale if isinstance(time, int) else int(_floats_to_ns(np.array([time]), scale)[0])


def timestamp_to_ns(code: int, data: bytes) -> int:
    """Nanoseconds since 1970 of a MessagePack extension, -1 where it is no timestamp of its specification."""
    if code != _TIMESTAMP or len(data) not in (4, 8, 12):
        return -1
    if len(data) == 12:
        fraction_ns, seconds = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:], "big", signed=True)
    else:
        whole = int.from_bytes(data, "big")
        fraction_ns, seconds = (whole >> 34, whole & (1 << 34) - 1) if len(data) == 8 else (0, whole)
    ns = seconds * 10**9 + fraction_ns
    return ns if fraction_ns < 10**9 and 0 <= ns <= LAST_NS else -1


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
    if seconds.min() < 0 or seconds.max() >= LAST_NS // 10**9:
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
    return ns if 0 <= ns <= LAST_NS else -1
