"""What an evaluation found: one row per case and method, the tables made of them, and what could not be measured.

`run.py` fills it, `tables.py` averages it, `report.py` draws it; results.csv holds `rows` as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from training.evaluate.suites import Case
from training.evaluate.verdict import Verdict

Kind: TypeAlias = Literal["ours", "floor", "baseline", "published"]
"""ours: the bundle. floor: what takes three lines. baseline: trained beside ours. published: as its authors say."""

OURS = "tidewarden"
"""Name of our method in every table."""


@dataclass(slots=True)
class Row:
    """One case under one method."""

    suite: str
    family: str
    case: str
    split: str
    method: str
    kind: Kind
    samples: int
    channels: int
    measures: dict[str, float] = field(default_factory=dict)
    """By name; higher is better unless tables.py says otherwise. A measure that does not apply is absent."""
    seconds: float | None = None
    """What scoring the case took, where it was measured."""


@dataclass(slots=True)
class TableRow:
    """One line of a table."""

    method: str
    kind: Kind
    cells: dict[str, float]
    """By column; absent where nothing is known."""
    low: float | None = None
    """Ends of the 95 % interval of the column that the table is sorted by; bootstrap over series."""
    high: float | None = None


@dataclass(slots=True)
class Table:
    """A summary over cases: methods down, families or measures across."""

    suite: str
    title: str
    columns: list[str]
    rows: list[TableRow]
    """Best first."""
    note: str = ""
    """What a reader must know to judge it: how many series, what is declared."""


@dataclass(slots=True)
class Refusal:
    """A case that could not be loaded, scored or measured; it costs no other."""

    suite: str
    case: str
    reason: str


@dataclass(slots=True)
class Scored:
    """A case with what ours made of it, for the plots."""

    case: Case
    verdict: Verdict
    measures: dict[str, float]


@dataclass(slots=True)
class Results:
    """All of it."""

    facts: dict[str, Any]
    """Date, command, bundle, hashes, commit, split, budget."""
    tables: list[Table] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
