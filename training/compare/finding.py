"""What came of one candidate, as one small file: written whole or not at all, and taken as it is by `--resume`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

Numbers: TypeAlias = list[float | None]
"""A curve; None where there is nothing."""
Role: TypeAlias = Literal["floor", "candidate", "again"]
"""floor: not trained at all. candidate: what is compared. again: the best one from another seed, for chance."""


class Learnt(msgspec.Struct, frozen=True):
    """An epoch, and when it was over."""

    spent_s: float
    """Seconds of the processor since training began."""
    train_loss: float
    validation_loss: float
    gradient_norm: float
    """Median over the steps, before clipping."""


class Watched(msgspec.Struct, frozen=True):
    """What came of one labelled stream."""

    name: str
    vus_pr: float | None
    """None where nothing was wrong with it, or all of it."""
    events: int
    delays: list[int]
    """Samples from the begin of each event that was found to its first alarm."""
    false_alarms: int
    clean: int
    """Samples in which an alarm would be false."""
    clean_days: float | None
    reached: dict[str, int]
    """Of the clean samples, how many reach a score, by nines."""


class Drawn(msgspec.Struct, frozen=True):
    """A stretch of one stream, the same for every candidate."""

    stream: str
    channel: str
    time_ms: list[int]
    observed: Numbers
    expected: Numbers
    lower: Numbers
    upper: Numbers
    score: Numbers
    threshold: Numbers
    wrong: list[tuple[int, int]]
    """Samples of each event, end exclusive."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate."""

    number: int
    role: Role
    values: dict[str, Any]
    """What it is, by key."""
    seed: int
    label: str
    state: Literal["done", "pruned", "failed"]
    reason: str = ""
    """Why it is not done."""
    data_sha256: str = ""
    epochs: list[Learnt] = []
    loss: float | None = None
    """Forecast loss on the later span."""
    persistence_loss: float | None = None
    losses: list[float] = []
    """The same by stretches of the later span, in the same order for every candidate."""
    coverage: float | None = None
    """Share of the later span's cells inside the band."""
    weights: int = 0
    """Numbers that training learns."""
    bytes_per_stream: int = 0
    """What the daemon keeps of a stream."""
    channels: int = 0
    before_s: float = 0.0
    """Seconds of the processor before training, as the two below."""
    epoch_s: float = 0.0
    """Seconds of an epoch, as estimated before it."""
    fit_s: float = 0.0
    after_s: float = 0.0
    watched: list[Watched] = []
    drawn: Drawn | None = None

    @property
    def spent_s(self) -> float:
        """Seconds of the processor, all in all."""
        return self.before_s + self.fit_s + self.after_s


def save(folder: Path, finding: Finding) -> Path:
    """Write it under its number."""
    path = _path(folder, finding.number)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(finding), indent=1))
    partial.replace(path)
    return path


def recall(folder: Path, number: int) -> Finding | None:
    """Read it; None where there is none or a damaged one, which then counts as absent."""
    try:
        return msgspec.json.decode(_path(folder, number).read_bytes(), type=Finding)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def forget(folder: Path, number: int) -> None:
    """Remove it: the candidate is tried again."""
    _path(folder, number).unlink(missing_ok=True)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:03}.json"


def bundle_path(folder: Path, number: int) -> Path:
    """Where its bundle lies."""
    return folder / f"{number:03}.onnx"
