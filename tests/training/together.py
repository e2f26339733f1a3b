"""One of several processes that train together: what torchrun starts in test_fit_processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from training import run
from training.progress import Progress
from training.settings import TrainSettings

DATA = {"synthetic": {"streams": 3, "samples": 300, "channels": 1}}
FIT = {"epochs": 2, "chunk": 16, "batch": 2, "learning_rate": 1e-2, "l2": 1e-3}  # the last batch has one row


def train(output: Path) -> Path:
    """A run, but for what the first process does alone after training: that is to write losses and gradient norms."""

    def finish(folder: Path, *made: object) -> None:
        told = [[one.train_loss, one.validation_loss, one.gradient_norm_max] for one in made[3].epochs]
        (folder / "losses.json").write_text(json.dumps(told), encoding="utf-8")

    run._finish = finish
    settings = {"name": "a", "data": DATA, "fit": FIT, "model": {"hidden": 4}, "output": str(output)}
    return run.train(TrainSettings.model_validate(settings), Progress.silent())


if __name__ == "__main__":
    train(Path(sys.argv[1]))
