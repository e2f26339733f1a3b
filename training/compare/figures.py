"""A candidate's figures by name: the columns of the table and of results.csv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from training.compare.choose import LOSS, VUS_PR
from training.compare.costs import Cost
from training.compare.finding import Finding, Watched
from training.compare.watched import NINES
from training.evaluate.measures.delay import FalseAlarms, pool_alarms

Figures = dict[str, float | None]
"""None where a figure is not defined."""

UNITS = {
    "forecast loss": "pinball loss of the later span, in change scales",
    "over the last value": "the same, over that of the last value as a forecast: below 1 something was learnt",
    "VUS-PR": "mean over the streams in which something was wrong; 1 ranks all of it first",
    "events found": "share of the events in which an alarm opened",
    "delay": "median samples from the begin of an event to its first alarm",
    "false alarms/day": "alarms outside events, per stream and day",
    "realised/promised": "the same over the false-alarm budget",
    **{f"{nines:g} nines": f"samples that reach {nines:g} nines, over those promised" for nines in NINES},
    "coverage": "share of the later span inside the band",
    "us/sample": "microseconds in ONNX Runtime, 256 streams side by side",
    "us/sample alone": "the same for one stream",
    "bytes/stream": "memory that the daemon keeps of a stream",
    "weights": "numbers that training learns",
    "epochs": "passes over the data in its time",
    "train s": "seconds of the processor, training alone",
}
"""What each figure is."""


def figures(one: Finding, cost: Cost | None, budget_per_day: float) -> Figures:
    """Of a candidate that is done; of another one, what is known."""
    watched, alarms = one.watched, _alarms(one.watched)
    found, events = events_found(watched)
    return {
        "forecast loss": _known(LOSS.mean(one)),
        "over the last value": one.loss / one.persistence_loss if one.loss and one.persistence_loss else None,
        "VUS-PR": _known(VUS_PR.mean(one)),
        "events found": found / events if events else None,
        "delay": median_delay(watched),
        "false alarms/day": _known(alarms.per_day.mean) if watched else None,
        "realised/promised": _known(alarms.realised_ratio(budget_per_day).mean) if watched else None,
        **{f"{nines:g} nines": _over_promised(watched, nines) for nines in NINES},
        "coverage": one.coverage,
        "us/sample": cost.fleet_us if cost else None,
        "us/sample alone": cost.alone_us if cost else None,
        "bytes/stream": float(cost.bytes_per_stream) if cost else None,
        "weights": float(one.weights),
        "epochs": float(max(0, len(one.epochs) - 1)),
        "train s": one.fit_s,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def events_found(watched: Sequence[Watched]) -> tuple[int, int]:
    """Events in which an alarm opened, and all."""
    return sum(len(one.delays) for one in watched), sum(one.events for one in watched)


def median_delay(watched: Sequence[Watched]) -> float | None:
    """Samples from the begin of an event to its first alarm; None where none was found."""
    delays = [delay for one in watched for delay in one.delays]
    return float(median(delays)) if delays else None


def _alarms(watched: Sequence[Watched]) -> FalseAlarms:
    return pool_alarms(
        [
            FalseAlarms(one.false_alarms, one.clean, math.nan if one.clean_days is None else one.clean_days)
            for one in watched
        ]
    )


def _over_promised(watched: Sequence[Watched], nines: float) -> float | None:
    promised = sum(one.clean for one in watched) * 10.0**-nines
    return sum(one.reached[f"{nines:g}"] for one in watched) / promised if promised else None
