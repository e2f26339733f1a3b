"""The row by its parts, and how a row that one bundle made becomes a row of another.

A bundle's `row_layout` names every float of the row. A new bundle takes over what it knows under the same name, scope,
shape and version, wherever it stands; but `hidden`, which the recurrent cells carry, is noise to any other weights:

    hidden, under another graph       starts from the new bundle's initial row
    known to both, and equal          kept, bit for bit
    known to the new bundle alone     starts from the new bundle's initial row
    known to the old bundle alone,
    or of another shape or version    the layouts are not compatible: parts lean on one another (a mean on its count),
                                      and to keep some of them only would give numbers that never were
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from detector.records import Float32

HIDDEN = "hidden"
"""The part that means nothing without the weights that wrote it; docs/contract.md reserves the name."""


class RowField(msgspec.Struct, frozen=True):
    """One named piece of the row; `offset` counts within its scope."""

    name: str
    scope: Literal["joint", "channel"]
    offset: int
    shape: tuple[int, ...]
    version: int

    @property
    def width(self) -> int:
        """Floats it takes."""
        return math.prod(self.shape)

    @property
    def label(self) -> str:
        """For people: its scope and name."""
        return f"{self.scope}.{self.name}"

    def __str__(self) -> str:
        return f"{self.label}{list(self.shape)} version {self.version}"


class RowLayout(msgspec.Struct, frozen=True):
    """The parts of a bundle's rows, and which weights fill them; a manifest remembers it."""

    graph_sha256: str
    parts: tuple[RowField, ...]

    def width(self, scope: str) -> int:
        """Floats of a scope."""
        return sum(part.width for part in self.parts if part.scope == scope)

    def explain(self, row: Float32, channels: Sequence[str]) -> dict[str, Any]:
        """Name what a row holds: `{"joint": {part: value}, "channels": {channel: {part: value}}}`."""
        blocks = row[self.width("joint") :].reshape(len(channels), self.width("channel"))
        return {
            "joint": self._named("joint", row),
            "channels": {name: self._named("channel", block) for name, block in zip(channels, blocks, strict=True)},
        }

    def _named(self, scope: str, block: Float32) -> dict[str, Any]:
        return {
            part.name: block[part.offset : part.offset + part.width].reshape(part.shape).tolist()
            for part in self.parts
            if part.scope == scope
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a new layout takes over of an old one; labels of parts, in the new row's order."""

    kept: tuple[str, ...]
    fresh: tuple[str, ...]
    """They start from the new bundle's initial row."""
    differing: tuple[str, ...]
    """Parts of the old layout that the new one lacks: with any of these the two are not compatible."""


def compare(old: RowLayout, new: RowLayout) -> Comparison:
    """Say what carries over from rows of `old` to rows of `new`."""
    kept = tuple(part.label for part, _ in _shared(old, new))
    known = {_meaning(part) for part in new.parts}
    return Comparison(
        kept=kept,
        fresh=tuple(part.label for part in new.parts if part.label not in kept),
        differing=tuple(str(part) for part in _lasting(old, new) if _meaning(part) not in known),
    )


def carry_over(rows: Float32, old: RowLayout, new: RowLayout, initial: Float32) -> Float32:
    """Make rows of a new layout out of rows of an old one.

    Args:
        rows: Rows of the old layout, shape (n, S).
        old: Their layout.
        new: The layout to come to.
        initial: The row of a new stream under it, with as many channels, shape (S',).

    Returns:
        Rows of the new layout, shape (n, S').
    """
    made = np.tile(initial, (len(rows), 1))
    channels = (rows.shape[1] - old.width("joint")) // old.width("channel")
    for here, there in _shared(old, new):
        for source, target in zip(_places(there, old, channels), _places(here, new, channels), strict=True):
            made[:, target] = rows[:, source]
    return made


def _shared(old: RowLayout, new: RowLayout) -> Iterator[tuple[RowField, RowField]]:
    """Parts that carry over, as the new layout has them and as the old one."""
    by_meaning = {_meaning(part): part for part in _lasting(old, new)}
    for part in sorted(new.parts, key=lambda part: (part.scope != "joint", part.offset)):
        if _meaning(part) in by_meaning:
            yield part, by_meaning[_meaning(part)]


def _lasting(old: RowLayout, new: RowLayout) -> list[RowField]:
    """Parts of the old layout that mean something under the new weights."""
    return [part for part in old.parts if part.name != HIDDEN or old.graph_sha256 == new.graph_sha256]


def _meaning(part: RowField) -> tuple[object, ...]:
    return part.name, part.scope, part.shape, part.version


def _places(part: RowField, layout: RowLayout, channels: int) -> list[slice]:
    """Where a part stands in the row: once, or once for every channel."""
    if part.scope == "joint":
        return [slice(part.offset, part.offset + part.width)]
    joint, per_channel = layout.width("joint"), layout.width("channel")
    starts = (joint + channel * per_channel + part.offset for channel in range(channels))
    return [slice(start, start + part.width) for start in starts]
