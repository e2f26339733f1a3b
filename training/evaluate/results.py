"""What an evaluation found: per suite its cases, one line of the table per method, and what could not be measured.

`run.py` fills it, `tables.py` makes the lines, `report.py` draws it; results.csv is `cases` laid out flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from training.evaluate.measures.bootstrap import Interval
from training.evaluate.suites import Case
from training.evaluate.verdict import Verdict

Kind: TypeAlias = Literal["ours", "floor", "baseline", "published"]
"""ours: the bundle. floor: what takes three lines. baseline: trained beside ours. published: as its authors say."""

OURS = "tidewarden"
"""Our name in every table."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case under every method."""

    case: Case
    verdict: Verdict
    """Ours, for the plot."""
    measures: Mapping[str, float]
    """Ours, by name; one that is not defined for the case is absent."""
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Method to the same measures, run here: floors, windowed LSTM."""
    published: Mapping[str, float] = field(default_factory=dict)
    """Method to the suite's lead measure on this very series, as its authors state it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a suite's table."""

    method: str
    kind: Kind
    figures: Mapping[str, Interval]
    """By measure; low and high are NaN where none is known."""
    families: Mapping[str, float] = field(default_factory=dict)
    """Mean of the lead measure by family."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A case that could not be loaded, scored or measured; it costs no other."""

    case: str
    reason: str


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """One suite."""

    suite: str
    lead: str
    """The measure that methods are ranked by."""
    is_higher_better: bool
    cases: tuple[CaseResult, ...]
    rows: tuple[Row, ...]
    """In the order of the table."""
    notes: tuple[str, ...] = ()
    """Printed under the table: dates, what is declared, what the numbers are not."""
    refusals: tuple[Refusal, ...] = ()
