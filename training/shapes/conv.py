"""Recurrent-convolutional networks, and the hybrid of convolution, recurrence and attention.

    conv    a causal convolution over the last k samples, whose features the cells take: Shi et al. 2015 had both in one
    hybrid  the same, and attention to the last cell's own past on top

The convolution sees short shapes at once, the recurrence carries on, attention looks back.
"""

from __future__ import annotations

from training.cells import Network
from training.shapes.attention import Attention
from training.shapes.base import Architecture, cells_of, register
from training.shapes.stack import stack
from training.shapes.window import Window


def _conv(asked: Architecture, inputs: int, _: slice) -> Network:
    return stack(asked, [Window(inputs, asked.hidden, asked.reach), *cells_of(asked, asked.hidden)])


def _hybrid(asked: Architecture, inputs: int, _: slice) -> Network:
    front, back = Window(inputs, asked.hidden, asked.reach), Attention(asked.hidden, asked.hidden, asked.memory)
    return stack(asked, [front, *cells_of(asked, asked.hidden), back])


register("conv", _conv, "cell", "reach", "between")
register("hybrid", _hybrid, "cell", "reach", "memory", "between")
