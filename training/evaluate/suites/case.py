"""The unit of evaluation: one labelled stream, as a detector meets it, and what its labels say."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detector.records import Bytes, Float64, Int64
from training.data.series import refusals
from training.evaluate.measures.events import intervals

Split: TypeAlias = Literal["dev", "validation"]
"""dev: choices may be made in view of it. validation: they may not (split.yaml)."""
Pooled: TypeAlias = Literal["nab", "hits", "points", "events"]
"""The measure of a suite's own community that stands beside VUS-PR: NAB's score, UCR's hit rate, F1 with FAR and MAR
of pooled rows, precision and recall of pooled events."""


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled stream; T rows, C channels."""

    suite: str
    family: str
    """What tables average over, such as UCR or realTweets."""
    name: str
    """Unique within its suite."""
    split: Split
    time_ns: Int64
    """(T,) event times, Unix; made up from the nominal period where the suite has none."""
    values: Float64
    """(T, C) raw units, NaN where missing."""
    labels: Bytes
    """(T,) 1 where the suite says that something is wrong."""
    train: int
    """Rows from the start that the suite declares as training; 0: none."""
    channels: tuple[str, ...]
    period_s: float | None
    """Nominal seconds between rows; None where the suite does not say."""
    windows: tuple[tuple[int, int], ...] = ()
    """Rows of each event or NAB window, end exclusive; empty where the runs of `labels` are the events."""
    begin: int = 0
    """First row that is measured: rows before it are scored and learnt from, and their labels ignored."""
    target: int | None = None
    """The channel that the labels speak of, where the suite declares one."""

    def __len__(self) -> int:
        return len(self.time_ns)

    @property
    def events(self) -> tuple[tuple[int, int], ...]:
        """Rows of each event from `begin` on, end exclusive."""
        told = self.windows or intervals(self.labels)
        return tuple((max(first, self.begin), end) for first, end in told if end > self.begin)

    @property
    def accepted(self) -> NDArray[np.bool_]:
        """(T,) the rows that the daemon would accept: in order of time, finite, something observed."""
        refused: NDArray[np.bool_] = np.any(list(refusals(self.time_ns, self.values).values()), axis=0)
        return ~refused

    @property
    def sha256(self) -> str:
        """A hash of what a detector sees of it: times and values."""
        digest = hashlib.sha256(str(self.values.shape).encode())
        digest.update(self.time_ns.astype("<i8").tobytes())
        digest.update(self.values.astype("<f8").tobytes())
        return digest.hexdigest()
