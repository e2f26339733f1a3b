"""The measures of one case under one method, and of all methods that run here.

Ranking measures take the scores as they are. Measures of alarms take what `decide` opened with the promised budget; a
method without a rule of its own raises an alarm where its score reaches the highest of its training rows. Where rows
are counted (SKAB), every method is measured by that rule besides, ours too: a budget per day asks of files of twenty
minutes what no score can tell, and what the rule leaves is what the scores are worth. The detectors published there
take a high quantile of the training part's residuals times a factor, each its own; here it is one rule for all. No
threshold is ever chosen on labels, but for NAB's own optimiser (`tables.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.records import Bytes
from training.evaluate.baselines import FLOORS, filled, reference
from training.evaluate.measures import events, skab, ucr, vus
from training.evaluate.results import OURS
from training.evaluate.suites import Case, Pooled

VUS_PR, HIT_RATE, F1, NAB, US_PER_ROW = "VUS-PR", "hit rate", "F1", "NAB", "us/row"
HIT_RATE_OF_ROWS = "by single rows"
BY_TRAINING = "trained "
"""What stands before a measure of alarms where the highest score of the training rows is the threshold."""


class Told(NamedTuple):
    """What a method says of a case."""

    score: NDArray[np.floating]
    """(T,) higher is stranger."""
    anomaly: Bytes
    """(T,) 1 where it raises an alarm."""
    us_per_row: float | None = None
    """Microseconds that scoring took, training apart; None where nobody asks."""


@dataclass(slots=True)
class Measured:
    """A case under all methods that run here."""

    name: str
    measures: dict[str, dict[str, float]] = field(default_factory=dict)
    """By method, ours among them."""
    reasons: list[str] = field(default_factory=list)
    """Why a measure is not defined for the case."""


def measure(case: Case, ours: Told, others: Mapping[str, Told], pooled: Pooled | None) -> Measured:
    """Measure ours, the floors and the others alike."""
    measured = Measured(case.name)
    floors = {name: flagged(case, floor(case)) for name, floor in FLOORS.items()}
    for method, told in {OURS: ours, **floors, **others}.items():
        found = measured.measures.setdefault(method, {})
        found |= {} if told.us_per_row is None else {US_PER_ROW: told.us_per_row}
        for one in (_vus_pr, *_OF_POOLED[pooled]):
            try:
                found |= one(case, told)
            except ValueError as error:
                measured.reasons += [str(error)] if method == OURS else []
    return measured


def flagged(case: Case, score: NDArray[np.floating]) -> Told:
    """A method without a rule of its own: alarms where the score reaches the highest of its training rows."""
    return Told(score, (score >= score[: reference(case)].max()).astype(np.uint8))


def _vus_pr(case: Case, told: Told) -> dict[str, float]:
    window = vus.period(filled(case)[:, 0])
    return {VUS_PR: vus.vus_pr(case.labels[case.begin :], told.score[case.begin :], window)}


def _hit(case: Case, told: Told) -> dict[str, float]:
    """By the mean of the latest scores, and by single ones."""
    scores = {HIT_RATE: ucr.recent_mean(told.score), HIT_RATE_OF_ROWS: told.score}
    return {name: float(ucr.is_hit(case.labels, each, case.begin)) for name, each in scores.items()}


def _points(case: Case, told: Told) -> dict[str, float]:
    """Rows right and wrong, to be pooled, and the F1 of this case alone."""
    count = skab.f1_far_mar(case.labels[case.begin :], told.anomaly[case.begin :])
    return {F1: count.f1} | {f"rows {name}": float(number) for name, number in count._asdict().items()}


def _points_by_training(case: Case, told: Told) -> dict[str, float]:
    """The same by the training rows' threshold, whatever rule the method has."""
    found = _points(case, flagged(case, told.score))
    return {f"{BY_TRAINING}{name}": figure for name, figure in found.items()}


def _events(case: Case, told: Told) -> dict[str, float]:
    """Events right and wrong, to be pooled; alarms are the runs in the measured rows."""
    alarms = [(first + case.begin, end + case.begin) for first, end in events.intervals(told.anomaly[case.begin :])]
    count = events.precision_recall(alarms, case.events)
    return {f"events {name}": float(number) for name, number in count._asdict().items()}


_OF_POOLED = {
    None: (),
    "nab": (),
    "hits": (_hit,),
    "points": (_points, _points_by_training),
    "events": (_events, _points),
}
