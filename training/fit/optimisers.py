"""How weights follow gradients: torch's optimisers by name.

Only `adamw` has a weight decay of its own, which shrinks each weight by a share of the learning rate and leaves the
gradient as it is (Loshchilov and Hutter 2019). For the others there is `fit.l2`, which is part of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import nn

from training.settings import FitSettings

_WEIGHT_DECAY = 1e-4  # of adamw, where none is given

Optimiser: TypeAlias = Callable[[Iterable[nn.Parameter], FitSettings], torch.optim.Optimizer]


def optimiser(parameters: Iterable[nn.Parameter], settings: FitSettings) -> torch.optim.Optimizer:
    """The optimiser that a configuration asks for."""
    return OPTIMISERS[settings.optimiser](parameters, settings)


def sgd(parameters: Iterable[nn.Parameter], settings: FitSettings) -> torch.optim.Optimizer:
    """Down the gradient; with `momentum`, down its running sum. Polyak 1964."""
    return torch.optim.SGD(parameters, settings.learning_rate, momentum=settings.momentum)


def rmsprop(parameters: Iterable[nn.Parameter], settings: FitSettings) -> torch.optim.Optimizer:
    """The gradient over the root of its running square. Tieleman and Hinton 2012."""
    return torch.optim.RMSprop(parameters, settings.learning_rate, momentum=settings.momentum)


def adam(parameters: Iterable[nn.Parameter], settings: FitSettings) -> torch.optim.Optimizer:
    """The running gradient over the root of its running square. Kingma and Ba 2015."""
    return torch.optim.Adam(parameters, settings.learning_rate)


def adamw(parameters: Iterable[nn.Parameter], settings: FitSettings) -> torch.optim.Optimizer:
    """Adam, with weight decay apart from the gradient."""
    decay = _WEIGHT_DECAY if settings.weight_decay is None else settings.weight_decay
    return torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=decay)


OPTIMISERS: dict[str, Optimiser] = {"sgd": sgd, "rmsprop": rmsprop, "adam": adam, "adamw": adamw}
"""Every optimiser by the name that configuration uses."""
