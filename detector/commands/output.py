"""What commands share: the option that names the configuration, and how they print.

Tables for people on a terminal, tab-separated lines elsewhere, JSON where it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detector.records import NO_TIME

Config: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML file; without it the environment alone.", show_default=False),
]


def print_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a title; elsewhere than on a terminal the title begins each line."""
    console = Console()
    if not console.is_terminal:
        for row in rows:
            console.out(title, *row, sep="\t", highlight=False)
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)


def say(line: str) -> None:
    """Print a line as it is; on a terminal it is wrapped."""
    console = Console(highlight=False, markup=False)
    console.print(line, soft_wrap=not console.is_terminal)


def print_json(document: Any) -> None:
    """Print a document, indented."""
    Console().out(json.dumps(document, indent=2, ensure_ascii=False), highlight=False)


def utc(event_ns: int) -> str | None:
    """A time as text; None for "never"."""
    return (
        None if event_ns == NO_TIME else datetime.fromtimestamp(event_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    )


def age(created: str, now_ns: int) -> str:
    """How long ago an RFC 3339 time was, in words."""
    seconds = now_ns / 1e9 - datetime.fromisoformat(created).timestamp()
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"
