"""Layers on top of each other, each taking what the one below says, and what may stand between two of them.

    residual     y = x + layer(x), from the second on: He et al. 2016; gradients find a way past each layer
    layer norm   each layer hears its input in units of its own spread: Ba et al. 2016
    batch norm   the same by the batch's, for each unit; in use by running figures: Ioffe and Szegedy 2015
    dropout      in training, inputs of upper layers are left out by chance: Zaremba et al. 2014
    variational  the same ones for a whole chunk: Gal and Ghahramani 2016

After training, dropout is gone and batch normalisation is a fixed scale for each unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from training.cells import Network
from training.shapes.base import Architecture, cells_of, register


class Stack(Network):
    """Networks, each of which takes what the one below says; state = theirs, bottom first.

    Args:
        layers: Bottom first; all of the same output width where `residual`.
        asked: What stands between them.
    """

    def __init__(self, layers: Sequence[Network], asked: Architecture) -> None:
        super().__init__(layers[0].inputs, layers[-1].width, sum(layer.state_width for layer in layers))
        self._widths = [layer.state_width for layer in layers]
        self.layers = nn.ModuleList(layers)
        norm = {"none": nn.Identity, "layer": nn.LayerNorm, "batch": BatchNorm}[asked.norm]
        self.norms = nn.ModuleList([nn.Identity(), *(norm(layer.inputs) for layer in layers[1:])])
        self.residual, self.rate, self.variational = asked.residual, asked.dropout, asked.variational
        self.register_load_state_dict_pre_hook(_rename)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample."""
        states: list[Tensor] = []
        for layer, norm, before in zip(self.layers, self.norms, state.split(self._widths, dim=-1), strict=True):
            states.append(layer.step(norm(x), before))
            said = layer.output(states[-1])
            x = x + said if self.residual and len(states) > 1 else said
        return torch.cat(states, dim=-1)

    def output(self, state: Tensor) -> Tensor:
        """What the top layer says; with residual connections, the sum of what all say."""
        said = list(zip(self.layers, state.split(self._widths, dim=-1), strict=True))
        outputs = [layer.output(part) for layer, part in (said if self.residual else said[-1:])]
        return torch.stack(outputs).sum(dim=0) if self.residual else outputs[0]

    def unroll(self, x: Tensor, state: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T samples, layer by layer."""
        states: list[Tensor] = []
        for layer, norm, before in zip(self.layers, self.norms, state.split(self._widths, dim=-1), strict=True):
            given = norm(x, lengths) if isinstance(norm, BatchNorm) else norm(x)
            said, after = layer.unroll(self._drop(given) if states else given, before, lengths)
            states.append(after)
            x = x + said if self.residual and len(states) > 1 else said
        return x, torch.cat(states, dim=-1)

    def _drop(self, x: Tensor) -> Tensor:
        if not (self.training and self.rate):
            return x
        return x * dropout(torch.ones_like(x[:, :1]), self.rate) if self.variational else dropout(x, self.rate)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over rows and samples, of those that count."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalise the last axis of (M, width) or (M, T, width); what lies past a row's length becomes 0."""
        if lengths is None:
            return super().forward(x.flatten(0, -2)).reshape(x.shape)
        counted = torch.arange(x.shape[1], device=x.device) < lengths.to(x.device)[:, None]
        said = torch.zeros_like(x)
        said[counted] = super().forward(x[counted])
        return said


def _rename(_: nn.Module, weights: dict[str, Tensor], prefix: str, *__: object) -> None:
    """Take the weights of earlier versions, which had one kernel of torch for all layers."""
    for name in [name for name in weights if name.startswith(f"{prefix}kernel.")]:
        kind, _, layer = name.removeprefix(f"{prefix}kernel.").rpartition("_l")
        weights[f"{prefix}layers.{layer}.kernel.{kind}_l0"] = weights.pop(name)


def stack(asked: Architecture, layers: Sequence[Network]) -> Network:
    """Put layers on top of each other; one alone stays what it is."""
    return Stack(layers, asked) if len(layers) > 1 else layers[0]


def _stack(asked: Architecture, inputs: int, gaps: slice) -> Network:
    return stack(asked, cells_of(asked, inputs, gaps))


register("stack", _stack, "cell", "between", "decay")
