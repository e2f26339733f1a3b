"""Roles: which channels a stream is judged by (*targets*), and which only tell what else goes on (*context*).

Declared roles count; a channel left to itself (`auto`) is a target when enough of its values lay strictly between the
least and the greatest so far: a measurement does, a switch, a command or a constant never. Where no channel qualifies,
those that come nearest do, and a value of exactly 0 or 1, a flag's, comes less near than any other. A study on public
series found roles to matter more than any model (docs/experiments.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.graph.layout import Field
from training.graph.scale import MEMORY, Reading

_ENOUGH = 0.2  # share of values inside from which a channel is a target
_NEARLY = 0.9  # of the largest share in the stream, where none has enough
_NO_FLAG = 0.15  # what a value at the border counts for, unless it is 0 or 1
_LARGEST = 3e38


class Roles(nn.Module):
    """The part of a channel that finds its role."""

    fields = (Field("lowest"), Field("highest"), Field("inside", initial=-1.0))

    def forward(
        self, values: Tensor, reading: Reading, role: Tensor, learning: Tensor, old: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Tell targets from context.

        Args:
            values: (B, C, 1) raw units; finite where known.
            reading: Of the scale.
            role: (B, C, 1) 1 target, -1 context, 0 to be found.
            learning: (B, 1, 1) 0 keeps everything as it is.
            old: The fields before this sample.

        Returns:
            (B, C, 1) 1 for a target, 0 for context, whether observed or not; and the fields after this sample.
        """
        known, first = reading.known, (reading.count < 1).float()
        value = torch.where(known, values, 0.0).clamp(-_LARGEST, _LARGEST).float()
        least, most = (old[name] + first * (value - old[name]) for name in ("lowest", "highest"))
        least, most = torch.minimum(least, value), torch.maximum(most, value)
        inside = ((value > least) & (value < most)).float()
        no_flag = ((value != 0) & (value != 1)).float() * _NO_FLAG
        pace = torch.maximum(learning, first) * (1 / (reading.count + 1)).clamp(min=1 / MEMORY)
        share = old["inside"] + known.float() * pace * (torch.maximum(inside, no_flag) - old["inside"])
        enough = (share.amax(dim=1, keepdim=True) * _NEARLY).clamp(max=_ENOUGH)
        found = (share >= enough).float()
        target = torch.where(role == 0, found, (role > 0).float())
        move = torch.maximum(learning, first)
        return target, {
            "lowest": old["lowest"] + move * (least - old["lowest"]),
            "highest": old["highest"] + move * (most - old["highest"]),
            "inside": share,
        }
