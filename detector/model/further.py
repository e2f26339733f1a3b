"""Further inputs of a graph: what is said of a stream beside its samples (docs/contract.md).

    learning  (B, 1)  1 learns; 0 leaves what the row knows of normal as it is, for this sample
    role      (B, C)  1 a target, -1 context, 0 auto: found by the graph

A bundle declares those that its graph takes, each with the default that stands where nothing is said. They are always
of rank 2, a row of the wave each; `shape` says how wide: [] one float, [n] so many, ["C"] one for every channel.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from detector.records import Float32

LEARNING, ROLE = "learning", "role"
ROLES = {"auto": 0.0, "target": 1.0, "context": -1.0}
"""What the graph is told for each word of the configuration."""


class Extra(msgspec.Struct, frozen=True):
    """A further input or output, and what an input is where nothing is said."""

    shape: list[int | Literal["C"]]
    """Of one row, at most one axis."""
    type: str
    default: float | None = None

    def width(self, channels: int) -> int:
        """Floats in a row of a stream with so many channels."""
        return math.prod(channels if axis == "C" else axis for axis in self.shape)


KNOWN = {LEARNING: Extra([], "float32", 1.0), ROLE: Extra(["C"], "float32", 0.0)}
"""The further inputs that mean something to the daemon; any other stays at its default."""


def fault_of(name: str, extra: Extra) -> tuple[str, object] | None:
    """What a declared input should be and what it is; None where it is sound."""
    if extra != KNOWN.get(name, extra):
        return str(KNOWN[name]), extra
    if extra.type != "float32":
        return "type float32", extra.type
    if len(extra.shape) > 1 or extra.width(1) < 1:
        return 'shape [], [n] or ["C"]', extra.shape
    if extra.default is None or not math.isfinite(extra.default):
        return "a number as default", extra.default
    return None


class Repeated:
    """One row, as many times as a wave has rows; made for the largest wave so far, so that most waves cost nothing.

    Args:
        row: Shape (width,).
    """

    def __init__(self, row: Float32) -> None:
        self._rows = row[None]

    def rows(self, count: int) -> Float32:
        """The row `count` times, shape (count, width), not to be written to. Safe to call from several threads."""
        rows = self._rows
        if len(rows) < count:
            rows = np.repeat(rows[:1], max(count, 2 * len(rows)), axis=0)
            rows.flags.writeable = False
            self._rows = rows
        return rows[:count]
