"""How long a gradient may be: one steep place must not throw away what many steps have learnt (Pascanu et al. 2013).

    norm     longer than `clip_norm` is scaled down to it: the direction stays
    value    each number is kept within +-`clip_value`: the direction changes, one wild weight costs no other
    auto     by norm, at `clip_usual` times the running norm of the gradients so far: no scale to be guessed
    none     nothing

The share of steps that were cut short is logged: when it is most of them, the rate is too high or the limit too low.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm

from training.settings import FitSettings

_MEMORY = 0.98  # the running norm is one over about fifty steps


class Clip:
    """Cuts gradients short.

    Args:
        settings: How.
    """

    def __init__(self, settings: FitSettings) -> None:
        self._settings = settings
        self.running: float | None = None
        """Running norm of the gradients, for `auto`; kept with the rest of training's state."""

    def __call__(self, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, bool]:
        """Cut the parameters' gradients short.

        Returns:
            The norm that they had before, which need not be finite, and whether they were cut.
        """
        match self._settings.clip:
            case "norm":
                return _by_norm(parameters, self._settings.clip_norm)
            case "value":
                return _by_value(parameters, self._settings.clip_value)
            case "auto":
                return self._by_usual(parameters)
            case _:
                return get_total_norm(_gradients(parameters)), False

    def _by_usual(self, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, bool]:
        longest = torch.inf if self.running is None else self._settings.clip_usual * self.running
        norm, cut = _by_norm(parameters, longest)
        length = min(float(norm), longest)  # as cut, or one wild gradient would open the gate to the next
        self.running = length if self.running is None else _MEMORY * self.running + (1 - _MEMORY) * length
        return norm, cut


def _by_norm(parameters: Sequence[nn.Parameter], longest: float) -> tuple[Tensor, bool]:
    norm = clip_grad_norm_(parameters, longest)
    return norm, bool(norm > longest)


def _by_value(parameters: Sequence[nn.Parameter], largest: float) -> tuple[Tensor, bool]:
    gradients = _gradients(parameters)
    norm, reached = get_total_norm(gradients), max(float(one.abs().max()) for one in gradients)
    clip_grad_value_(parameters, largest)
    return norm, reached > largest


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [one.grad for one in parameters if one.grad is not None]
