"""Streams from which something can be learnt in seconds, and a small detector to learn it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from training.data.series import Series
from training.fit import Fitted, fit
from training.graph import Detector, DetectorShape
from training.progress import Progress
from training.settings import FitSettings

S = 1_000_000_000
SETTINGS = FitSettings(epochs=3, chunk=16, batch=4, seed=3)


def waves(streams: int = 6, samples: int = 400, channels: int = 1, missing: float = 0.0) -> list[Series]:
    """Sines with noise, of different phase and size: what comes next can be learnt."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(streams):
        t = np.arange(samples - 7 * number)[:, None]
        values = 10.0**number * (np.sin(t / 4 + number + np.arange(channels)) + 0.02 * rng.standard_normal(t.shape))
        values[rng.random(values.shape) < missing] = np.nan
        names = tuple(f"c{c}" for c in range(channels))
        found.append(Series(f"s{number}", names, t[:, 0] * S, values, int(0.8 * len(t))))
    return found


def detector(
    cell: str = "gru", mode: str = "any", channels: int = 1, layers: int = 1, hidden: int = 8, **more: Any
) -> Detector:
    """One with few weights; the same at each call."""
    torch.manual_seed(0)
    names = tuple(f"c{c}" for c in range(channels)) if mode == "fixed" else None
    shape = {"mode": mode, "channels": names, "cell": cell, "layers": layers, "hidden": hidden, "period_s": 1.0}
    return Detector(DetectorShape(**shape, **more))


def changed(**settings: object) -> FitSettings:
    """The settings of these tests, but for some; checked as a configuration is."""
    return FitSettings.model_validate(SETTINGS.model_dump() | settings)


def trained(settings: FitSettings = SETTINGS, streams: int = 6) -> tuple[Detector, Fitted]:
    """A detector after a training, and how that went."""
    made = detector()
    return made, fit(made, waves(streams), "UTC", settings, Progress.silent())
