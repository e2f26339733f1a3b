"""Freezing: which samples teach their stream nothing, by the operator's word and the record alone.

A rule is in force for a sample when it names the sample's stream and shard, and the sample's position, or event time,
is at or past `from` and before `until`. Nothing else counts: not polls, waves, other streams or any clock, nor what is
in memory. So a replay, another owner of the shard, `score` and `verify` freeze exactly the same samples.

Names are matched once for each row, not for each sample: `Arena.rules` keeps the number of the *set* of rules that its
stream falls under, and number 0 is the empty set. A wave then costs a look-up and four comparisons.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import translate
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from detector.records import Float32, Int64, Shard
from detector.settings import FreezeSettings, is_glob
from detector.state.arena import NOT_ASKED, Arena

_FIRST, _END = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Bounds: TypeAlias = tuple[int, int, int, int]
"""First position, first position no more, first event time, first event time no more."""

_NEVER: _Bounds = (_END, _FIRST, _END, _FIRST)


class Freezing:
    """The rules of one detector in one shard; see the module."""

    def __init__(self, rules: Sequence[FreezeSettings], shard: Shard) -> None:
        here = [rule for rule in rules if is_of(rule, shard)]
        self._bounds = [_bounds(rule) for rule in here]
        self._exact: dict[str, list[int]] = {}
        self._globs = [(re.compile(translate(rule.stream)), at) for at, rule in enumerate(here) if is_glob(rule.stream)]
        for at, rule in enumerate(here):
            if not is_glob(rule.stream):
                self._exact.setdefault(rule.stream, []).append(at)
        self._sets: dict[tuple[int, ...], int] = {(): 0}
        self._table = self._tabled()

    def learning(self, arena: Arena, slots: Int64, positions: Int64, event_ns: Int64) -> Float32 | None:
        """What the graph is told of a wave's samples, (B, 1): 0 where frozen, else 1; None where no rule names any."""
        if not self._bounds:
            return None
        sets = arena.rules[slots]
        if sets.min() == NOT_ASKED:
            sets = self._asked(arena, slots)
        if not sets.any():
            return None
        first, end, first_ns, end_ns = self._table[:, sets]  # each (B, rules of a set)
        at, at_ns = positions[:, None], event_ns[:, None]
        is_frozen = ((first <= at) & (at < end) & (first_ns <= at_ns) & (at_ns < end_ns)).any(axis=1)
        arena.frozen[slots] = is_frozen
        learning: Float32 = (~is_frozen[:, None]).astype(np.float32)
        return learning

    def _asked(self, arena: Arena, slots: Int64) -> NDArray[np.int32]:
        """The slots' numbers, once those have one that had none."""
        known = len(self._sets)
        for slot in slots[arena.rules[slots] == NOT_ASKED].tolist():
            found = tuple(self._naming(arena.streams[slot]))
            arena.rules[slot] = self._sets.setdefault(found, len(self._sets))
        if len(self._sets) > known:
            self._table = self._tabled()
        return arena.rules[slots]

    def _naming(self, stream: str) -> list[int]:
        """The rules that name a stream."""
        return [*self._exact.get(stream, ()), *(at for pattern, at in self._globs if pattern.match(stream))]

    def _tabled(self) -> Int64:
        """The bounds of each set's rules, (4, sets, most rules of a set); what a set lacks is never in force."""
        most = max(map(len, self._sets)) or 1
        rows = [[self._bounds[at] for at in each] + [_NEVER] * (most - len(each)) for each in self._sets]
        return np.array(rows, np.int64).transpose(2, 0, 1)


def is_of(rule: FreezeSettings, shard: Shard) -> bool:
    """Whether a rule speaks of a shard."""
    return rule.topic in (None, shard.topic) and rule.partition in (None, shard.partition)


def names(rule: FreezeSettings, stream: str) -> bool:
    """Whether a rule speaks of a stream."""
    return bool(re.match(translate(rule.stream), stream)) if is_glob(rule.stream) else rule.stream == stream


def in_force(rule: FreezeSettings, position: int, event_ns: int) -> bool:
    """Whether a sample there falls under a rule that names its stream."""
    first, end, first_ns, end_ns = _bounds(rule)
    return first <= position < end and first_ns <= event_ns < end_ns


def _bounds(rule: FreezeSettings) -> _Bounds:
    first, first_ns = _edge(rule.begin, _FIRST)
    end, end_ns = (_END, _END) if rule.until is None else _edge(rule.until, _END)
    return first, end, first_ns, end_ns


def _edge(edge: int | datetime, otherwise: int) -> tuple[int, int]:
    """As a position and as an event time; `otherwise` for the one that it is not."""
    if isinstance(edge, int):
        return edge, otherwise
    since = edge - _EPOCH
    return otherwise, ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
