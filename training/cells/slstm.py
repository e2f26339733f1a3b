"""sLSTM, the scalar memory of xLSTM: Beck et al. 2024, equations 8 to 17.

    i = exp(i~),  f = sigmoid(f~),  o = sigmoid(o~),  z = tanh(z~)      each ~ is W x + U h + b
    c' = f c + i z                     memory
    n' = f n + i                       normaliser: how much has been written
    h' = o c' / n'

A sample may so outweigh all before it, which the gates of an LSTM cannot let it. Exponents overflow, hence the
stabiliser of equation 15: c and n are kept times exp(-m), which h does not notice.

    m' = max(log f + m, i~)
    i becomes exp(i~ - m'),  f becomes exp(log f + m - m')
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.cells.base import Cell, Gates, register

_LEAST = 1e-30  # of a normaliser: 0 before the first sample, when c is 0 as well


class Slstm(Cell):
    """sLSTM; state = c, n, m, h. The gates stand in the order i, f, z, o, as in an LSTM."""

    vectors, keeps, writes = 4, 1, 0

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, Gates(inputs, hidden, 4))

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample."""
        c, n, m, h = state.chunk(4, dim=-1)
        i, f, z, o = self.gates(x, h)
        kept = _log_sigmoid(f) + m
        m = torch.maximum(kept, i)
        i, f = torch.exp(i - m), torch.exp(kept - m)
        c, n = f * c + i * torch.tanh(z), f * n + i
        return torch.cat([c, n, m, torch.sigmoid(o) * c / n.clamp(min=_LEAST)], dim=-1)


def _log_sigmoid(x: Tensor) -> Tensor:
    """-log(1 + exp(-x)) by the one logarithm whose bits do not depend on the wave in ONNX Runtime."""
    return -torch.logsumexp(nn.functional.pad(-x.unsqueeze(-1), (1, 0)), dim=-1)


register("slstm", Slstm)
