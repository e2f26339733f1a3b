"""Long short-term memory: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    i = sigmoid(W_i x + U_i h + b_i  [+ p_i * c])    input
    f = sigmoid(W_f x + U_f h + b_f  [+ p_f * c])    forget
    g = tanh(W_g x + U_g h + b_g)                    candidate
    c' = f * c + i * g
    o = sigmoid(W_o x + U_o h + b_o  [+ p_o * c'])   output
    h' = o * tanh(c')

In brackets the peepholes of Gers and Schmidhuber 2000: gates that see the memory itself. Torch stacks the four
matrices in the order i, f, g, o.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.cells.base import Cell, Gates, register


class Lstm(Cell):
    """LSTM; state = c, h."""

    vectors, keeps, writes = 2, 1, 0

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, nn.LSTM(inputs, hidden, batch_first=True))

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample."""
        c, h = state.chunk(2, dim=-1)
        i, f, g, o = self.gates(x, h)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([c, torch.sigmoid(o) * torch.tanh(c)], dim=-1)

    def unroll(self, x: Tensor, state: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T samples by torch's kernel."""
        c, h = state.unsqueeze(0).chunk(2, dim=-1)
        outputs, (h, c) = self.run_kernel(x, (h.contiguous(), c.contiguous()), lengths)
        return outputs, torch.cat([c[0], h[0]], dim=-1)


class PeepholeLstm(Cell):
    """LSTM with peepholes; state = c, h. Torch has no kernel for it."""

    vectors, keeps, writes = 2, 1, 0

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, Gates(inputs, hidden, 4))
        self.peepholes = nn.Parameter(torch.empty(3, hidden).uniform_(-(hidden**-0.5), hidden**-0.5))

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample."""
        c, h = state.chunk(2, dim=-1)
        i, f, g, o = self.gates(x, h)
        into, over, out = self.peepholes
        c = torch.sigmoid(f + over * c) * c + torch.sigmoid(i + into * c) * torch.tanh(g)
        return torch.cat([c, torch.sigmoid(o + out * c) * torch.tanh(c)], dim=-1)


register("lstm", Lstm)
register("lstm-peephole", PeepholeLstm)
