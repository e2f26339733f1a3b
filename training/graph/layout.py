"""Where each field stands in the row: the one place that knows.

The row is `[joint | channel 0 | channel 1 | ...]`; a `Layout` describes the joint part or one channel's part as
named fields in order. Inside the graph a block is split into its fields by one operator and joined again by
another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SAFE_LOG = 16
"""A logarithm of a multiple of so many numbers does not depend on the wave in ONNX Runtime; of other widths it does."""


@dataclass(frozen=True)
class Field:
    """One named piece of memory."""

    name: str
    width: int = 1
    initial: float | tuple[float, ...] = 0.0
    version: int = 1
    """Rises when the meaning changes though the name stays."""


class Layout:
    """The fields of one scope, `joint` or `channel`, in order."""

    def __init__(self, scope: str, fields: list[Field]) -> None:
        self.scope = scope
        self.fields = {field.name: field for field in fields if field.width}
        self.width = sum(self.widths)

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields.values())

    @property
    def widths(self) -> list[int]:
        """Of the fields, in order."""
        return [field.width for field in self]

    def split(self, block: Tensor) -> dict[str, Tensor]:
        """Take a block (..., width) apart; each field keeps the last axis."""
        return dict(zip(self.fields, block.split(self.widths, dim=-1), strict=True))

    def join(self, pieces: Mapping[str, Tensor]) -> Tensor:
        """Put a block together again; `pieces` must hold every field."""
        return torch.cat([pieces[name] for name in self.fields], dim=-1)

    def initial(self) -> Tensor:
        """A new stream's block (width,), before any calibration."""
        return torch.cat(
            [torch.zeros(0), *(torch.tensor(one.initial).expand(one.width) for one in self.fields.values())]
        )

    def offset(self, name: str) -> int:
        """Where a field begins."""
        names = list(self.fields)
        return sum(self.fields[before].width for before in names[: names.index(name)])

    def describe(self) -> list[dict[str, Any]]:
        """The entries of the metadata's `row_layout`."""
        return [
            {
                "name": field.name,
                "scope": self.scope,
                "offset": self.offset(field.name),
                "shape": [] if field.width == 1 else [field.width],
                "version": field.version,
            }
            for field in self.fields.values()
        ]
