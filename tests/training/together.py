"""One of several processes that train together: what torchrun starts in test_fit_processes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from tests.waves import changed, detector, waves
from training.fit import fit
from training.fit.processes import team
from training.progress import Progress

STREAMS = 3  # in batches of two: the second process has no row of the last


def losses() -> list[list[float]]:
    """Train, and tell the losses and the largest gradient of each epoch."""
    torch.set_num_threads(1)
    settings = changed(epochs=2, batch=2, learning_rate=1e-2, l2=1e-3)
    with team() as mates:
        fitted = fit(detector(), waves(STREAMS), "UTC", settings, Progress.silent(), team=mates)
    return [[one.train_loss, one.validation_loss, one.gradient_norm_max] for one in fitted.epochs]


if __name__ == "__main__":
    Path(sys.argv[1], f"{os.environ['RANK']}.json").write_text(json.dumps(losses()), encoding="utf-8")
