"""Labelled public suites as cases: `Case` is the unit; each loader takes the user's own copy of the data."""

from __future__ import annotations

from training.evaluate.suites.case import Case, Split, runs

__all__ = ["Case", "Split", "runs"]
