"""Labelled streams through a candidate's bundle: what it noticed, how late, and how often it cried wolf.

The stages are the daemon's own (`training.evaluate.runner`), the measures those of `tidewarden evaluate`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.model.session import Session
from detector.settings import DecideSettings
from detector.stages.decide import Policy
from training.compare.finding import Drawn, Numbers, Watched
from training.evaluate.baselines import filled
from training.evaluate.measures import delay, vus
from training.evaluate.runner import judge
from training.evaluate.suites.case import Case
from training.evaluate.verdict import Verdict

NINES = (2.0, 3.0)
"""Scores whose promise is held against what happened."""
GRACE = 200
"""Samples after an event in which an alarm is neither right nor wrong, as in `tidewarden evaluate`."""
_DRAWN_BEFORE, _DRAWN_AFTER = 200, 200  # samples around the first event
_DIGITS = 5  # of what is drawn


def watch_cases(session: Session, cases: Sequence[Case]) -> list[tuple[Verdict, Watched]]:
    """Score all cases, in their order."""
    policy = Policy.of(DecideSettings(), session.bundle)
    by_channels: dict[int, list[int]] = defaultdict(list)
    for at, case in enumerate(cases):
        by_channels[len(case.channels)].append(at)
    found: dict[int, Verdict] = {}
    for group in by_channels.values():
        alike = [cases[at] for at in group]
        found |= {group[place]: verdict for place, verdict in judge(session, policy, alike)}
    return [(found[at], _watched(case, found[at], session.bundle.warm_up)) for at, case in enumerate(cases)]


def _watched(case: Case, verdict: Verdict, warm_up: int) -> Watched:
    start = max(case.begin, warm_up)
    late = delay.detection_delay(verdict.opened, case.events, case.period_s)
    alarms = delay.alarms_per_day(verdict.opened, case.events, len(case), case.period_s, start=start, grace=GRACE)
    clean = _clean(case, start)
    return Watched(
        name=case.name,
        vus_pr=_vus_pr(case, verdict),
        events=late.events,
        delays=list(late.samples),
        false_alarms=alarms.alarms,
        clean=alarms.rows,
        clean_days=None if math.isnan(alarms.days) else alarms.days,
        reached={f"{nines:g}": int((verdict.score[clean] >= nines).sum()) for nines in NINES},
    )


def _vus_pr(case: Case, verdict: Verdict) -> float | None:
    """None where nothing is wrong in the measured rows, or all of it."""
    labels, score = case.labels[case.begin :], verdict.score[case.begin :]
    if labels.min() == labels.max():
        return None
    return vus.vus_pr(labels, score, vus.period(filled(case)[:, 0]))


def _clean(case: Case, start: int) -> NDArray[np.bool_]:
    """(T,) rows in which nothing is known to be wrong."""
    clean = np.arange(len(case)) >= start
    for first, end in case.events:
        clean[first : end + GRACE] = False
    return clean


def draw(cases: Sequence[Case], verdicts: Sequence[Verdict]) -> Drawn:
    """The stretch that every candidate's forecasts are drawn on: around the first event, or where measuring begins."""
    at = next((at for at, case in enumerate(cases) if case.events), 0)
    case, verdict = cases[at], verdicts[at]
    middle = case.events[0][0] if case.events else case.begin + _DRAWN_BEFORE
    start = max(0, min(middle - _DRAWN_BEFORE, len(case) - _DRAWN_BEFORE - _DRAWN_AFTER))
    when = slice(start, start + _DRAWN_BEFORE + _DRAWN_AFTER)
    wrong = [(max(first, start) - start, min(end, when.stop) - start) for first, end in case.events]
    channel = verdict.channel
    return Drawn(
        stream=case.name,
        channel=case.channels[channel],
        time_ms=(case.time_ns[when] // 1_000_000).tolist(),
        observed=_short(case.values[when, channel]),
        expected=_short(verdict.expected[when]),
        lower=_short(verdict.lower[when]),
        upper=_short(verdict.upper[when]),
        score=_short(verdict.score[when]),
        threshold=_short(verdict.threshold[when]),
        wrong=[(first, end) for first, end in wrong if first < end],
    )


def _short(curve: ArrayLike) -> Numbers:
    """A curve in few digits, with gaps where it is not finite."""
    values = np.asarray(curve, np.float64).tolist()
    return [float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in values]
