"""What the detector made of one case, and files of such findings, so that a second run need not compute them again."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from detector.records import Bytes, Float32, Int64

Stored = TypeVar("Stored")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The daemon's own words on one case; T rows. Rows that it refuses have score 0."""

    score: Float32
    """(T,) nines."""
    anomaly: Bytes
    """(T,) 1 from the firing to the closing sample, as `decide` says."""
    opened: Int64
    """(n,) rows at which an anomaly opened."""
    threshold: Float32
    """(T,) nines, in force for the row."""
    channel: int
    """The channel that the next three speak of: the one that the case declares, else the most blamed."""
    expected: Float32
    """(T,) its forecast, raw units; NaN where the row was refused. For plots."""
    lower: Float32
    upper: Float32
    seconds: float
    """Its share, by rows, of the processor's time that scoring took."""


def stored_path(folder: Path, *parts: object) -> Path:
    """Where lies what follows from these alone: bundle, case, settings."""
    key = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
    return folder / f"{key[:32]}.npz"


def store(path: Path, found: Any) -> None:
    """Write a dataclass of arrays and numbers, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(file, **{entry.name: getattr(found, entry.name) for entry in fields(found)})
    partial.replace(path)


def recall(path: Path, kind: type[Stored]) -> Stored | None:
    """Read it; None where there is none, or a damaged or another one, which then counts as absent."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
            return kind(**{name: value if value.ndim else value.item() for name, value in found.items()})
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return None
