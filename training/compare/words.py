"""A comparison in words: the recommendation with its reason, and each candidate in a line."""

from __future__ import annotations

import math
from collections.abc import Iterator

from training.compare.choose import LOSS, VUS_PR, Measure, Step
from training.compare.costs import Cost
from training.compare.finding import Finding
from training.compare.result import Result
from training.evaluate.measures.bootstrap import paired_difference

ORIGINS = {
    "labels": "your labels",
    "plant": "the plant's own faults, on pumps that no candidate has seen",
    "injected": "faults put in on purpose, for there are no labels",
}
"""Where it is known from what was wrong."""


def line(finding: Finding) -> str:
    """A candidate as it ends."""
    if finding.state != "done":
        return f"{finding.label}: {finding.state}: {finding.reason}"
    again = f", seed {finding.seed}" if finding.role == "again" else ""
    told = f", VUS-PR {VUS_PR.mean(finding):.3f}" if VUS_PR.of(finding) else ""
    epochs = len(finding.epochs) - 1
    return (
        f"{finding.label}{again}: forecast loss {LOSS.mean(finding):.4f}{told}, "
        f"{epochs} epoch{'' if epochs == 1 else 's'} in {finding.fit_s:.0f} s"
    )


def cost(of: Cost) -> str:
    """What a stream costs."""
    return f"{of.fleet_us:.1f} us per sample, {of.bytes_per_stream:,} bytes per stream"


def recommendation(result: Result) -> list[str]:
    """What to take, and why, in plain sentences."""
    choice = result.choice
    return [
        f"Take {choice.taken.label}: {cost(result.costs[choice.taken.number])}.",
        *(sentence for step in choice.steps for sentence in _of_step(step, choice.taken)),
        _alike(result),
        *_worth(result),
        *_doubts(result),
    ]


def _of_step(step: Step, taken: Finding) -> Iterator[str]:
    """Who is best by a measure, and how far the one that is taken is behind."""
    measure, best = step.measure, step.best
    if len(step.among) == 1:
        return
    among = f"of {len(step.among)}"
    if best is taken:
        yield f"By {measure.name} it is the best {among}, with {_figure(measure, best)}."
        return
    lead = paired_difference(measure.of(best), measure.of(taken))
    moved = "" if math.isnan(step.by_chance) else f"; another seed moved the best by {step.by_chance:.3g}"
    yield (
        f"By {measure.name}, {best.label} is the best {among}, with {_figure(measure, best)} to "
        f"{_figure(measure, taken)}, which may be chance: it leads by {lead.mean:.3g}, 95 % interval {lead.low:.3g} to "
        f"{lead.high:.3g}{moved}."
    )


def _figure(measure: Measure, one: Finding) -> str:
    return f"{measure.mean(one):.4g}"


def _alike(result: Result) -> str:
    left = result.choice.steps[-1].left
    if len(left) == 1:
        return "No other candidate is as good."
    return f"{len(left)} of {len(result.done)} are as good as the best; it is the cheapest of them."


def _worth(result: Result) -> Iterator[str]:
    """What training is worth at all."""
    taken, floor = result.choice.taken, result.floor
    if taken.loss is not None and taken.persistence_loss:
        gain = 100 * (1 - taken.loss / taken.persistence_loss)
        if gain > 0:
            yield f"Its forecast loss is {gain:.0f} % below that of the last value."
        else:
            yield "It forecasts no better than the last value: the past of these streams tells little of the future."
    if VUS_PR.of(taken):
        lead = paired_difference(VUS_PR.of(taken), VUS_PR.of(floor))
        mean, untrained = VUS_PR.mean(taken), VUS_PR.mean(floor)
        if lead.low > 0:
            yield f"Training is worth it: VUS-PR {mean:.3f}, and {untrained:.3f} without any."
        else:
            yield (
                f"For detection, training has not shown its worth here: VUS-PR {mean:.3f}, and {untrained:.3f} without "
                "any. What learns in production, the evidence and the tail, does the work; the universal bundle may do."
            )


def _doubts(result: Result) -> Iterator[str]:
    """What a reader is to keep in mind."""
    if failed := [one.label for one in result.not_done if one.state == "failed"]:
        yield f"Not compared, because it failed: {'; '.join(failed)}. The report says why."
    if result.truth == "injected":
        yield "Detection was measured on faults put in on purpose; a column of labels (--labels) would say more."
    elif result.choice.lead is LOSS:
        streams = len(VUS_PR.of(result.floor))
        yield f"Too few streams with events ({streams}) to rank by detection: the forecasts decide."
    if result.choice.taken.state == "done" and _is_unfinished(result.choice.taken):
        yield "Its loss was still falling when time was over: a larger budget may change the order."


def _is_unfinished(one: Finding) -> bool:
    """Whether the last epoch was the best by a percent, and time ended it."""
    losses = [epoch.validation_loss for epoch in one.epochs]
    return len(losses) > 2 and losses[-1] < 0.99 * min(losses[:-1])
