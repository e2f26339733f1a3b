"""How weights start: functions by name, for `model.initial`, in any order and number.

    xavier      matrices of the input keep the variance of what goes through: Glorot and Bengio 2010
    he          the same for rectifiers: He et al. 2015
    orthogonal  recurrent matrices turn and do not stretch: Saxe et al. 2014
    identity    recurrent matrices change nothing at first, biases are 0: Le, Jaitly and Hinton 2015 (IRNN)
    forget      gates that keep start open, with bias 1: Jozefowicz et al. 2015
    chrono      they keep for 1 to 100 samples, unit by unit, evenly: Tallec and Ollivier 2018

Without any, torch's own: uniform within 1 / sqrt(hidden).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from training.cells.base import Cell, Network

_LONGEST = 100  # samples: T of the paper


def xavier(network: Network) -> None:
    """Input matrices, gate by gate, and those of feed-forward layers."""
    for matrix in _inputs(network):
        nn.init.xavier_uniform_(matrix)


def he(network: Network) -> None:
    """Input matrices, gate by gate, and those of feed-forward layers."""
    for matrix in _inputs(network):
        nn.init.kaiming_uniform_(matrix, nonlinearity="relu")


def orthogonal(network: Network) -> None:
    """Recurrent matrices, gate by gate."""
    for cell in _cells(network):
        for matrix in cell.kernel.weight_hh_l0.split(cell.width):
            nn.init.orthogonal_(matrix)


def identity(network: Network) -> None:
    """Recurrent matrices, gate by gate, and all biases of the cells."""
    for cell in _cells(network):
        for matrix in cell.kernel.weight_hh_l0.split(cell.width):
            nn.init.eye_(matrix)
        nn.init.zeros_(cell.kernel.bias_ih_l0)
        nn.init.zeros_(cell.kernel.bias_hh_l0)


def forget(network: Network) -> None:
    """The bias of each gate that keeps; torch has two, whose sum counts."""
    for cell in _cells(network):
        if cell.keeps is not None:
            _set_bias(cell, cell.keeps, torch.ones(cell.width))


def chrono(network: Network) -> None:
    """A bias of log(t - 1) keeps for about t samples; a gate that writes gets the opposite."""
    for cell in _cells(network):
        bias = torch.empty(cell.width).uniform_(1.0, _LONGEST - 1.0).log()
        if cell.keeps is not None:
            _set_bias(cell, cell.keeps, bias)
        if cell.writes is not None:
            _set_bias(cell, cell.writes, -bias)


INITIALS: dict[str, Callable[[Network], None]] = {
    one.__name__: one for one in (xavier, he, orthogonal, identity, forget, chrono)
}
"""Every way to start, by the name that configuration uses."""


def _cells(network: Network) -> list[Cell]:
    return [part for part in network.modules() if isinstance(part, Cell)]


def _inputs(network: Network) -> list[Tensor]:
    gates = chain.from_iterable(cell.kernel.weight_ih_l0.split(cell.width) for cell in _cells(network))
    return [*gates, *(part.weight for part in network.modules() if isinstance(part, nn.Linear))]


def _set_bias(cell: Cell, gate: int, bias: Tensor) -> None:
    part = slice(gate * cell.width, (gate + 1) * cell.width)
    with torch.no_grad():
        cell.kernel.bias_ih_l0[part] = bias
        cell.kernel.bias_hh_l0[part] = 0.0
