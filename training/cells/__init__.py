"""Recurrent cells: one definition each, in two speeds.

A cell carries a hidden state of `state_width` floats per row. `step` is the arithmetic that is exported: explicit
matrix products and gates, which ONNX Runtime runs faster than its own GRU and LSTM operators. `unroll` walks many
samples at once with torch's kernels over the *same* weights, for training; a test proves the two equal within
tolerance.
"""

from __future__ import annotations

from training.cells.base import Cell
from training.cells.gru import Gru
from training.cells.lstm import Lstm

CELLS: dict[str, type[Cell]] = {"gru": Gru, "lstm": Lstm}
"""Every cell by the name that configuration uses; a new cell is one file and one entry here."""

__all__ = ["CELLS", "Cell", "Gru", "Lstm"]
