"""What every recurrent cell promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Cell(nn.Module, ABC):
    """A stack of recurrent layers whose whole hidden state is one flat vector per row.

    Args:
        inputs: Width of an input.
        hidden: Hidden units of each layer, and the width of the output.
        layers: Depth of the stack.
    """

    vectors: ClassVar[int]
    """Vectors of hidden units that each layer carries: one for GRU, two for LSTM."""

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.inputs, self.hidden, self.layers = inputs, hidden, layers

    @property
    def state_width(self) -> int:
        """Floats of hidden state per row."""
        return self.vectors * self.layers * self.hidden

    @abstractmethod
    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Take one input (..., inputs) from state (..., state_width) and return the next state."""

    @abstractmethod
    def unroll(self, x: Tensor, state: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Take T inputs (M, T, inputs) from state (M, state_width), the same as T times `step` within tolerance.

        Args:
            x: Inputs; those past a row's length are ignored.
            state: Where each row starts.
            lengths: How many inputs each row has, 1 at least, on the CPU; all T where None.

        Returns:
            The output after each input (M, T, hidden), undefined past a row's length, and the last state.
        """

    def output(self, state: Tensor) -> Tensor:
        """The output (..., hidden) that a state holds: its last vector."""
        return state[..., -self.hidden :]

    def _vectors(self, state: Tensor) -> Tensor:
        """Lay a flat state out as torch's kernels want it: (vectors * layers, M, hidden)."""
        return state.unflatten(-1, (self.vectors * self.layers, self.hidden)).transpose(0, 1).contiguous()


def run_kernel(
    kernel: nn.RNNBase, x: Tensor, start: Tensor | tuple[Tensor, Tensor], lengths: Tensor | None
) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
    """Call one of torch's recurrent kernels, packed where rows differ in length."""
    if lengths is None:
        outputs, last = kernel(x, start)
        return outputs, last
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    outputs, last = kernel(packed, start)
    return nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])[0], last


def flatten_vectors(vectors: Tensor) -> Tensor:
    """Undo `Cell._vectors`: (count, M, hidden) to (M, count * hidden)."""
    return torch.flatten(vectors.transpose(0, 1), start_dim=1)
