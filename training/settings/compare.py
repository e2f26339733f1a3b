"""What `tidewarden compare` is told, and which values of a key are worth trying where none are named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from training.settings.base import Count, Positive, Section

WORTH_TRYING: dict[str, tuple[Any, ...]] = {
    "model.layers": (1, 2),
    "model.hidden": (8, 16, 32, 64),
    "model.every": (4, 8, 16),
    "model.reach": (4, 8, 16, 32),
    "model.memory": (8, 16, 32),
    "model.heads": (1, 2, 4),
    "model.dropout": (0.0, 0.1, 0.3),
    "model.zoneout": (0.0, 0.1),
    "model.warm_up": (64, 128, 256),
    "fit.chunk": (32, 64, 128),
    "fit.batch": (16, 32, 64),
    "fit.learning_rate": (1e-3, 3e-3, 1e-2),
    "fit.weight_decay": (0.0, 1e-4, 1e-2),
    "fit.clip_norm": (0.3, 1.0, 3.0),
    "fit.l1": (0.0, 1e-6, 1e-5),
    "fit.l2": (0.0, 1e-5, 1e-4),
}
"""Numbers by key; a key with a few words to choose from, such as model.cell, is tried with all of them."""


class CompareSettings(Section):
    """Everything `tidewarden compare` does beyond the training configuration; kept as compare.yaml for `--resume`."""

    over: dict[str, list[Any]]
    """The values of each key, such as model.hidden; candidates are their combinations."""
    budget_s: Positive
    """Seconds for all of it."""
    jobs: Count
    """Candidates trained at the same time, a core each."""
    again: Annotated[int, Field(ge=0, le=20)] = 2
    """Further trainings of the best candidate, from other seeds: a lead that a seed can make is no lead."""
    labels: str | None = None
    """Column of data.paths that is 1 where something was wrong, else 0."""
    seed: int = 7
    """Of the search, of what is drawn to decide what may be chance, and of faults made for the occasion."""
    output: Path = Path("runs")
    """Folder in which the comparison's folder is made."""
