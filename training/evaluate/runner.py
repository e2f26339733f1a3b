"""Cases through the daemon's own stages, side by side: `infer` and `decide` on waves of one row of each.

    for place, verdict in judge(Session(bundle), policy, cases):
        ...                                      # as each case ends, not in the order given

A model call costs nearly as much for one row as for sixteen, so as many cases as there are slots walk together, the
longest first, and the next one takes the slot of one that ends. What is found for a case has the same bits as alone:
that is the contract's batch invariance, and a test compares it with the daemon's engine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.model.further import ROLE, ROLES
from detector.model.session import Session
from detector.records import Float32, Int64
from detector.stages.decide import DecideWave, Decision, Policy, decide, initial_decide
from detector.stages.infer import Step, WallClock, WaveInput, infer
from training.evaluate.suites import Case
from training.evaluate.verdict import Verdict

SLOTS = 192  # rows of a wave: a full bundle is quickest per row at 128 to 256
_TELL_EVERY = 4096  # rows between two words on progress
_UTC = WallClock("UTC")


def judge(
    session: Session,
    policy: Policy,
    cases: Sequence[Case],
    *,
    slots: int = SLOTS,
    declare_roles: bool = False,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[int, Verdict]]:
    """Score and judge cases that have the same number of channels.

    Args:
        session: The bundle, ready to run.
        policy: How to decide.
        cases: At least one; all with C channels.
        slots: Most cases in a wave; changes no bit of any verdict.
        declare_roles: Whether the bundle is told the target channel of cases that have one, all others being context.
        on_rows: Told how many more rows are done.

    Yields:
        The place of each case among `cases` and its verdict, once it is done.
    """
    walk = _Walk(session, policy, cases, min(slots, len(cases)), declare_roles=declare_roles)
    untold = 0
    while walk.active.size:
        untold += len(walk.active)
        ended = walk.advance()
        if untold >= _TELL_EVERY or not walk.active.size:
            on_rows(untold)
            untold = 0
        for place in ended:
            yield place, walk.verdict(place)
    for place, accepted in enumerate(walk.accepted):
        if not accepted.size:
            yield place, walk.verdict(place)


class _Walk:
    """All accepted rows of all cases one after the other, and a slot's place in them."""

    def __init__(
        self, session: Session, policy: Policy, cases: Sequence[Case], slots: int, *, declare_roles: bool
    ) -> None:
        self._session, self._policy, self._cases = session, policy, cases
        self.accepted = [np.flatnonzero(case.accepted) for case in cases]
        lengths = [len(rows) for rows in self.accepted]
        self._first = np.cumsum([0, *lengths])
        self._values = np.concatenate([case.values[rows] for case, rows in zip(cases, self.accepted, strict=True)])
        self._event_ns = np.concatenate([case.time_ns[rows] for case, rows in zip(cases, self.accepted, strict=True)])
        self._elapsed_s = np.diff(self._event_ns, prepend=self._event_ns[:1]) / 1e9
        self._elapsed_s[self._first[:-1][np.array(lengths) > 0]] = 0.0  # a stream's first sample
        self._roles = _declared_roles(cases) if declare_roles else None
        self._found = _Found.blank(*self._values.shape)
        self._waiting = deque(sorted(filter(lengths.__getitem__, range(len(cases))), key=lambda place: -lengths[place]))
        self._initial = session.bundle.initial_row(self._values.shape[1])
        self._state = np.tile(self._initial, (slots, 1))
        self._decide = initial_decide(policy, slots)
        self._band = np.zeros((slots, 2, self._values.shape[1]))
        self._place = np.full(slots, -1)  # the case in each slot
        self._at = np.zeros(slots, np.int64)  # its next row
        self.active = np.arange(slots)
        self._seconds_per_row = 0.0  # what one row of each wave so far took, added up
        self._seconds = np.zeros(len(cases))
        for slot in range(slots):
            self._seat(slot)

    def advance(self) -> list[int]:
        """Take one row of each active case; returns the places of those that are done."""
        began = time.process_time()
        slots, rows = self.active, self._at[self.active]
        values, elapsed_s, event_ns = self._values[rows], self._elapsed_s[rows], self._event_ns[rows]
        further = {} if self._roles is None else {ROLE: self._roles[self._place[slots]]}
        step = infer(self._session, self._state, WaveInput(slots, values, elapsed_s, event_ns, further), _UTC)
        wave = DecideWave(
            slots, event_ns, elapsed_s, rows, step.score, step.blame, values, step.expected, step.lower, step.upper
        )
        decision = decide(self._decide, self._band, wave, self._policy)
        self._found.put(rows, step, decision)
        self._found.is_opening[self._at[decision.opened]] = True
        self._at[slots] += 1
        self._seconds_per_row += (time.process_time() - began) / len(slots)
        done = slots[self._at[slots] == self._first[self._place[slots] + 1]]
        places: list[int] = self._place[done].tolist()
        for slot in done.tolist():
            self._seconds[self._place[slot]] += self._seconds_per_row
            self._seat(slot)
        return places

    def _seat(self, slot: int) -> None:
        """Give a slot to the next case, as a stream that was never seen, or close it."""
        if not self._waiting:
            self._place[slot] = -1
            self.active = self.active[self.active != slot]
            return
        place = self._waiting.popleft()
        self._place[slot], self._at[slot] = place, self._first[place]
        self._seconds[place] = -self._seconds_per_row
        self._state[slot] = self._initial
        self._decide[slot] = initial_decide(self._policy, 1)[0]
        self._band[slot] = 0.0

    def verdict(self, place: int) -> Verdict:
        """What was found of one case, in all of its rows."""
        case, accepted = self._cases[place], self.accepted[place]
        own = slice(self._first[place], self._first[place + 1])
        found = self._found
        channel = found.most_blamed(own) if case.target is None else case.target

        def spread(part: NDArray[Any], fill: float) -> NDArray[Any]:
            whole = np.full(len(case), fill, part.dtype)
            whole[accepted] = part
            return whole

        return Verdict(
            score=spread(found.score[own], 0),
            anomaly=spread(found.anomaly[own], 0),
            opened=accepted[found.is_opening[own]].astype(np.int64),
            threshold=spread(found.threshold[own], 0),
            channel=channel,
            expected=spread(found.expected[own, channel], np.nan),
            lower=spread(found.lower[own, channel], np.nan),
            upper=spread(found.upper[own, channel], np.nan),
            seconds=float(self._seconds[place]),
        )


def _declared_roles(cases: Sequence[Case]) -> Float32:
    """What the graph is told of each channel (cases, C); nothing, which is 0, where a case declares no target."""
    roles = np.zeros((len(cases), len(cases[0].channels)), np.float32)
    for place, case in enumerate(cases):
        if case.target is not None:
            roles[place] = ROLES["context"]
            roles[place, case.target] = ROLES["target"]
    return roles


@dataclass(slots=True)
class _Found:
    """Per row of all cases, N rows in all."""

    score: Float32
    threshold: Float32
    anomaly: NDArray[np.uint8]
    is_opening: NDArray[np.bool_]
    blamed: Float32
    """(N, C) nines, the score shared out."""
    expected: Float32
    lower: Float32
    upper: Float32

    @classmethod
    def blank(cls, rows: int, channels: int) -> _Found:
        score = np.zeros(rows, np.float32)
        wide = [np.zeros((rows, channels), np.float32) for _ in range(4)]
        return cls(score, score.copy(), np.zeros(rows, np.uint8), np.zeros(rows, np.bool_), *wide)

    def put(self, rows: Int64, step: Step, decision: Decision) -> None:
        self.score[rows], self.threshold[rows], self.anomaly[rows] = step.score, decision.threshold, decision.anomaly
        self.blamed[rows] = step.blame * step.score[:, None]
        with np.errstate(over="ignore"):  # a raw value may exceed float32; the plot shows it as infinite
            self.expected[rows], self.lower[rows], self.upper[rows] = step.expected, step.lower, step.upper

    def most_blamed(self, rows: slice) -> int:
        """The channel with the largest share of all scores."""
        return int(self.blamed[rows].sum(axis=0, dtype=np.float64).argmax())
