"""A Transformer that streams: causal, with a bounded cache of keys and values in the row. Vaswani et al. 2017.

    q, k, v = W norm(x)
    a_j = softmax_j(q_t . k_t-j / sqrt(d) + bias_j),  j = 0 .. memory-1, those that have been; for each head
    x = x + U sum_j a_j v_t-j
    y = x + W_2 relu(W_1 norm(x))

Layers are normalised before each part (Xiong et al. 2020). How long ago a sample was is told by a bias for each head
and age, learnt, as in T5 (Raffel et al. 2020): no absolute position, so a stream may go on for years.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.cells import Network
from training.shapes.base import Architecture, register
from training.shapes.past import Past, last_of
from training.shapes.stack import stack
from training.shapes.window import Window

_NEVER = 1e9  # is taken off the score of a slot that holds nothing yet
_WIDER = 4  # how much wider the layer between is


class Block(Network):
    """One layer; state = keys, values, which slots hold something, and the output.

    Args:
        width: Of what comes in and what goes out.
        heads: Parts of it, which attend each for itself; divides the width.
        memory: Samples that are kept.
    """

    def __init__(self, width: int, heads: int, memory: int) -> None:
        self.past, self.marks = Past(memory, width), Past(memory, 1)
        self._parts = [self.past.size, self.past.size, memory, width]
        super().__init__(width, width, sum(self._parts))
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, _WIDER * width), nn.Linear(_WIDER * width, width)
        self.age = nn.Parameter(torch.zeros(heads, memory))

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample."""
        keys, values, marks, _ = state.split(self._parts, dim=-1)
        query, key, value = self.project(self.before(x)).chunk(3, dim=-1)
        keys, values = self.past.push(key, keys), self.past.push(value, values)
        marks = self.marks.push(torch.ones_like(x[..., :1]), marks)
        return torch.cat([keys, values, marks, self._rest(x, query, keys, values, marks)], dim=-1)

    def unroll(self, x: Tensor, state: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T samples at once."""
        keys, values, marks, _ = state.split(self._parts, dim=-1)
        query, key, value = self.project(self.before(x)).chunk(3, dim=-1)
        keys, values = self.past.unroll(key, keys), self.past.unroll(value, values)
        marks = self.marks.unroll(torch.ones_like(x[..., :1]), marks)
        outputs = self._rest(x, query, keys, values, marks)
        last = [last_of(part, lengths) for part in (keys, values, marks, outputs)]
        return outputs, torch.cat(last, dim=-1)

    def weights(self, query: Tensor, keys: Tensor, marks: Tensor) -> Tensor:
        """How much each slot is heeded (..., heads, memory), newest first."""
        alike = (self._by_head(keys) @ query.unflatten(-1, (self.heads, -1)).unsqueeze(-1)).squeeze(-1)
        alike = alike / (self.width // self.heads) ** 0.5 + self.age
        return torch.softmax(alike + _NEVER * (marks - 1).unsqueeze(-2), dim=-1)

    def _rest(self, x: Tensor, query: Tensor, keys: Tensor, values: Tensor, marks: Tensor) -> Tensor:
        heeded = self.weights(query, keys, marks).unsqueeze(-2) @ self._by_head(values)
        x = x + self.join(heeded.flatten(-3))
        said: Tensor = x + self.narrow(torch.relu(self.wide(self.between(x))))
        return said

    def _by_head(self, past: Tensor) -> Tensor:
        """(..., memory * width) as (..., heads, memory, width of a head)."""
        return self.past.slots(past).unflatten(-1, (self.heads, -1)).transpose(-2, -3)


def _transformer(asked: Architecture, inputs: int, _: slice) -> Network:
    blocks = [Block(asked.hidden, asked.heads, asked.memory) for _ in range(asked.layers)]
    return stack(asked, [Window(inputs, asked.hidden, 1), *blocks])


register("transformer", _transformer, "memory", "heads", "dropout", "variational")
