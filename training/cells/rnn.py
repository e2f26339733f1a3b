"""The vanilla recurrent network: Elman 1990.

    h' = act(W x + U h + b)      act = tanh, max(0, .), or the latter with a slope of 0.01 below zero

Its gradient is multiplied by U and act' at every sample, so it vanishes or explodes over long ways: Bengio et al.
1994. With the rectifier it is the cell of Le, Jaitly and Hinton 2015, which start U as the identity
(`model.initial: [identity]`); the slope of Maas et al. 2013 keeps units from dying.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from training.cells.base import Cell, register

_BOUND = 1e4  # no unit of a sane network gets there; one that grows without end stays finite


def rectify(x: Tensor) -> Tensor:
    """max(0, x), up to a bound."""
    return x.clamp(0.0, _BOUND)


def leak(x: Tensor) -> Tensor:
    """The same, with a slope of 0.01 below zero."""
    return leaky_relu(x).clamp(-_BOUND, _BOUND)


class Rnn(Cell):
    """Elman's network; state = h.

    Args:
        inputs: Width of a sample.
        hidden: Hidden units.
        activation: What makes it nonlinear.
    """

    def __init__(self, inputs: int, hidden: int, activation: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__(inputs, hidden, nn.RNN(inputs, hidden, batch_first=True))
        self.activation = activation

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample."""
        (gate,) = self.gates(x, state)
        return self.activation(gate)

    def unroll(self, x: Tensor, state: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T samples: by torch's kernel for tanh; the others' bound it does not know."""
        if self.activation is not torch.tanh:
            return super().unroll(x, state, lengths)
        outputs, last = self.run_kernel(x, state.unsqueeze(0), lengths)
        return outputs, last[0]


register("rnn", Rnn)
register("rnn-relu", partial(Rnn, activation=rectify))
register("rnn-leaky", partial(Rnn, activation=leak))
