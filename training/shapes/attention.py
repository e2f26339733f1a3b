"""Attention of a recurrence to its own past: Luong et al. 2015, score "general", over a bounded memory.

    a_j = softmax_j(h_t . W h_t-j / sqrt(H)),  j = 0 .. k-1, those that have been        how much each is heeded
    y_t = tanh(V [h_t, sum_j a_j h_t-j] + b)

What a recurrence has squeezed out of its state a few samples ago can be looked up again. The weights a are an
explanation: which samples the forecast rests on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.cells import Network
from training.shapes.base import Architecture, cells_of, register
from training.shapes.past import Past, last_of
from training.shapes.stack import Stack, stack

_NEVER = 1e9  # is taken off the score of a slot that holds nothing yet


class Attention(Network):
    """Attends to the last vectors that it was given; state = those, newest first, each followed by a 1.

    Args:
        inputs: Width of such a vector.
        hidden: Width of the output.
        memory: How many are kept.
    """

    def __init__(self, inputs: int, hidden: int, memory: int) -> None:
        super().__init__(inputs, hidden, memory * (inputs + 1))
        self.past = Past(memory, inputs + 1)
        self.query = nn.Linear(inputs, inputs, bias=False)
        self.mix = nn.Linear(2 * inputs, hidden)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One vector."""
        return self.past.push(_marked(x), state)

    def output(self, state: Tensor) -> Tensor:
        """The newest vector and what was remembered at it."""
        newest, slots = state[..., : self.inputs], self.past.slots(state)
        heeded = (self.weights(state).unsqueeze(-2) @ slots[..., : self.inputs]).squeeze(-2)
        return torch.tanh(self.mix(torch.cat([newest, heeded], dim=-1)))

    def weights(self, state: Tensor) -> Tensor:
        """How much each slot is heeded (..., memory), newest first: sums to 1 once there is a vector."""
        slots, query = self.past.slots(state), self.query(state[..., : self.inputs]).unsqueeze(-1)
        alike = (slots[..., : self.inputs] @ query).squeeze(-1) / self.inputs**0.5
        return torch.softmax(alike + _NEVER * (slots[..., self.inputs] - 1), dim=-1)

    def unroll(self, x: Tensor, state: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T vectors at once."""
        seen = self.past.unroll(_marked(x), state)
        return self.output(seen), last_of(seen, lengths)


def heeded_by(network: Network, state: Tensor) -> Tensor | None:
    """How much each sample counts (..., memory), newest first, in a network that ends with attention; None in others.

    Args:
        network: Any.
        state: (..., state_width) before the sample that is forecast. Slots that hold nothing yet count for nothing.
    """
    back = network.layers[-1] if isinstance(network, Stack) else network
    if not isinstance(back, Attention):
        return None
    own = state[..., -back.state_width :]
    return back.weights(own) * back.past.slots(own)[..., -1]


def _marked(x: Tensor) -> Tensor:
    """With a 1 behind each vector: this slot holds one."""
    return nn.functional.pad(x, (0, 1), value=1.0)


def _attention(asked: Architecture, inputs: int, gaps: slice) -> Network:
    return stack(asked, [*cells_of(asked, inputs, gaps), Attention(asked.hidden, asked.hidden, asked.memory)])


register("attention", _attention, "cell", "memory", "between", "decay")
