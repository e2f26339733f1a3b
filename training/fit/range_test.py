"""Which learning rate to take: a sweep from far too low to far too high. Smith 2017, section 3.3.

The rate grows by the same factor at every step of a training that is thrown away afterwards. At first nothing happens,
then the loss falls, then it rises or blows up; the rate to take lies well below the one at which it is lowest. Batches
differ far more than steps do, so each loss is divided by that of the same batch before any training.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import torch

from detector.errors import InputError
from training.data.series import Series
from training.fit.bptt import Bptt
from training.fit.processes import ALONE
from training.fit.records import DivergedError
from training.fit.state import Training
from training.graph.detector import Detector
from training.page import BLUE, ORANGE, page, plot, section
from training.progress import Progress
from training.settings import FitSettings
from training.spans import Span, standardise

_LOWEST, _HIGHEST = 1e-6, 1.0
_STEPS = 240
_SMOOTH = 0.9  # of a step's loss, what is taken from the steps before
_BLOWN = 2.0  # times the lowest loss: from there on nothing is learnt about rates
_BELOW = 5.0  # times that the proposed rate lies below the one of the lowest loss


@dataclass(frozen=True, slots=True)
class Sweep:
    """What became of the loss at each rate."""

    rates: list[float]
    losses: list[float]
    """Shares of the loss before training, smoothed."""

    @property
    def proposed(self) -> float:
        """The rate to take, to two digits."""
        lowest = self.rates[min(range(len(self.losses)), key=self.losses.__getitem__)]
        return float(f"{lowest / _BELOW:.1e}")


def sweep(detector: Detector, series: Sequence[Series], zone: str, settings: FitSettings, progress: Progress) -> Sweep:
    """Try rates; the detector stays as it is.

    Args:
        detector: As it would be trained.
        series: Streams, each with its cut between training and validation span.
        zone: Time zone of the clock features.
        settings: Of training; its schedule plays no part.
        progress: Shows how far it is.

    Raises:
        InputError: nothing was learnt at any rate.
    """
    train, _ = standardise(detector, series, zone, settings, progress.over("standardising"))
    growth = (_HIGHEST / _LOWEST) ** (1 / (_STEPS - 1))
    rates = [_LOWEST * growth**step for step in range(_STEPS)]
    before = list(_losses(detector, train, [0.0] * _STEPS, settings, progress))
    tried = _losses(detector, train, rates, settings, progress)
    losses: list[float] = []
    running = 0.0
    for step, (loss, base) in enumerate(zip(tried, before, strict=False), 1):
        running = _SMOOTH * running + (1 - _SMOOTH) * math.log(loss / base)
        losses.append(math.exp(running / (1 - _SMOOTH**step)))
        if losses[-1] > _BLOWN * min(losses):
            break
    if not losses or min(losses) >= 1:
        raise InputError("data", "nothing was learnt at any rate", expected="a loss that falls", hint="train as it is")
    return Sweep(rates[: len(losses)], losses)


class _Paced(Training):
    """A training whose every step has a rate of its own."""

    def __init__(self, detector: Detector, rates: Sequence[float], settings: FitSettings) -> None:
        super().__init__(copy.deepcopy(detector.forecaster).to(settings.device), settings)
        self._rates = iter(rates)

    def pace(self, share: float) -> None:
        """The next rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = next(self._rates)


def _losses(
    detector: Detector, train: Sequence[Span], rates: Sequence[float], settings: FitSettings, progress: Progress
) -> Iterator[float]:
    """The loss before each step, until it is not finite."""
    levels = torch.tensor(detector.shape.quantile_levels)
    passes = Bptt(_Paced(detector, rates, settings), levels, settings, ALONE)
    epochs = (passes.train(train) for _ in itertools.count())
    steps = itertools.islice(itertools.chain.from_iterable(epochs), len(rates))
    try:
        for _, step in zip(progress.over("trying rates")(rates), steps, strict=False):
            yield step.lost / step.counted
    except DivergedError:
        return


def write_page(path: Path, title: str, found: Sweep) -> None:
    """Draw it: one file that needs nothing else."""
    figure = go.Figure()
    figure.add_scatter(x=found.rates, y=found.losses, line_color=BLUE, name="loss")
    figure.add_scatter(x=[found.proposed] * 2, y=[0, 1], line={"dash": "dot", "color": ORANGE}, name="proposed")
    figure.update_layout(xaxis_title="learning rate", yaxis_title="loss, share of before", xaxis_type="log", height=360)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(title, [section("Loss while the learning rate grows", plot(figure))]), encoding="utf-8")
