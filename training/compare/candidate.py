"""One candidate: trained, calibrated and exported by the steps of `train`, scored by those of `evaluate`.

    1. Read the history and what is known to be wrong; the same for every candidate.
    2. Find out how many epochs its time allows, for the learning rate falls over just these; train.
    3. Measure the forecasts, stretch by stretch of the later span.
    4. Calibrate and export, as `train` does; a bundle that fails a proof fails the candidate.
    5. Score the labelled streams through the daemon's own stages.

Time is the processor's, not the wall's: a busy neighbour does not change who wins.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from msgspec.structs import replace as changed

from detector.model.bundle import read_bundle
from detector.model.session import Session
from training.calibrate import calibrate
from training.compare.finding import Finding, Learnt, Role, bundle_path
from training.compare.losses import by_stretch
from training.compare.over import Values, apply, told
from training.compare.truth import find_truth
from training.compare.watched import draw, watch_cases
from training.data.load import History, load_history
from training.data.series import Series
from training.evaluate.suites.case import Case
from training.export import export
from training.fit import Epoch, Fitted, fit
from training.graph.detector import Detector
from training.progress import Progress
from training.run import describe, shape_of, start_from
from training.settings import TrainSettings

_SAMPLE_STREAMS, _SAMPLE_ROWS = 64, 2_500  # what an epoch's time is estimated from, around the cut
_CALIBRATED_STREAMS = 64  # enough for figures that are compared; `train` looks at 512


class Pace(NamedTuple):
    """How far a candidate is at the end of an epoch."""

    spent_s: float
    """Seconds of the processor, all in all."""
    share: float
    """Of the time for training that is over."""
    loss: float
    """The best so far."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is to do; `settings` know nothing of labels."""

    number: int
    role: Role
    settings: TrainSettings
    folder: Path
    fit_s: float
    """Seconds of the processor that training may take."""
    faults_seed: int
    labels: str | None = None
    values: Values = field(default_factory=dict)
    seed_added: int = 0


class Pruned(Exception):  # noqa: N818  (it is no error)
    """The candidate is given up."""


@dataclass(slots=True)
class _Watch:
    """Epochs as they end, and the time that they took."""

    task: Task
    gives_up: Callable[[Pace], bool]
    clock: Callable[[], float]
    began: float
    learnt: list[Learnt] = field(default_factory=list)

    def __call__(self, epoch: Epoch) -> bool:
        """Note an epoch; whether time is over."""
        spent = self.clock() - self.began
        self.learnt.append(Learnt(spent, epoch.train_loss, epoch.validation_loss, epoch.gradient_norm_median))
        best = min(one.validation_loss for one in self.learnt)
        share = spent / self.task.fit_s if self.task.fit_s else 1.0
        if self.gives_up(Pace(self.clock(), share, best)):
            raise Pruned(f"given up after {spent:.0f} s, at a loss of {best:.4f}")
        return share >= 1


def examine(task: Task, gives_up: Callable[[Pace], bool] = lambda _: False) -> Finding:
    """All five steps.

    Args:
        task: What to do.
        gives_up: Asked after each epoch.
    """
    torch.set_num_threads(task.settings.fit.threads)
    clock, progress = _clock(task.settings.fit.threads), Progress.silent()
    settings = _settings(task)
    # 1. Read.
    history = load_history(settings)
    truth = find_truth(settings, history, task.labels, task.faults_seed)
    torch.manual_seed(settings.fit.seed)
    detector = Detector(shape_of(settings, history))
    if settings.model.start:
        start_from(detector, settings.model.start)
    # 2. Train.
    epoch_s = seconds_per_epoch(detector, history, settings, clock)
    settings = _paced(settings, task, epoch_s)
    before_s = clock()
    watch = _Watch(task, gives_up, clock, before_s)
    weights = sum(weights.numel() for weights in detector.forecaster.parameters())
    known = blank(task, epochs=watch.learnt, before_s=before_s, epoch_s=epoch_s, weights=weights)
    try:
        fitted = fit(detector, history.series, settings.data.time_zone, settings.fit, progress, watch=watch)
    except Pruned as pruned:
        return changed(known, state="pruned", reason=str(pruned), fit_s=clock() - before_s)
    fit_s = clock() - before_s
    # 3. to 5.
    figures = _measured(detector, history, settings, task, fitted, truth.cases)
    return changed(known, **figures, state="done", fit_s=fit_s, after_s=clock() - before_s - fit_s)


def blank(task: Task, **known: Any) -> Finding:
    """What is known of a candidate before anything came of it."""
    seed = task.settings.fit.seed + task.seed_added
    label = told(task.values) if task.values else "not trained"
    return Finding(
        number=task.number, role=task.role, values=task.values, seed=seed, label=label, state="failed", **known
    )


def _clock(threads: int) -> Callable[[], float]:
    began = time.process_time()
    return lambda: (time.process_time() - began) / threads


def _settings(task: Task) -> TrainSettings:
    settings = apply(task.settings, task.values)
    seed = {"seed": settings.fit.seed + task.seed_added}
    return settings.model_copy(update={"fit": settings.fit.model_copy(update=seed)})


def _paced(settings: TrainSettings, task: Task, epoch_s: float) -> TrainSettings:
    """As many epochs as the time allows, none for the floor, and never more than the configuration says."""
    allowed = 0 if task.role == "floor" else max(1, int(task.fit_s / epoch_s))
    epochs = min(settings.fit.epochs, allowed)
    return settings.model_copy(update={"fit": settings.fit.model_copy(update={"epochs": epochs})})


def seconds_per_epoch(
    detector: Detector, history: History, settings: TrainSettings, clock: Callable[[], float]
) -> float:
    """How long an epoch will take: one over a stretch of some streams, by samples."""
    series = [_short(one) for one in history.series[:: -(-len(history.series) // _SAMPLE_STREAMS)]]
    once = settings.fit.model_copy(update={"epochs": 1})
    ends: list[float] = []

    def note(_: Epoch) -> bool:
        ends.append(clock())
        return False

    fit(copy.deepcopy(detector), series, settings.data.time_zone, once, Progress.silent(), watch=note)
    return (ends[1] - ends[0]) * history.samples / sum(map(len, series))


def _short(one: Series) -> Series:
    first, last = max(0, one.cut - _SAMPLE_ROWS), one.cut + _SAMPLE_ROWS
    return replace(one, time_ns=one.time_ns[first:last], values=one.values[first:last], cut=one.cut - first)


def _measured(
    detector: Detector, history: History, settings: TrainSettings, task: Task, fitted: Fitted, cases: Sequence[Case]
) -> dict[str, Any]:
    """Forecasts, promises and detection of what was trained."""
    losses = by_stretch(detector, history.series, settings)
    some = history.series[:: -(-len(history.series) // _CALIBRATED_STREAMS)]
    calibration = calibrate(detector, some, settings, Progress.silent())
    metadata = describe(settings, history, calibration)
    path = bundle_path(task.folder, task.number)
    export(detector, path, name=settings.name, version=settings.version, metadata=metadata)
    session = Session(read_bundle(path))
    verdicts = watch_cases(session, cases)
    return {
        "data_sha256": metadata["data"]["sha256"],
        "loss": fitted.best.validation_loss,
        "persistence_loss": fitted.persistence_loss,
        "losses": losses,
        "coverage": calibration.coverage,
        "bytes_per_stream": 4 * session.bundle.row_floats(len(cases[0].channels)),
        "channels": len(cases[0].channels),
        "watched": [watched for _, watched in verdicts],
        "drawn": draw(cases, [verdict for verdict, _ in verdicts]),
    }
