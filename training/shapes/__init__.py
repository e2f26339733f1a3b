"""Shapes: how cells and other layers are put together, under the names that `model.shape` knows.

A shape keeps the promise of a cell (training/cells/base.py): flat state in the row, `step`, `unroll`, `output`. So any
of them serves the forecaster, is exported by the same code, and goes through the same battery (tests/battery).
"""

from __future__ import annotations

import importlib
import pkgutil

from training.shapes.base import SHAPES, Architecture, build, check

__all__ = ["SHAPES", "Architecture", "build", "check"]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
