"""Recurrent cells: one layer each, a file each, under the names that `model.cell` knows.

A cell carries a hidden state of `state_width` floats per row. `step` is the arithmetic that is exported: explicit
matrix products and gates, which ONNX Runtime runs faster than its own GRU and LSTM operators. `unroll` walks many
samples at once, by torch's kernels over the *same* weights where there is one; tests/battery proves the two equal.

A new cell is one new file here (docs/extending.md): every file is imported, and registers what it holds.
"""

from __future__ import annotations

import importlib
import pkgutil

from training.cells.base import CELLS, Cell, Gates, MakeCell, Network, register

__all__ = ["CELLS", "Cell", "Gates", "MakeCell", "Network", "register"]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
