"""Which candidate to take: the cheapest of those that are as good as the best, as far as these data can tell.

    1. As good as the best at finding what was wrong (VUS-PR), where enough streams say so.
    2. Of these, as good as the best at forecasting the later span.
    3. Of these, the cheapest: the least product of microseconds and bytes per stream.

A lead is chance if the 95 % bootstrap interval of the paired differences holds 0, over streams for VUS-PR and over
stretches for the loss, or if it is no larger than what other seeds did to the best candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.compare.costs import Cost
from training.compare.finding import Finding
from training.evaluate.measures.bootstrap import Interval, mean_interval, paired_difference

_ENOUGH = 6  # streams with events, or stretches: the bootstrap of fewer says nothing


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that candidates are compared by; more is better."""

    name: str
    of: Callable[[Finding], list[float]]
    """By stream or stretch, in the same order for every candidate; what is not defined is left out."""
    sign: float
    """-1 where less is better to people."""

    def mean(self, finding: Finding) -> float:
        """As people know it; NaN where there is nothing."""
        found = self.of(finding)
        return self.sign * float(np.mean(found)) if found else math.nan

    def interval(self, finding: Finding) -> Interval:
        """The same with its 95 % interval."""
        return mean_interval([self.sign * one for one in self.of(finding)])


VUS_PR = Measure("VUS-PR", lambda one: [each.vus_pr for each in one.watched if each.vus_pr is not None], 1)
LOSS = Measure("forecast loss", lambda one: [-loss for loss in one.losses], -1)


@dataclass(frozen=True, slots=True)
class Step:
    """One measure, and what is left after it."""

    measure: Measure
    among: list[Finding]
    best: Finding
    by_chance: float
    """How far the best candidate moved with its seed; NaN where it was not trained again."""
    left: list[Finding]
    """As good as the best."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to take, and how it came about."""

    taken: Finding
    steps: list[Step]
    front: set[int]
    """Numbers of the candidates that no other one beats in both accuracy and cost."""

    @property
    def lead(self) -> Measure:
        """The measure that comes first."""
        return self.steps[0].measure


def leading(findings: Sequence[Finding]) -> Measure:
    """What candidates are ranked by: VUS-PR where enough streams tell, else the loss."""
    return VUS_PR if min((len(VUS_PR.of(one)) for one in findings), default=0) >= _ENOUGH else LOSS


def best_of(findings: Sequence[Finding], measure: Measure) -> Finding:
    """The candidate with the best mean."""
    return max(findings, key=lambda one: (measure.sign * measure.mean(one), -one.number))


def choose(findings: Sequence[Finding], again: Sequence[Finding], costs: Mapping[int, Cost]) -> Choice:
    """Choose among candidates that are done.

    Args:
        findings: At least one.
        again: What became of the best from other seeds.
        costs: By number.
    """
    lead, steps, left = leading(findings), list[Step](), list(findings)
    for measure in dict.fromkeys((lead, LOSS)):
        best = best_of(left, measure)
        moved = spread(measure, again, findings)
        alike = [one for one in left if one is best or is_chance(measure, best, one, moved)]
        steps.append(Step(measure, left, best, moved, alike))
        left = alike
    taken = min(left, key=lambda one: (costs[one.number].fleet_us * costs[one.number].bytes_per_stream, one.number))
    return Choice(taken, steps, front(findings, lead, costs))


def spread(measure: Measure, again: Sequence[Finding], findings: Sequence[Finding]) -> float:
    """Between the best and the worst of one candidate's trainings; NaN where none was trained again."""
    if not again:
        return math.nan
    means = [measure.mean(one) for one in (*findings, *again) if one.values == again[0].values]
    return max(means) - min(means)


def is_chance(measure: Measure, best: Finding, other: Finding, moved: float) -> bool:
    """Whether the best may lead the other by chance."""
    ours, theirs = measure.of(best), measure.of(other)
    if len(ours) != len(theirs) or len(ours) < _ENOUGH:
        return True
    lead = paired_difference(ours, theirs)
    return lead.low <= 0 or lead.mean <= moved


def front(findings: Sequence[Finding], measure: Measure, costs: Mapping[int, Cost]) -> set[int]:
    """The Pareto front: nobody is both better and cheaper, by time and by memory."""

    def beats(one: Finding, other: Finding) -> bool:
        better = measure.sign * (measure.mean(one) - measure.mean(other))
        cheaper = np.subtract(costs[other.number], costs[one.number])[[0, 2]]
        return better >= 0 and bool((cheaper >= 0).all()) and (better > 0 or bool((cheaper > 0).any()))

    return {one.number for one in findings if not any(beats(other, one) for other in findings)}
