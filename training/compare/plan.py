"""What a budget allows: every combination with equal time for each, or a search among them.

All in seconds of the processor, of which a budget holds as many as it has seconds for each core. Every candidate gets
the same time to train in. What it takes besides (reading, calibrating, exporting, scoring) is known from the floor, the
same detector without training.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from detector.errors import ConfigurationError
from training.compare.finding import Finding

_FEWEST_EPOCHS = 5  # after fewer, an order says little
_MORE_COSTLY = 1.2  # candidates against the floor, for what is not training: deeper ones take longer to export


class Plan(msgspec.Struct, frozen=True):
    """How the budget is spent; kept as plan.json, so that a resumed comparison gives no other time."""

    way: Literal["grid", "search"]
    fit_s: float
    """Seconds in which each candidate may train."""
    each_s: float
    """Seconds for all of a candidate."""
    total_s: float
    """Seconds for all candidates and the trainings of the best again."""
    again: int
    """Trainings of the best candidate from other seeds: what chance alone does."""

    @property
    def tries(self) -> int:
        """How many candidates there is time for, none given up early."""
        return int(self.total_s / self.each_s) - self.again


def make_plan(budget_s: float, jobs: int, combinations: int, again: int, floor: Finding) -> Plan:
    """Share the budget out.

    Args:
        budget_s: Seconds on the wall.
        jobs: Candidates at the same time.
        combinations: How many there are to compare.
        again: Trainings of the best candidate from other seeds.
        floor: What the floor took.

    Raises:
        ConfigurationError: not even two candidates have time for a few epochs.
    """
    besides = _MORE_COSTLY * (floor.before_s + floor.after_s)
    least = besides + _FEWEST_EPOCHS * floor.epoch_s
    total = budget_s * jobs - floor.spent_s
    if total < (2 + again) * least:
        needed = (floor.spent_s + (2 + again) * least) / jobs
        raise ConfigurationError(
            "--budget",
            "too small for two candidates",
            expected=f"at least {minutes(needed)} on {jobs} cores, for this machine and these data",
            got=minutes(budget_s),
            hint="or fewer streams, fewer hidden units",
        )
    each = total / (combinations + again)
    way: Literal["grid", "search"] = "grid" if each >= least else "search"
    each = max(each, least)
    return Plan(way, each - besides, each, total, again)


def minutes(seconds: float) -> str:
    """A duration for people: `90 s`, `12 min`, `1.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
