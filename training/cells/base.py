"""What every network promises, and what the recurrent ones among them have in common.

A network takes one sample at a time and remembers in a flat vector of `state_width` floats, zeros at first. What it
makes of the samples so far is read off the state alone (`output`), for a forecast is asked for before its sample is
there. `step` is the arithmetic that is exported; `unroll` is the same over many samples, for training. Here it loops
over `step`; a network that knows a faster way overrides it, and the battery proves the two equal, gradients included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn


class Network(nn.Module, ABC):
    """Takes samples and remembers.

    Args:
        inputs: Width of a sample.
        width: Width of the output.
        state_width: Floats of memory per row.
    """

    def __init__(self, inputs: int, width: int, state_width: int) -> None:
        super().__init__()
        self.inputs, self.width, self.state_width = inputs, width, state_width

    @abstractmethod
    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Take one sample (M, inputs) from state (M, state_width) and return the next state."""

    def output(self, state: Tensor) -> Tensor:
        """What a state says (..., width): its last floats, unless a network says otherwise."""
        return state[..., -self.width :]

    def unroll(self, x: Tensor, state: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Take T samples (M, T, inputs) from state (M, state_width), the same as T times `step` within tolerance.

        Args:
            x: Samples; those past a row's length are ignored.
            state: Where each row starts.
            lengths: How many samples each row has, 1 at least, on the CPU; all T where None.

        Returns:
            The output after each sample (M, T, width), undefined past a row's length, and the last state.
        """
        outputs = []
        for t, sample in enumerate(x.unbind(dim=1)):
            after = self.step(sample, state)
            state = after if lengths is None else torch.where((t < lengths).to(x.device)[:, None], after, state)
            outputs.append(self.output(state))
        return torch.stack(outputs, dim=1), state


class Gates(nn.Module):
    """The weights of so many gates, under the names and in the order of torch's recurrent layers.

    Args:
        inputs: Width of a sample.
        hidden: Hidden units.
        count: Gates.
    """

    def __init__(self, inputs: int, hidden: int, count: int) -> None:
        super().__init__()
        rows, bound = count * hidden, hidden**-0.5
        for name, shape in {"weight_ih": (rows, inputs), "weight_hh": (rows, hidden), "bias_ih": (rows,)}.items():
            self.register_parameter(f"{name}_l0", nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))
        self.bias_hh_l0 = nn.Parameter(torch.zeros(rows))

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """As torch's layers list them."""
        return [[self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0]]


class Cell(Network):
    """One recurrent layer of gates: `kernel` holds its weights, stacked gate upon gate as torch has them.

    Args:
        inputs: Width of a sample.
        hidden: Hidden units, and the width of the output.
        kernel: One of torch's recurrent layers, or `Gates` where torch has none.
    """

    vectors: ClassVar[int] = 1
    """Vectors of hidden units that the state holds; the output is the last."""
    keeps: ClassVar[int | None] = None
    """Which gate keeps the memory where it is open: its bias says for how long."""
    writes: ClassVar[int | None] = None
    """Which gate writes into the memory, where that is another one."""

    def __init__(self, inputs: int, hidden: int, kernel: nn.RNNBase | Gates) -> None:
        super().__init__(inputs, hidden, self.vectors * hidden)
        self.kernel = kernel

    def gates(self, x: Tensor, h: Tensor) -> list[Tensor]:
        """W x + U h + b of each gate (M, hidden)."""
        both = torch.cat([x, h], dim=-1)
        w, u, b, c = self.kernel.all_weights[0]
        parts = zip(*(stacked.split(self.width) for stacked in (w, u, b, c)), strict=True)
        return [nn.functional.linear(both, torch.cat([w, u], dim=1), b + c) for w, u, b, c in parts]

    def run_kernel(
        self, x: Tensor, start: Tensor | tuple[Tensor, ...], lengths: Tensor | None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """Call torch's own recurrent layer, packed where rows differ in length."""
        if lengths is None:
            outputs, last = self.kernel(x, start)
            return outputs, last
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        outputs, last = self.kernel(packed, start)
        return nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])[0], last


MakeCell: TypeAlias = Callable[[int, int], Cell]
"""Takes the width of a sample and the number of hidden units."""

CELLS: dict[str, MakeCell] = {}
"""Every cell by the name that configuration uses."""


def register(name: str, make: MakeCell) -> None:
    """Give a cell its name in configurations; each file of this folder does so for its own."""
    CELLS[name] = make
