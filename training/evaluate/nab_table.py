"""NAB's score of every method, which follows from all files at once: one threshold serves them all.

What runs here is scored with one alarm per burst (`nab.one_per_burst`), as a daemon tells an anomaly once: a declared
post-processing, the same for ours and the floors. `NAB every row` is without it. `NAB frozen` takes each half of the
suite (dev, validation) at the threshold of the other: what a user may expect, and no board shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluate.baselines import FLOORS
from training.evaluate.measured import NAB, Told
from training.evaluate.measures import nab
from training.evaluate.measures.bootstrap import Interval
from training.evaluate.results import OURS, CaseResult, Row
from training.evaluate.suites import numenta

_DRAWS = 200  # of files, for the interval; each costs an optimisation over the corpus


@dataclass(slots=True)
class NabTable:
    """What NAB adds to a suite's cases."""

    cases: list[CaseResult]
    figures: dict[str, dict[str, Interval]] = field(default_factory=dict)
    """By method that ran here."""
    published: list[Row] = field(default_factory=list)
    """Lines of the detectors whose scores of these very files are published."""


def nab_table(cases: Sequence[CaseResult], others: Sequence[Mapping[str, Told]], folder: Path) -> NabTable:
    """Score all methods.

    Args:
        cases: Every file of the suite that was scored.
        others: Of each, what methods other than ours and the floors said; a method counts if it ran on all of them.
        folder: The suite's, where published scores may lie.
    """
    scores: dict[str, list[NDArray[Any]]] = {OURS: [each.verdict.score for each in cases]}
    scores |= {name: [floor(each.case) for each in cases] for name, floor in FLOORS.items()}
    everywhere = set.intersection(*(set(each) for each in others))
    scores |= {name: [each[name].score for each in others] for name in everywhere}
    corpora = {method: _corpus(cases, of_method) for method, of_method in scores.items()}
    figures = {method: _figures(cases, corpus) for method, corpus in corpora.items()}
    if figures[OURS]:
        figures[OURS][NAB] = _interval(_per_burst(corpora[OURS]))
    own = _of_each(corpora[OURS])
    told = [
        replace(each, measures={**each.measures, NAB: score} if math.isfinite(score) else each.measures)
        for each, score in zip(cases, own, strict=True)
    ]
    return NabTable(told, figures, _published(cases, folder))


def _corpus(cases: Sequence[CaseResult], scores: Sequence[NDArray[Any]]) -> list[nab.Scored]:
    return [nab.Scored(score, each.case.windows) for each, score in zip(cases, scores, strict=True)]


def _per_burst(corpus: Sequence[nab.Scored]) -> list[nab.Scored]:
    return [nab.Scored(nab.one_per_burst(each.scores), each.windows) for each in corpus]


def _figures(cases: Sequence[CaseResult], raw: Sequence[nab.Scored]) -> dict[str, Interval]:
    """NAB's number in three profiles, without thinning of bursts, and with a frozen threshold."""
    if not any(each.windows for each in raw):
        return {}
    corpus = _per_burst(raw)
    halves = [[one for one, each in zip(corpus, cases, strict=True) if each.case.split == side] for side in _SIDES]
    figures = _profiles(corpus)
    figures["NAB every row"] = _alone(nab.optimise(raw).score, raw)
    if all(any(each.windows for each in half) for half in halves):
        figures["NAB frozen"] = _alone(nab.crossed(*halves), raw)
    return figures


_SIDES = ("dev", "validation")


def _profiles(corpus: Sequence[nab.Scored]) -> dict[str, Interval]:
    low_fp, low_fn = nab.PROFILES["reward_low_FP_rate"], nab.PROFILES["reward_low_FN_rate"]
    return {
        NAB: _alone(nab.optimise(corpus).score, corpus),
        "NAB low FP": _alone(nab.optimise(corpus, low_fp).score, corpus),
        "NAB low FN": _alone(nab.optimise(corpus, low_fn).score, corpus),
    }


def _alone(score: float, corpus: Sequence[nab.Scored]) -> Interval:
    return Interval(score, math.nan, math.nan, len(corpus))


def _interval(corpus: Sequence[nab.Scored], seed: int = 0) -> Interval:
    """The standard profile with its 95 % bootstrap interval over files, the threshold found anew in each draw.

    The score is a ratio of sums over files, so files are drawn, not their scores.
    """
    random, found = np.random.default_rng(seed), []
    for _ in range(_DRAWS):
        drawn = [corpus[place] for place in random.integers(len(corpus), size=len(corpus))]
        if any(each.windows for each in drawn):
            found.append(nab.optimise(drawn).score)
    low, high = np.quantile(found, [0.025, 0.975]).tolist()
    return Interval(nab.optimise(corpus).score, low, high, len(corpus))


def _of_each(raw: Sequence[nab.Scored]) -> list[float]:
    """NAB's score of each file alone, at the threshold of all; NaN for one without windows."""
    if not any(each.windows for each in raw):
        return [math.nan] * len(raw)
    corpus = _per_burst(raw)
    threshold = nab.optimise(corpus).threshold
    return [nab.at_threshold([each], threshold).score if each.windows else math.nan for each in corpus]


def _published(cases: Sequence[CaseResult], folder: Path) -> list[Row]:
    """Detectors whose raw scores of these files lie beside them: the same rule, every row an alarm, as they ran."""
    names = [each.case.name for each in cases]
    lines = []
    for detector, scores in numenta.published(folder, names).items():
        corpus = _corpus(cases, [scores[name] for name in names])
        if any(each.windows for each in corpus):
            lines.append(Row(f"{detector}, these files", "published", _profiles(corpus)))
    return lines
