"""All that a comparison found; reports are made of it."""

from __future__ import annotations

from dataclasses import dataclass

from training.compare.choose import Choice
from training.compare.costs import Cost
from training.compare.finding import Finding
from training.compare.over import LeftOut
from training.compare.plan import Plan
from training.compare.truth import Origin
from training.settings import TrainSettings
from training.settings.compare import CompareSettings


@dataclass(frozen=True, slots=True)
class Result:
    """A finished comparison."""

    settings: TrainSettings
    """What was varied."""
    asked: CompareSettings
    plan: Plan
    combinations: int
    """That could be built."""
    left_out: list[LeftOut]
    streams: int
    samples: int
    channels: tuple[str, ...] | None
    """None where streams differ."""
    truth: Origin
    floor: Finding
    candidates: list[Finding]
    """In order of their numbers, whatever became of them."""
    again: list[Finding]
    """The best candidate from other seeds."""
    costs: dict[int, Cost]
    """Of the floor and of every candidate that is done, by number."""
    choice: Choice

    @property
    def done(self) -> list[Finding]:
        """The candidates with figures, best first."""
        lead = self.choice.lead
        found = [one for one in self.candidates if one.state == "done"]
        return sorted(found, key=lambda one: -lead.sign * lead.mean(one))

    @property
    def not_done(self) -> list[Finding]:
        """The others."""
        return [one for one in self.candidates if one.state != "done"]

    @property
    def events(self) -> int:
        """What was to be found, in all streams."""
        return sum(one.events for one in self.floor.watched)
