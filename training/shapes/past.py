"""A memory of the last few vectors, newest first, flat in the row: what each slot holds moves on by one a sample."""

from __future__ import annotations

import torch
from torch import Tensor


class Past:
    """The last `length` vectors of `width` floats.

    Args:
        length: Slots.
        width: Floats of a slot.
    """

    def __init__(self, length: int, width: int) -> None:
        self.length, self.width = length, width
        self.size = length * width

    def push(self, new: Tensor, past: Tensor) -> Tensor:
        """Put `new` (M, width) in front of (M, size), and let the oldest go."""
        return torch.cat([new, past[..., : self.size - self.width]], dim=-1) if self.length > 1 else new

    def unroll(self, new: Tensor, past: Tensor) -> Tensor:
        """`push` for T vectors (M, T, width): what the memory held after each of them (M, T, size)."""
        line = torch.cat([self.slots(past).flip(1), new], dim=1)  # oldest first
        windows = line[:, 1:].unfold(1, self.length, 1)  # (M, T, width, length)
        return windows.flip(-1).transpose(-1, -2).flatten(-2)

    def slots(self, past: Tensor) -> Tensor:
        """The same, slot by slot (..., length, width)."""
        return past.unflatten(-1, (self.length, self.width))


def last_of(history: Tensor, lengths: Tensor | None) -> Tensor:
    """Of what there was after each sample (M, T, width), that after each row's own last (M, width)."""
    if lengths is None:
        return history[:, -1]
    where = (lengths - 1).to(history.device)[:, None, None].expand(-1, 1, history.shape[-1])
    return history.gather(1, where).squeeze(1)
