"""What is done in the processes of a crew: score a group of cases, train what is compared, measure a case.

Each finding is stored as soon as it is there, so that an interrupted run loses no more than what was under way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from detector.errors import TidewardenError
from detector.model.bundle import read_bundle
from detector.model.session import Session
from detector.settings import DecideSettings
from detector.stages.decide import Policy
from training.evaluate.measured import Measured, Told, measure
from training.evaluate.results import Refusal
from training.evaluate.runner import judge
from training.evaluate.suites import Case, Pooled
from training.evaluate.verdict import store
from training.evaluate.workers import advance

_TASK_CELLS = 6_000_000  # numbers that one process holds at once: 150 MB with what is found of them


class Place(NamedTuple):
    """A case, and where what is found of it goes."""

    case: Case
    path: Path


class ScoreTask(NamedTuple):
    """Cases with the same number of channels, to walk side by side."""

    bundle: Path
    policy: Policy
    declare_roles: bool
    places: list[Place]


def deal(places: Iterable[Place], jobs: int) -> list[list[Place]]:
    """Groups of alike channels for so many processes: equal work, the longest spread, the heaviest group first."""
    by_channels: dict[int, list[Place]] = defaultdict(list)
    for place in sorted(places, key=lambda place: -len(place.case)):
        by_channels[len(place.case.channels)].append(place)
    groups: list[list[Place]] = []
    for alike in by_channels.values():
        cells = sum(place.case.values.size for place in alike)
        count = min(len(alike), max(jobs, -(-cells // _TASK_CELLS)))
        own: list[list[Place]] = [[] for _ in range(count)]
        for place in alike:
            min(own, key=_rows).append(place)
        groups += own
    return sorted(groups, key=lambda group: -max(len(place.case) for place in group))


def _rows(group: Sequence[Place]) -> int:
    return sum(len(place.case) for place in group)


def score(task: ScoreTask) -> None:
    """Score a group; each case is stored as it ends."""
    session = Session(read_bundle(task.bundle))
    cases = [place.case for place in task.places]
    for at, verdict in judge(session, task.policy, cases, declare_roles=task.declare_roles, on_rows=advance):
        store(task.places[at].path, verdict)


def train_windowed(place: Place) -> None:
    """Train and run the windowed LSTM on one case."""
    from training.evaluate.windowed_lstm import REDUCED, scores  # torch takes seconds to import

    store(place.path, scores(place.case, REDUCED))
    advance(len(place.case))


class OwnTask(NamedTuple):
    """A case to train ours for."""

    bundle: Path
    budget_per_day: float | None
    declare_roles: bool
    place: Place


def train_own(task: OwnTask) -> Refusal | None:
    """Train ours on the case's own training part, and score it; gives the reason where that cannot be."""
    from training.evaluate.own_training import trained  # torch takes seconds to import

    case, path = task.place
    with TemporaryDirectory() as folder:
        try:
            bundle = trained(read_bundle(task.bundle), case, Path(folder))
        except TidewardenError as error:
            return Refusal(case.name, f"own training: {error}")
        policy = Policy.of(DecideSettings(budget_per_day=task.budget_per_day), bundle)
        for _, verdict in judge(Session(bundle), policy, [case], declare_roles=task.declare_roles, on_rows=advance):
            store(path, verdict)
    return None


class MeasureTask(NamedTuple):
    """A case and what the methods that cost more than a moment say of it."""

    case: Case
    ours: Told
    others: dict[str, Told]
    pooled: Pooled | None


def measured(task: MeasureTask) -> Measured:
    """Measure all methods on one case."""
    found = measure(task.case, task.ours, task.others, task.pooled)
    advance(len(task.case))
    return found
