"""What a reader must know beside a table: how many series, which side of the split, what is declared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from training.evaluate.baselines import FLOORS
from training.evaluate.measured import VUS_PR
from training.evaluate.measures.bootstrap import mean_interval, paired_difference
from training.evaluate.published import SOURCES
from training.evaluate.results import CaseResult

_OF_SUITE = {
    "tsb-ad-u": "VUS-PR as TSB_AD 1.5 computes it, over all rows, the training part included, as published",
    "tsb-ad-m": "VUS-PR as TSB_AD 1.5 computes it, over all rows, the training part included, as published",
    "nab": "methods that run here tell a burst once (declared); NAB picks the threshold with the labels in view, "
    "'NAB frozen' does not",
    "ucr": "a hit: after the training part, the mean of 32 scores (chosen on dev) is highest on the anomaly, which is "
    "widened by its length, at least 100",
    "skab": "alarms of ours as `decide` opens and closes them; floors, and every method under 'trained', alarm where "
    "the score reaches the highest of the 400 training rows",
    "smap": "precision is cheap for a detector that never closes an alarm: read it beside FAR",
}


def notes(suite: str, cases: Sequence[CaseResult], budget_per_day: float, roles: str) -> list[str]:
    """Lines to print under a suite's table."""
    sides = Counter(each.case.split for each in cases)
    lines = [
        f"{len(cases)} series: {sides['dev']} dev, {sides['validation']} validation",
        f"alarms: budget {budget_per_day:g} per stream-day; false are those outside events and the 200 rows after each",
    ]
    lines += _leads(cases)
    if suite in _OF_SUITE:
        lines.append(_OF_SUITE[suite])
    if suite in SOURCES:
        lines.append(f"published: {SOURCES[suite]}")
    if roles == "declared" and any(each.case.target is not None for each in cases):
        lines.append("the target channel was declared to the graph: knowledge that published methods did not use")
    return lines


def _leads(cases: Sequence[CaseResult]) -> list[str]:
    """Ours less the best published method, and less what was trained beside ours, in pairs on the same series."""
    published = dict.fromkeys(method for each in cases for method in each.published)
    trained = dict.fromkeys(method for each in cases for method in each.baselines if method not in FLOORS)
    theirs = {method: [each.published.get(method, math.nan) for each in cases] for method in published}
    best = max(theirs, key=lambda method: mean_interval(theirs[method]).mean, default=None)
    pairs = {best: theirs[best]} if best else {}
    pairs |= {name: [each.baselines.get(name, {}).get(VUS_PR, math.nan) for each in cases] for name in trained}
    return [_lead(cases, method, figures) for method, figures in pairs.items()]


def _lead(cases: Sequence[CaseResult], method: str, theirs: Sequence[float]) -> str:
    """Ours less theirs, in all and family by family."""
    ours = [each.measures.get(VUS_PR, math.nan) for each in cases]
    lead = paired_difference(ours, theirs)
    of_family: dict[str, list[float]] = {}
    for case, our, their in zip(cases, ours, theirs, strict=True):
        if not math.isnan(our - their):
            of_family.setdefault(case.case.family, []).append(our - their)
    families = [f"{name} {mean_interval(each).mean:+.3f}" for name, each in sorted(of_family.items())]
    told = f"{lead.mean:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}] over {lead.number} series"
    return f"ours less {method}, {VUS_PR}: {told}" + (f": {', '.join(families)}" if len(families) > 1 else "")
