"""The forecast loss by stretches of the later span: how it varies is what tells a lead from chance.

Stretches are the same samples for every candidate, so that they can be compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from training.data.series import Series
from training.fit.loss import pinball
from training.graph.detector import Detector
from training.settings import TrainSettings
from training.spans import batches, side_by_side, standardise

_STRETCHES = 100  # about so many, all streams together
_SHORTEST = 64  # samples: neighbours are too alike for shorter ones to count apart


@torch.no_grad()
def by_stretch(detector: Detector, series: Sequence[Series], settings: TrainSettings) -> list[float]:
    """Mean loss of each stretch that has anything to forecast, stream by stream."""
    levels = torch.tensor(detector.shape.quantile_levels)
    _, spans = standardise(detector, series, settings.data.time_zone, settings.fit)
    length = max(_SHORTEST, sum(len(one) - one.cut for one in series) // _STRETCHES)
    forecaster, found = detector.forecaster.eval(), list[float]()
    for batch in map(side_by_side, batches(spans, settings.fit.batch)):
        hidden = forecaster.initial_hidden(len(batch.target), batch.target.shape[2])
        quantiles, _ = forecaster.unroll(batch.inputs, batch.query, batch.observed, hidden)
        for lost, counted in zip(pinball(quantiles, batch, levels).sum(dim=-1), batch.counted.sum(dim=-1), strict=True):
            rows = counted > 0  # a lead of another length must not shift the stretches
            count = max(1, int(rows.sum()) // length)
            parts = zip(lost[rows].tensor_split(count), counted[rows].tensor_split(count), strict=True)
            found += [(lost.sum() / counted.sum()).item() for lost, counted in parts if len(lost)]
    return found
