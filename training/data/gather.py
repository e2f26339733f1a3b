"""Rows of many streams on their way to be series.

    gathered = Gathered(rejects)
    gathered.add("pump-1", ("flow",), time_ns, values)     # piece by piece, each stream's in the order in which it came
    series = gathered.series()

What the daemon would refuse is left out and counted as it comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from detector.errors import InputError
from detector.records import NO_TIME, Float64, Int64, Reason
from training.data.series import Series, refusals


@dataclass(slots=True)
class _Stream:
    """What came of one stream so far."""

    channels: tuple[str, ...]
    last_ns: int = NO_TIME
    time_ns: list[Int64] = field(default_factory=list)
    values: list[Float64] = field(default_factory=list)


class Gathered:
    """Streams by their keys.

    Args:
        rejects: Counts what is left out, by reason.
    """

    def __init__(self, rejects: Counter[str]) -> None:
        self._rejects = rejects
        self._streams: dict[str, _Stream] = {}

    def add(self, stream: str, channels: Sequence[str], time_ns: Int64, values: Float64) -> None:
        """Take more rows of a stream.

        Args:
            stream: Its key.
            channels: Names of the C channels, the same for all its rows.
            time_ns: (n,) event times as they come, below 0 where one could not be read.
            values: (n, C) raw units, NaN where missing.

        Raises:
            InputError: its channels were others before.
        """
        known = self._streams.setdefault(stream, _Stream(tuple(channels)))
        if known.channels != tuple(channels):
            raise InputError(
                f"stream {stream}", "its files differ in channels", expected=known.channels, got=tuple(channels)
            )
        readable = time_ns >= 0
        self._rejects[Reason.BAD_TIME.label] += int(np.sum(~readable))
        time_ns, values = time_ns[readable], values[readable]
        refused = refusals(time_ns, values, known.last_ns)
        for reason, which in refused.items():
            self._rejects[reason.label] += int(np.sum(which))
        kept = ~np.any(list(refused.values()), axis=0)
        if kept.any():
            known.last_ns = int(time_ns[kept][-1])
            known.time_ns.append(time_ns[kept])
            known.values.append(values[kept])

    def series(self) -> list[Series]:
        """All streams of which something was kept, each before the cut; hands them over, and knows of none then."""
        streams, self._streams = self._streams, {}
        return [_series(name, of) for name, of in streams.items() if of.time_ns]


def _series(name: str, of: _Stream) -> Series:
    time_ns, values = np.concatenate(of.time_ns), np.concatenate(of.values)
    of.time_ns.clear()
    of.values.clear()
    return Series(name, of.channels, time_ns, values, len(time_ns))
