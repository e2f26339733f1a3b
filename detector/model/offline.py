"""What can never stream: a run that reads history from both ends (`model.direction: both`).

Its weights carry a mark, so that whoever is given them for a bundle says why that cannot be, and what to do instead.
"""

from __future__ import annotations

from pathlib import Path

from detector.errors import BundleError

MARK = "tidewarden: reads history from both ends"
"""Stands in the weights of such a run."""


def check_streams(path: Path) -> None:
    """Refuse a run folder, or its weights, that reads history from both ends.

    Raises:
        BundleError: with the reason.
    """
    if is_offline(path):
        raise BundleError(
            path,
            "cannot stream",
            expected="a bundle, which forecasts a sample from those before it",
            got="a run that reads history from both ends: it would have to wait for samples that are yet to come",
            hint="use it with `tidewarden impute` or `label`; for a stream, train with model.direction: forward",
        )


def is_offline(path: Path) -> bool:
    """Whether a path is such a run's, or its weights."""
    weights = path / "weights.pt" if path.is_dir() else path
    try:
        return MARK.encode() in weights.read_bytes()
    except OSError:  # whoever reads it next says so better
        return False
