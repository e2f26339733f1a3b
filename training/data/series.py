"""One stream's history as arrays, and the cut between what is trained on and what comes later.

Given rows of (stream, time, values) in any order of streams, gives `Series`: what the daemon would have accepted of
each stream, in order. The daemon's rules apply here too (late, duplicate, nothing observed, not finite), so that
training sees the samples that production will see; what is left out is counted by reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detector.records import NO_TIME, Float64, Int64, Reason
from training.data.disk import Stored

Watch: TypeAlias = Callable[[Sequence[Any]], Iterable[Any]]
"""Shows progress over what is read: files, or answers."""

_NS = 1e-9  # seconds in a nanosecond
_PART = 65_536  # samples


@dataclass(frozen=True, slots=True)
class Series:
    """The accepted samples of one stream; T samples, C channels."""

    stream: str
    channels: tuple[str, ...]
    time_ns: Int64
    """(T,) event times, strictly rising; an array, or one that is read from disk as it is asked for (`Stored`)."""
    values: Float64
    """(T, C) raw units, NaN where missing; as the times."""
    cut: int
    """Samples before it are trained on, those from it on are the validation span."""

    def __len__(self) -> int:
        return len(self.time_ns)

    @property
    def is_stored(self) -> bool:
        """Whether it lies on disk."""
        return isinstance(self.values, Stored)

    def between(self, start: int, stop: int) -> Series:
        """Some of its samples, in memory; the cut stays where it is among them."""
        when = slice(start, stop)
        cut = min(max(self.cut - start, 0), stop - start)
        return replace(self, time_ns=self.time_ns[when], values=self.values[when], cut=cut)

    def parts(self) -> Iterator[Series]:
        """All its samples, a stretch in memory at a time."""
        for start in range(0, len(self), _PART):
            yield self.between(start, min(start + _PART, len(self)))

    @property
    def elapsed_s(self) -> Float64:
        """(T,) seconds since the sample before; 0 for the first."""
        return np.diff(self.time_ns, prepend=self.time_ns[:1]) * _NS


def accept(
    stream: str, channels: Sequence[str], time_ns: Int64, values: Float64, rejects: Counter[str]
) -> Series | None:
    """Keep of one stream's rows, in their order, what the daemon would accept.

    Args:
        stream: The stream's key.
        channels: Names of the C channels.
        time_ns: (n,) event times as they come.
        values: (n, C) raw units, NaN where missing.
        rejects: Counts what was left out, by reason.

    Returns:
        The series, all of it before the cut; None when nothing is left.
    """
    refused = refusals(time_ns, values)
    for reason, which in refused.items():
        rejects[reason.label] += int(np.sum(which))
    kept = ~np.any(list(refused.values()), axis=0)
    count = int(kept.sum())
    return Series(stream, tuple(channels), time_ns[kept], values[kept], count) if count else None


def refusals(time_ns: Int64, values: Float64, last_ns: int = NO_TIME) -> dict[Reason, NDArray[np.bool_]]:
    """Find the rows that the daemon would refuse, by reason.

    Args:
        time_ns: (n,) event times as they come.
        values: (n, C) raw units, NaN where missing.
        last_ns: Of the sample before them.
    """
    finite = ~np.isinf(values).any(axis=1)
    seen = ~np.isnan(values).all(axis=1)
    usable = finite & seen
    highest = np.maximum.accumulate(np.where(usable, time_ns, NO_TIME))
    before = np.maximum(np.concatenate([[NO_TIME], highest[:-1]]), last_ns)
    return {
        Reason.NOT_FINITE: ~finite,
        Reason.NOTHING_OBSERVED: finite & ~seen,
        Reason.LATE: usable & (time_ns < before),
        Reason.DUPLICATE: usable & (time_ns == before),
    }


def cut(series: Iterable[Series], share: float) -> list[Series]:
    """Set aside the last `share` of the time that these streams span together, at one moment for all of them."""
    series = list(series)
    if not series:
        return []
    first = min(int(one.time_ns[0]) for one in series)
    last = max(int(one.time_ns[-1]) for one in series)
    moment = last - int((last - first) * share)
    return [replace(one, cut=int(np.searchsorted(one.time_ns, moment))) for one in series]


def period_s(series: Iterable[Series]) -> float:
    """The nominal period: the median of the streams' median elapsed times."""
    medians = [float(np.median(one.elapsed_s[1:])) for one in series if len(one) > 1]
    return float(np.median(medians)) if medians else 0.0


def sha256(series: Iterable[Series]) -> str:
    """A hash of all that is trained on: streams, channels, times and values, in order."""
    digest = hashlib.sha256()
    for one in series:
        digest.update("\0".join([one.stream, *one.channels]).encode())
        for part in one.parts():
            digest.update(part.time_ns.astype("<i8").tobytes())
        for part in one.parts():
            digest.update(part.values.astype("<f8").tobytes())
    return digest.hexdigest()
