"""Long short-term memory: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    i = sigmoid(W_i x + U_i h + b_i)    input
    f = sigmoid(W_f x + U_f h + b_f)    forget
    g = tanh(W_g x + U_g h + b_g)       candidate
    o = sigmoid(W_o x + U_o h + b_o)    output
    c' = f * c + i * g
    h' = o * tanh(c')

Torch stacks the four matrices in the order i, f, g, o.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from training.cells.base import Cell, flatten_vectors, run_kernel


class Lstm(Cell):
    """LSTM of any depth; state = the cell vectors of all layers, then their hidden vectors, bottom first."""

    vectors = 2

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__(inputs, hidden, layers)
        self.kernel = nn.LSTM(inputs, hidden, layers, batch_first=True)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample through all layers."""
        vectors = state.split(self.hidden, dim=-1)
        cells, hiddens = [], []
        for layer in range(self.layers):
            c, x = self._layer(layer, x, vectors[layer], vectors[self.layers + layer])
            cells.append(c)
            hiddens.append(x)
        return torch.cat(cells + hiddens, dim=-1)

    def _layer(self, layer: int, x: Tensor, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        w, u, b, d = (stacked.chunk(4) for stacked in self.kernel.all_weights[layer])
        both = torch.cat([x, h], dim=-1)
        i, f, g, o = (linear(both, torch.cat([w[k], u[k]], dim=1), b[k] + d[k]) for k in range(4))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return c, torch.sigmoid(o) * torch.tanh(c)

    def unroll(self, x: Tensor, state: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T samples by torch's kernel."""
        c, h = self._vectors(state).split(self.layers)
        outputs, (h, c) = run_kernel(self.kernel, x, (h.contiguous(), c.contiguous()), lengths)
        return outputs, flatten_vectors(torch.cat([c, h]))
