"""The training loop, read top to bottom.

The running scale has no weights, so every stream goes through it once, beforehand. Then, epoch after epoch: a pass over
the training spans, and a forecast of the later span of every stream. Training stops when that has not become better for
a while, and the best weights are put back: perhaps those that it started from. Where a loss stops being finite, it goes
back to the end of the epoch before, and on at half the rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from detector.errors import ConfigurationError
from training.data.series import Series, sha256
from training.fit import state
from training.fit.bptt import Bptt, Step
from training.fit.curriculum import stretches
from training.fit.loss import persistence_loss
from training.fit.processes import ALONE, Team
from training.fit.reach import reach
from training.fit.records import DivergedError, Epoch, Fitted
from training.fit.state import Training
from training.graph.detector import Detector
from training.progress import Progress
from training.settings import FitSettings
from training.spans import AnySpan, some, standardise

_FALLS = 3  # times in one epoch that a loss may stop being finite


def fit(
    detector: Detector,
    series: Sequence[Series],
    zone: str,
    settings: FitSettings,
    progress: Progress,
    *,
    folder: Path | None = None,
    watch: Callable[[Epoch], bool] = lambda _: False,
    team: Team = ALONE,
) -> Fitted:
    """Train the detector's forecaster in place.

    Args:
        detector: Its forecaster ends with the best weights that were seen.
        series: Streams, each with its cut between training and validation span.
        zone: Time zone of the clock features.
        settings: Epochs, chunk, batch and so on.
        progress: Told of each epoch as it ends.
        folder: Keeps after each epoch what a training goes on from that was interrupted here; None keeps nothing.
        watch: Asked at the end of each epoch whether to end training there, with the best weights so far.
        team: The processes that train together.

    Raises:
        ConfigurationError: the device is not there.
        DivergedError: a loss stopped being finite again and again.
        InputError: what the folder keeps is of other data, or damaged.
    """
    levels = torch.tensor(detector.shape.quantile_levels)
    train, validation = standardise(detector, series, zone, settings, progress.over("standardising"))
    floor = persistence_loss(levels, some(train), some(validation))
    progress.says(f"persistence: validation loss {floor:.4f}")
    before = reach(detector.forecaster, some(train), levels)
    training = Training(detector.forecaster.to(device_of(settings)), settings, before)
    data = sha256(series)
    if folder is not None and state.load(training, folder, data):
        progress.says(f"going on after epoch {training.number - 1}")
    passes = Bptt(training, levels, settings, team)
    for _ in progress.over("training")(range(training.number, settings.epochs + 1)):
        if training.is_over:
            break
        training.add(_epoch(training, passes, train, validation, settings, progress))
        progress.says(_line(training.epochs[-1]))
        if folder is not None and team.rank == 0:
            state.save(training, folder, data)
        if watch(training.epochs[-1]):
            break
    best = training.end()
    after = reach(detector.forecaster, some(train), levels)
    return Fitted(training.epochs, best, floor, {"before training": training.reach, "after training": after})


def device_of(settings: FitSettings) -> str:
    """Where weights are trained. Raises ConfigurationError where there is none of the kind."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("fit", "device", expected="cpu, for torch finds no GPU here", got=settings.device)
    return settings.device


def _epoch(
    training: Training,
    passes: Bptt,
    train: Sequence[AnySpan],
    validation: Sequence[AnySpan],
    settings: FitSettings,
    progress: Progress,
) -> Epoch:
    """The next epoch; number 0 only measures. Where a loss stops being finite, once more and more slowly."""
    started, good, falls = time.perf_counter(), training.as_dict(), 0
    while True:
        try:
            if training.number:
                steps = list(passes.train(stretches(train, training.number, settings)))
            else:
                steps = [Step(passes.validate(some(train)), 1, torch.zeros(()), False)]
            return _logged(training, steps, passes.validate(validation), time.perf_counter() - started)
        except DivergedError as error:
            falls += 1
            if falls == _FALLS or not training.number:
                raise
            training.restore(good | {"slowed": training.slowed / 2})
            progress.says(f"{error}; back to the weights before the epoch, and on at half the rate")


def _logged(training: Training, steps: Sequence[Step], loss: float, seconds: float) -> Epoch:
    norms, learning_rate = torch.stack([step.norm for step in steps]), training.optimiser.param_groups[0]["lr"]
    return Epoch(
        epoch=training.number,
        train_loss=sum(step.lost for step in steps) / sum(step.counted for step in steps),
        validation_loss=loss,
        gradient_norm_median=norms.median().item(),
        gradient_norm_max=norms.max().item(),
        clipped_ratio=sum(step.clipped for step in steps) / len(steps),
        learning_rate=learning_rate,
        seconds=seconds,
    )


def _line(epoch: Epoch) -> str:
    return (
        f"epoch {epoch.epoch}: loss {epoch.train_loss:.4f}, validation {epoch.validation_loss:.4f}, "
        f"gradient norm {epoch.gradient_norm_median:.2f} (largest {epoch.gradient_norm_max:.2f}), {epoch.seconds:.1f} s"
    )
