"""Gated recurrent unit: Cho et al. 2014, with the reset gate after the product, as cuDNN and torch have it.

    r = sigmoid(W_r x + U_r h + b_r)         reset
    z = sigmoid(W_z x + U_z h + b_z)         keep
    n = tanh(W_n x + b_n + r * (U_n h + c_n))  candidate
    h' = n + z * (h - n)

Torch stacks the three matrices in the order r, z, n.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from training.cells.base import Cell, register


class Gru(Cell):
    """GRU; state = h."""

    keeps = 1

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, nn.GRU(inputs, hidden, batch_first=True))

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample."""
        w, u, b, c = (stacked.chunk(3) for stacked in self.kernel.all_weights[0])
        both = torch.cat([x, state], dim=-1)
        reset = torch.sigmoid(linear(both, torch.cat([w[0], u[0]], dim=1), b[0] + c[0]))
        keep = torch.sigmoid(linear(both, torch.cat([w[1], u[1]], dim=1), b[1] + c[1]))
        candidate = torch.tanh(linear(x, w[2], b[2]) + reset * linear(state, u[2], c[2]))
        return candidate + keep * (state - candidate)

    def unroll(self, x: Tensor, state: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T samples by torch's kernel."""
        outputs, last = self.run_kernel(x, state.unsqueeze(0), lengths)
        return outputs, last[0]


register("gru", Gru)
