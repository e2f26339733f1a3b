"""What the finished detector promises, measured on the later span of time and written into it.

    1. Run the whole detector; what its streams have learnt of their features is what a new stream is to start from.
    2. Run it as it will be shipped; count what the band holds, how often each score is reached, and how many
       samples above the threshold make one alarm.

All through `step`, the same arithmetic that is exported; only what comes after the cut is counted, which the
forecaster was not trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.records import Float64
from training.data.batches import Block
from training.data.series import Series
from training.graph.detector import Detector
from training.graph.tail import CALIBRATED_AFTER
from training.progress import Progress
from training.rollout import Run, Step, Watch, choose, roll
from training.settings import TrainSettings

_UNLEARNT = 1.0  # variance of a feature that nobody has calibrated yet
_CLUSTER_GAP = 10  # samples below the threshold that end a cluster, as in decide
_FEW = 20  # clusters; with fewer above the threshold a lower one is looked at
_NINES = tuple(step / 2 for step in range(1, 13))
_PERIOD_S = 60.0  # a detector for any period is calibrated as if for one sample a minute
_DAY_S = 86_400.0
_THRESHOLDS = (0.5, 12.0)  # nines; decide's limits


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured on the later span."""

    samples: int
    band_level: float
    coverage: float
    """Share of observed cells inside the band."""
    coverage_worst: float
    """The same for the stream and channel where it is lowest."""
    realised: dict[float, float]
    """From a score in nines to the share of samples at or above it; promised is 10 ** -nines."""
    threshold_nines: float
    """Where decide will put the threshold by default."""
    exceedances_per_alarm: float
    """Samples at or above the threshold in one cluster of them."""
    calibrated_after: int
    """Samples of a stream after which its scores come as often as they say, within a factor of 2."""
    runs: list[Run]

    def figures(self) -> dict[str, Any]:
        """What metadata and metrics say of it."""
        figures = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "runs"}
        return {**figures, "realised": {f"{nines:g}": share for nines, share in self.realised.items()}}


def calibrate(
    detector: Detector,
    series: Sequence[Series],
    settings: TrainSettings,
    progress: Progress,
    step: Step | None = None,
) -> Calibration:
    """Measure the detector, and write what a new stream is to start from into its initial row.

    Args:
        detector: With its weights as they will be.
        series: Streams, each with its cut; what comes after it is counted.
        settings: Of training.
        progress: Told how far it is.
        step: The detector's own, by whoever computes it more quickly than torch.
    """
    detector.eval()
    chosen = choose(series, settings.data.time_zone)
    _learn_priors(detector, chosen, progress.over("calibrating, 1 of 2"), step)  # 1.
    walk = roll(detector, chosen, progress.over("calibrating, 2 of 2"), step)
    runs = [run for block, _ in walk for run in block]  # 2.
    score = np.concatenate([run.score for run in runs])
    threshold, per_alarm = _clusters(runs, settings.decide.budget_per_day, detector.shape.period_s)
    inside = [run.inside for run in runs]
    return Calibration(
        samples=len(score),
        band_level=detector.shape.band_level,
        coverage=_mean(np.concatenate([cells.ravel() for cells in inside])),
        coverage_worst=min(_mean(column) for cells in inside for column in cells.T),
        realised={nines: float(np.mean(score >= nines)) for nines in _NINES},
        threshold_nines=threshold,
        exceedances_per_alarm=per_alarm,
        calibrated_after=CALIBRATED_AFTER,
        runs=runs,
    )


def _learn_priors(detector: Detector, chosen: Sequence[Block], watch: Watch, step: Step | None) -> None:
    """Write pooled statistics of the features into the initial row.

    Where streams began with what another run had learnt, no feature is taken to be steadier than it was there: what a
    few streams did in one stretch is not all that they will do, and young streams would cry wolf.
    """
    begun = detector.fields(detector.initial_row(len(detector.initial_channel))[None])
    channels, single = [], []
    for _, rows in roll(detector, chosen, watch, step):
        known = detector.fields(rows)
        seen = (known["count"] > 0).squeeze(-1)
        channels.append({name: known[name][seen] for name in detector.own.learnt})
        if detector.together:
            alone = seen.sum(dim=1) == 1  # what several targets say together is too unlike from stream to stream
            single.append({name: known[name][alone] for name in detector.together.learnt})
    joint, channel = _pooled(single), _pooled(channels)
    for learnt in (joint, channel):
        for name in learnt:
            if name.endswith("_variance") and (begun[name] != _UNLEARNT).any():
                learnt[name] = learnt[name].maximum(begun[name].squeeze(0))
    detector.set_priors(joint, channel)


def _pooled(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Means over all, and where a mean is pooled, its variance between them added to that within."""
    pooled: dict[str, Tensor] = {}
    for name in parts[0] if parts else ():
        values = torch.cat([part[name] for part in parts])
        if not len(values):
            continue
        pooled[name] = values.mean(dim=0)
        if name.endswith("_variance"):
            pooled[name] += torch.cat([part[name.replace("variance", "mean")] for part in parts]).var(
                dim=0, correction=0
            )
    return pooled


def _clusters(runs: Sequence[Run], budget_per_day: float, period_s: float | None) -> tuple[float, float]:
    """The threshold that decide will begin with, and how many samples reach it in one cluster of them.

    Each depends on the other; from the highest threshold that enough clusters reach, a few rounds settle both.
    """
    per_alarm = 1.0
    for _ in range(10):
        threshold = math.log10(_DAY_S / (period_s or _PERIOD_S) / (budget_per_day * per_alarm))
        threshold = min(max(threshold, _THRESHOLDS[0]), _THRESHOLDS[1])
        counts = (_count(runs, level) for level in np.arange(threshold, 0.0, -0.25))
        exceedances, clusters = next((count for count in counts if count[1] >= _FEW), (1, 1))
        per_alarm = exceedances / clusters
    return threshold, per_alarm


def _count(runs: Sequence[Run], threshold: float) -> tuple[int, int]:
    """Samples at or above a threshold, and clusters of them."""
    places = [np.flatnonzero(run.score >= threshold) for run in runs]
    clusters = sum(1 + int(np.sum(np.diff(place) > _CLUSTER_GAP)) for place in places if len(place))
    return sum(map(len, places)), clusters


def _mean(cells: Float64) -> float:
    """Of what was observed; 1 where nothing was."""
    return float(np.nanmean(cells)) if (~np.isnan(cells)).any() else 1.0
