"""All that training is between two epochs.

It is kept in memory for the fall back when a loss stops being finite, and in the run folder, so that an interrupted run
goes on and ends, on the same CPU, with the same bits as one that was never interrupted. The learning rate is no part of
it: schedules are functions of what is here.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector.errors import InputError
from training.fit.clipping import Clip
from training.fit.optimisers import optimiser
from training.fit.records import Epoch
from training.fit.schedules import Moment, rate
from training.graph.forecaster import Forecaster
from training.settings import FitSettings

FILE = "checkpoint.pt"
"""Its name in a run folder that is not complete."""


class Training:
    """Weights, optimiser, random numbers and what was logged; at the start of training.

    Args:
        forecaster: What is trained; on the device that it is to be trained on.
        settings: Of training.
        reach: How far back gradients reached before.
    """

    def __init__(self, forecaster: Forecaster, settings: FitSettings, reach: Sequence[float] = ()) -> None:
        torch.manual_seed(settings.seed)
        self._settings = settings
        self.forecaster = forecaster
        self.optimiser = optimiser(forecaster.parameters(), settings)
        self.clip = Clip(settings)
        self.rng = np.random.default_rng(settings.seed)
        self.epochs: list[Epoch] = []
        self.best: Epoch | None = None
        self.best_weights = forecaster.state_dict()
        self.slowed = 1.0
        """Share of the learning rate that is left after falls back."""
        self.reach = list(reach)

    @property
    def number(self) -> int:
        """Of the epoch that is on; 0 is before training."""
        return len(self.epochs)

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or the last ones were in vain."""
        waited = 0 if self.best is None else self.epochs[-1].epoch - self.best.epoch
        return self.number > self._settings.epochs or waited >= self._settings.patience

    def add(self, epoch: Epoch) -> None:
        """Log an epoch, and keep the weights if they are the best so far."""
        self.epochs.append(epoch)
        if self.best is None or epoch.validation_loss < self.best.validation_loss:
            self.best, self.best_weights = epoch, copy.deepcopy(self.forecaster.state_dict())

    def pace(self, share: float) -> None:
        """Set the learning rate of the next step, when that share of the epoch is over."""
        moment = Moment(self.number - 1 + share, [epoch.validation_loss for epoch in self.epochs])
        for group in self.optimiser.param_groups:
            group["lr"] = self.slowed * rate(moment, self._settings)

    def end(self) -> Epoch:
        """Put the best weights back; the epoch that they are of."""
        if self.best is None:
            raise ValueError("nothing was measured")
        self.forecaster.load_state_dict(self.best_weights)
        self.forecaster.cpu()
        return self.best

    def as_dict(self) -> dict[str, Any]:
        """All of it, in a form that torch saves and that later steps do not change."""
        return copy.deepcopy(
            {
                "weights": self.forecaster.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "running_norm": self.clip.running,
                "torch_random": torch.get_rng_state(),
                "order_random": self.rng.bit_generator.state,
                "epochs": [asdict(epoch) for epoch in self.epochs],
                "best": None if self.best is None else self.best.epoch,
                "best_weights": self.best_weights,
                "slowed": self.slowed,
                "reach": self.reach,
            }
        )

    def restore(self, kept: dict[str, Any]) -> None:
        """Become what `as_dict` gave."""
        self.forecaster.load_state_dict(kept["weights"])
        self.optimiser.load_state_dict(copy.deepcopy(kept["optimiser"]))  # or steps would change what is kept
        self.clip.running = kept["running_norm"]
        torch.set_rng_state(kept["torch_random"])
        self.rng.bit_generator.state = kept["order_random"]
        self.epochs = [Epoch(**epoch) for epoch in kept["epochs"]]
        self.best = None if kept["best"] is None else self.epochs[kept["best"]]
        self.best_weights, self.slowed, self.reach = kept["best_weights"], kept["slowed"], kept["reach"]


def save(training: Training, folder: Path, data: str) -> None:
    """Write it into a run folder, whole or not at all.

    Args:
        training: Between two epochs.
        folder: Of the run.
        data: The hash of what is trained on.
    """
    partial = folder / f"{FILE}.partial"
    with partial.open("wb") as file:
        torch.save({**training.as_dict(), "data": data}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / FILE)


def load(training: Training, folder: Path, data: str) -> bool:
    """Take up what a run folder holds; False where it holds nothing yet.

    Raises:
        InputError: it cannot be read, or it is of other data.
    """
    path = folder / FILE
    if not path.exists():
        return False
    try:
        kept = torch.load(path, weights_only=True)
        if kept["data"] != data:
            hint = "the files have changed since; train anew"
            raise InputError(path, "is of other data", expected=f"sha256 {kept['data'][:12]}", got=data[:12], hint=hint)
        training.restore(kept)
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(path, "cannot be read", expected="what `train` left", got=error, hint="train anew") from error
    return True
