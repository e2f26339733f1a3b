"""What is worth knowing of history before anything is learnt from it.

    findings = look(series)          # the worst first; none where nothing is wrong

A finding tells what is the case, in how many streams, where it is worst, and what to do. Of a stream that lies on disk,
or is very long, stretches are looked at that are evenly spread over its time.

    gaps        pauses of many periods
    sampling    no period that most samples keep to
    constant    a channel that never moves, or stands still for long
    missing     a channel that is mostly not there
    outliers    values far from all others
    drift       a level that moves away from where it was
    unlike      a later span of other level or spread than the earlier: validation will judge by something else
    leakage     the same samples in two streams, or after the cut again what stood before it
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detector.records import Float64
from training.data.series import Series

_CELLS = 2_000_000  # samples times channels of a stream that are looked at
_STRETCHES = 16  # that they are taken from, where there are more

_GAP = 10.0  # periods; shorter pauses are jitter, or a few missing samples
_GAP_SHARE = 0.01  # of the time that a stream spans
_OFF_PERIOD = 0.1  # of the period; how far a sample may be from it
_IRREGULAR = 0.2  # share of samples that are further
_STILL = 0.5  # share of changes that are none in a row
_MISSING = 0.5
_FAR = 20.0  # robust deviations; a Gaussian has none beyond 7, and heavy tails few
_FEW = 0.01  # share of samples; more far values are no outliers but another state
_DRIFT = 2.0  # robust deviations within a tenth of the time, that the level of the first and last tenth differ
_UNLIKE = 3.0  # the same between earlier and later span; also the factor between their spreads
_ENOUGH = 100  # samples, below which nothing is said of levels
_WINDOW = 64  # samples that are the same: no coincidence where they move
_MAD = 1.4826  # of a Gaussian: standard deviation over median absolute deviation


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing in one channel, over all streams that have it."""

    kind: str
    where: str
    """The channel; empty where it is of whole streams."""
    streams: int
    worst: str
    """The stream where it is worst."""
    told: str
    """What is the case there."""
    advice: str
    """What to do."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One kind of thing in one stream."""

    kind: str
    where: str
    size: float
    """How bad it is."""
    told: str


ADVICE = {
    "gaps": "no harm where the plant stood still; else look for what was lost on the way",
    "sampling": "sample at one rate, or set model.decay and leave data.period_s out",
    "constant": "leave it out of data.channels unless it moves in production",
    "missing": "leave it out of data.channels, or find out why it is lost",
    "outliers": "codes for missing, such as -999, must become empty cells; rare faults may stay",
    "drift": "is it a counter? train on its rate; else take more history, so that drift is usual",
    "unlike": "a higher fit.validation_share, or history without the change; calibration is taken from the later span",
    "leakage": "remove the copies: validation would reward what was learnt by heart",
}
"""What to do about each kind."""


def look(series: Sequence[Series], watch: Callable[[Sequence[Series]], Iterable[Series]] = iter) -> list[Finding]:
    """Look at all streams.

    Args:
        series: Each with its cut between training and validation span.
        watch: Shows progress over the streams.

    Returns:
        Findings, those of most streams first within their kind; kinds as in `ADVICE`, the gravest last.
    """
    found: dict[tuple[str, str], list[tuple[str, _Seen]]] = defaultdict(list)
    copies = _Copies()
    for one in watch(series):
        parts = _looked_at(one)
        for seen in (*_timing(one), *_channels(one, parts), *copies.of(one, parts)):
            found[seen.kind, seen.where].append((one.stream, seen))
    findings = [_finding(kind, where, streams) for (kind, where), streams in found.items()]
    order = list(ADVICE)
    return sorted(findings, key=lambda each: (-order.index(each.kind), -each.streams, each.where))


def _finding(kind: str, where: str, streams: Sequence[tuple[str, _Seen]]) -> Finding:
    worst, seen = max(streams, key=lambda each: each[1].size)
    return Finding(kind, where, len(streams), worst, seen.told, ADVICE[kind])


def _looked_at(one: Series) -> list[Series]:
    """The stream, or stretches of it that lie evenly before and after its cut."""
    most = _CELLS // len(one.channels)
    if len(one) <= most:
        return [one.between(0, len(one))]
    length = most // _STRETCHES
    starts = np.linspace(0, len(one) - length, _STRETCHES).astype(int).tolist()
    return [one.between(start, start + length) for start in starts]


# Time


def _timing(one: Series) -> Iterator[_Seen]:
    elapsed = one.elapsed_s[1:]
    if len(elapsed) < _WINDOW:
        return
    period = float(np.median(elapsed))
    gaps = elapsed[elapsed > _GAP * period]
    share = float(gaps.sum() / elapsed.sum())
    if share > _GAP_SHARE:
        told = f"{share:.0%} of the time missing in {len(gaps):,}, the longest {_time(gaps.max())}"
        yield _Seen("gaps", "", share, told)
    off = float(np.mean(np.abs(elapsed[elapsed <= _GAP * period] - period) > _OFF_PERIOD * period))
    if off > _IRREGULAR:
        low, high = np.quantile(elapsed, [0.1, 0.9])
        told = f"mostly {_time(low)} to {_time(high)} apart, the median {_time(period)}"
        yield _Seen("sampling", "", off, f"{told}; {off:.0%} of samples off it")


def _time(seconds: float) -> str:
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


# Values


def _channels(one: Series, parts: Sequence[Series]) -> Iterator[_Seen]:
    values = np.concatenate([part.values for part in parts])
    times = np.concatenate([part.time_ns for part in parts])
    is_later = np.concatenate([np.arange(len(part)) >= part.cut for part in parts])
    for column, channel in enumerate(one.channels):
        there = ~np.isnan(values[:, column])
        missing = 1 - float(there.mean())
        if missing > _MISSING:
            yield _Seen("missing", channel, missing, f"{missing:.0%} of its cells are empty")
        cells = values[there, column]
        if len(cells) < _ENOUGH:
            continue
        still = _longest_still(cells) / (len(cells) - 1)
        if still > _STILL:
            yield _Seen("constant", channel, still, _still_told(cells, still))
            continue
        yield from _far(channel, cells)
        yield from _moved(channel, cells, times[there], is_later[there])


def _longest_still(cells: Float64) -> int:
    """The most changes in a row that are none."""
    moves = np.flatnonzero(np.diff(cells))
    return int(np.diff(moves, prepend=-1, append=len(cells) - 1).max()) - 1 if len(moves) else len(cells) - 1


def _still_told(cells: Float64, still: float) -> str:
    return f"always {cells[0]:g}" if still == 1 else f"stands still for {still:.0%} of its samples in a row"


def _far(channel: str, cells: Float64) -> Iterator[_Seen]:
    """Far from all others, and jumped to: a level that is walked to is none."""
    middle, spread = _middle(cells)
    away = np.abs(cells - middle)
    is_far = away > _FAR * spread
    share = float(is_far.mean())
    if spread > 0 and 0 < share < _FEW:
        farthest = cells[int(np.argmax(away))]
        told = f"{int(is_far.sum()):,} values such as {farthest:g}; usual is {middle:.4g} within {3 * spread:.2g}"
        yield _Seen("outliers", channel, float(away.max() / spread), told)


def _moved(channel: str, cells: Float64, times: np.ndarray, is_later: np.ndarray) -> Iterator[_Seen]:
    tenth = len(cells) // 10
    tenths = [_middle(cells[at : at + tenth]) for at in range(0, 10 * tenth, tenth)]
    levels = np.array([middle for middle, _ in tenths])
    within = float(np.median([spread for _, spread in tenths]))
    away = abs(levels[-1] - levels[0])
    if within > 0 and away > _DRIFT * within and _keeps_direction(levels):
        days = (times[-1] - times[0]) / 86_400e9
        told = f"from {levels[0]:.4g} to {levels[-1]:.4g} in {days:.3g} days, {away / within:.1f} times its spread"
        yield _Seen("drift", channel, away / within, told)
        return
    earlier, later = cells[~is_later], cells[is_later]
    if min(len(earlier), len(later)) < _ENOUGH:
        return
    (before, spread), (after, other) = _middle(earlier), _middle(later)
    size = abs(after - before) / spread if spread > 0 else 0.0
    ratio = max(spread, other) / min(spread, other) if min(spread, other) > 0 else 1.0
    if max(size, ratio) > _UNLIKE:
        told = f"before the cut {before:.4g} within {spread:.2g}, after it {after:.4g} within {other:.2g}"
        yield _Seen("unlike", channel, max(size, ratio), told)


def _keeps_direction(levels: Float64) -> bool:
    """Whether nearly every step between tenths goes the same way."""
    steps = np.sign(np.diff(levels)) * np.sign(levels[-1] - levels[0])
    return bool(np.sum(steps > 0) >= len(steps) - 1)


def _middle(cells: Float64) -> tuple[float, float]:
    """Median, and the spread around it that outliers do not widen."""
    middle = float(np.median(cells))
    return middle, _MAD * float(np.median(np.abs(cells - middle)))


# Copies


class _Copies:
    """Windows of samples that stood somewhere before, in another stream or in the same one."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[str, bool]] = {}
        """Of each window that was seen: the stream, and whether it lies after the cut."""

    def of(self, one: Series, parts: Sequence[Series]) -> Iterator[_Seen]:
        """What of a stream was known already."""
        seen: dict[str, int] = defaultdict(int)
        windows = leaks = 0
        for part in parts:
            for start in _starts(part.values):
                windows += 1
                digest = hashlib.blake2b(part.values[start : start + _WINDOW].tobytes(), digest_size=16).digest()
                is_later = start >= part.cut
                stream, was_later = self._known.setdefault(digest, (one.stream, is_later))
                if stream != one.stream or was_later != is_later:
                    seen[stream] += 1
                    leaks += was_later != is_later
        for stream, count in seen.items():
            other = "the same stream" if stream == one.stream else stream
            across = f", {leaks:,} of them across the cut" if leaks else ""
            told = f"{count:,} of {windows:,} windows of {_WINDOW} samples stand in {other} too{across}"
            yield _Seen("leakage", "", count / windows, told)


def _starts(values: Float64) -> Iterator[int]:
    """Where windows begin: at rare samples, so that copies are cut into the same windows wherever they begin."""
    if len(values) < _WINDOW:
        return
    rows = np.ascontiguousarray(values).view(np.uint64).reshape(values.shape)
    mixed = (rows * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)  # Knuth's multiplicative hash
    is_rare = np.bitwise_xor.reduce(mixed, axis=1) % np.uint64(_WINDOW) == 0
    moves = np.concatenate([[0], np.cumsum(np.any(np.diff(values, axis=0) != 0, axis=1))])
    for start in np.flatnonzero(is_rare[: len(values) - _WINDOW + 1]).tolist():
        if moves[start + _WINDOW - 1] - moves[start] > _WINDOW // 2:  # where nothing moves, all looks alike
            yield start
