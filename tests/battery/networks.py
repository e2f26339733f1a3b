"""Which networks go through the battery: every cell, every shape, every option that changes what `step` computes."""

from __future__ import annotations

import torch
from torch import Tensor

from training.cells import CELLS, Network
from training.shapes import SHAPES, Architecture, build

INPUTS, HIDDEN = 5, 8
GAPS = slice(2, 3)
"""Which input says how long the sample was waited for."""

_SMALL = {"reach": 4, "memory": 5, "every": 3, "heads": 2}
_OPTIONS = {
    "deep": Architecture(layers=3, hidden=HIDDEN, residual=True, norm="layer"),
    "deep-lstm-batch-norm": Architecture(cell="lstm", layers=2, hidden=HIDDEN, norm="batch"),
    "zoneout": Architecture(cell="lstm", hidden=HIDDEN, zoneout=0.1),
    "decay": Architecture(hidden=HIDDEN, decay=True),
}


def _shaped(shape: str) -> Architecture:
    small = {key: value for key, value in _SMALL.items() if key in SHAPES[shape].uses}
    return Architecture(shape=shape, hidden=HIDDEN, **small)


NETWORKS = {
    **{cell: Architecture(cell=cell, hidden=HIDDEN) for cell in CELLS},
    **{shape: _shaped(shape) for shape in SHAPES if shape != "stack"},
    **_OPTIONS,
}
"""Every network by the name that the battery's table uses."""


def made(asked: Architecture, *, std: float = 0.4) -> Network:
    """A network with weights that do something; the same each time."""
    torch.manual_seed(4)
    network = build(asked, INPUTS, GAPS).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=std)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm1d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
    return network


def samples(*shape: int, seed: int = 5) -> Tensor:
    """Inputs (..., INPUTS) between -1 and 1; the gap between 0 and 1, as the forecaster says it."""
    x = torch.rand(*shape, INPUTS, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    x[..., GAPS] = x[..., GAPS].abs()
    return x


def stepped(network: Network, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The plain way through (M, T, INPUTS): outputs (M, T, width) and states (M, T, state_width)."""
    states = []
    for sample in x.unbind(dim=1):
        state = network.step(sample, state)
        states.append(state)
    history = torch.stack(states, dim=1)
    return network.output(history), history


def lived(network: Network, rows: int) -> Tensor:
    """States (rows, state_width) of streams that have been somewhere."""
    with torch.no_grad():
        return stepped(network, samples(rows, 7, seed=6), torch.zeros(rows, network.state_width))[1][:, -1].clone()
