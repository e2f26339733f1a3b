"""The detector's arithmetic, defined once, in torch."""

from __future__ import annotations

from training.graph.detector import Detector, DetectorShape, Prepared, StepOutput

__all__ = ["Detector", "DetectorShape", "Prepared", "StepOutput"]
