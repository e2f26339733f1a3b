"""Wide feeds as narrow ones: one record per channel, as gateways and time-series databases send them.

    feed.partitions = [exploded(records, rng) for records in feed.partitions]
    source |= {"record": RECORD}
    detector |= {"channels": [...]}         # those of the wide feed

What must come out of a narrow feed is what the engine says of it in one piece, as for a wide one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

RECORD = {"channel": "channel", "value": "value"}
"""What a source's `record` must say."""

_SPREAD = 5.0  # records of a wide feed over which those of one sample are strewn
_FAR = 90.0  # the same for one that is held up: its stream has gone on by then
_IS_FAR = 0.01
_IS_MISSING = 0.02
_IS_TWICE = 0.02
_IS_UNKNOWN = 0.005
_IS_BROKEN = 0.01


def exploded(records: Sequence[bytes], rng: random.Random) -> list[bytes]:
    """One partition's wide records as narrow ones, strewn, some of them late, missing, twice, unknown or broken.

    Args:
        records: Wide JSON in order; what is no whole record stays as it is, at its place.
        rng: Where chance comes from; equal seeds give equal feeds.
    """
    strewn: list[tuple[float, bytes]] = []
    for at, record in enumerate(records):
        try:
            wide = json.loads(record)
            cells = list(wide["values"].items())
        except (ValueError, KeyError):
            strewn.append((at, record))
            continue
        for channel, value in cells:
            if rng.random() < _IS_MISSING:
                continue
            one = _narrow(wide, channel, value)
            strewn.append((at + rng.random() * (_FAR if rng.random() < _IS_FAR else _SPREAD), one))
            if rng.random() < _IS_TWICE:
                strewn.append((at + rng.random() * _SPREAD, one))
            if rng.random() < _IS_UNKNOWN:
                strewn.append((at + rng.random() * _SPREAD, _narrow(wide, "humidity", 50.0)))
            if rng.random() < _IS_BROKEN:
                strewn.append((at + rng.random() * _SPREAD, _broken(one, wide, rng)))
    strewn.sort(key=lambda pair: pair[0])  # stable
    return [one for _, one in strewn]


def _narrow(wide: dict[str, object], channel: object, value: object) -> bytes:
    rest = {name: content for name, content in wide.items() if name != "values"}
    return json.dumps(rest | {"channel": channel, "value": value}).encode()


def _broken(one: bytes, wide: dict[str, object], rng: random.Random) -> bytes:
    """A narrow record spoiled in one of the ways in which a narrow record can be."""
    return rng.choice(
        [
            one[:-9],
            b"\xff\xfe",
            _narrow(wide, None, 1.0),
            _narrow(wide, 7, 1.0),
            _narrow(wide, "flow", "high"),
            json.dumps({"stream": wide["stream"], "time": wide["time"], "value": 1.0}).encode(),
        ]
    )
