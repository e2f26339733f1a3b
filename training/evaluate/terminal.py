"""A suite's table on the terminal: methods down, the ranking figure, families and what else is known across."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from training.evaluate.measures.bootstrap import Interval
from training.evaluate.results import OURS, Row, SuiteResult
from training.evaluate.tables import ALARMS

_STYLES = {"ours": "bold green", "floor": "dim", "baseline": "cyan", "published": ""}
_PUBLISHED_SHOWN = 6  # best of the published lines; the files have all
_ALWAYS_SHOWN = ("LSTMAD", "CNN")  # recurrent and convolutional forecasters: what ours is closest to
_PLAIN_WIDTH = 160  # characters where the output is no terminal


def console() -> Console:
    """Standard output, wide enough for a table where it is a file."""
    found = Console()
    return found if found.is_terminal else Console(width=_PLAIN_WIDTH)


def show(out: Console, result: SuiteResult) -> None:
    """Print a suite's table, ours in alarms, the notes and what was refused."""
    if result.rows:
        out.print(_table(result))
    for line in [*_alarms(result.rows), *result.notes]:
        out.print(f"  {line}", highlight=False, markup=False)
    for refusal in result.refusals:
        out.print(f"  not measured: {refusal.case}: {refusal.reason}", style="yellow", highlight=False, markup=False)


def _table(result: SuiteResult) -> Table:
    shown = _shown(result.rows)
    further = [name for row in shown for name in row.figures if name not in (result.lead, *ALARMS)]
    families = dict.fromkeys(name for row in shown for name in row.families)
    families = families if len(families) > 1 else {}
    table = Table(title=f"{result.suite}, ranked by {result.lead}", title_justify="left", header_style="bold")
    table.add_column("method", no_wrap=True)
    table.add_column(f"{result.lead} [95 %]", justify="right", no_wrap=True)
    for name in (*dict.fromkeys(further), *families):
        table.add_column(name, justify="right", overflow="fold")
    for row in shown:
        cells = [_ranged(row.figures.get(result.lead))]
        cells += [number(row.figures[name].mean) if name in row.figures else "" for name in dict.fromkeys(further)]
        cells += [number(row.families[name]) if name in row.families else "" for name in families]
        table.add_row(row.method, *cells, style=_STYLES[row.kind])
    return table


def _shown(rows: Sequence[Row]) -> list[Row]:
    best = [row.method for row in rows if row.kind == "published"][:_PUBLISHED_SHOWN]
    return [row for row in rows if row.kind != "published" or row.method in (*best, *_ALWAYS_SHOWN)]


def _alarms(rows: Sequence[Row]) -> list[str]:
    """One line on what it is like to be called by ours."""
    figures = next((row.figures for row in rows if row.method == OURS), {})
    told = [f"{name} {_ranged(figures[name])}" for name in ALARMS if name in figures]
    return [f"alarms of ours: {', '.join(told)}"] if told else []


def _ranged(figure: Interval | None) -> str:
    if figure is None:
        return ""
    if math.isnan(figure.low):
        return number(figure.mean)
    return f"{number(figure.mean)} [{number(figure.low)}, {number(figure.high)}]"


def number(value: float) -> str:
    """A figure with as many digits as it deserves: shares to the third, others to the first decimal."""
    return f"{value:.3f}" if abs(value) < 2 else f"{value:.1f}"
