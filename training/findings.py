"""What was found in the data, for people: a table in the terminal, and a section of the report."""

from __future__ import annotations

import html
from collections.abc import Sequence

from rich.table import Table

from training.data.look import Finding
from training.page import scroll, section

_COLUMNS = ("what", "channel", "streams", "worst in", "what is the case", "what to do")
_WIDE = 5  # columns for the terminal, where advice stands below
NOTHING = "nothing: no gaps, constants, outliers, drift or copies worth a word"


def as_table(findings: Sequence[Finding], streams: int) -> Table:
    """For the terminal.

    Args:
        findings: What `look` found.
        streams: How many streams there are.
    """
    table = Table(*_COLUMNS[:_WIDE], box=None, pad_edge=False)
    for cells in _rows(findings, streams):
        table.add_row(*cells[:_WIDE])
    return table


def as_advice(findings: Sequence[Finding]) -> list[str]:
    """What to do about them, a line for each kind."""
    return list(dict.fromkeys(f"{each.kind}: {each.advice}" for each in findings))


def as_section(findings: Sequence[Finding], streams: int) -> str:
    """For the report, as HTML."""
    if not findings:
        return section("Data", f"<p>Looked for what may be wrong with it, and found {html.escape(NOTHING)}.</p>")
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in cells) for cells in _rows(findings, streams))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return section("Data", scroll(f"<table><tr>{head}</tr>{body}</table>", "what was found in the data"))


def _rows(findings: Sequence[Finding], streams: int) -> list[tuple[str, ...]]:
    return [
        (each.kind, each.where, f"{each.streams:,} of {streams:,}", each.worst, each.told, each.advice)
        for each in findings
    ]
