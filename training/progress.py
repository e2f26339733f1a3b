"""What training says while it works: bars on a terminal, lines elsewhere; on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeVar

from rich import progress
from rich.console import Console
from rich.table import Table

T = TypeVar("T")


class Progress(AbstractContextManager["Progress"]):
    """One display for a whole training; use as a context."""

    def __init__(self, console: Console | None = None) -> None:
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            console=console or Console(stderr=True),
        )

    @classmethod
    def silent(cls) -> Progress:
        """One that nobody sees."""
        return cls(Console(quiet=True))

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def says(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def shows(self, table: Table) -> None:
        """Print a table above the bars."""
        self._bars.console.print(table)

    def over(self, what: str) -> Callable[[Sequence[T]], Iterator[T]]:
        """Give what iterates over a sequence with a bar of that name."""

        def watch(items: Sequence[T]) -> Iterator[T]:
            yield from self._bars.track(items, description=what)

        return watch

    def bar(self, what: str, total: int) -> Callable[[int], None]:
        """Show a bar of that name, and give what moves it on by so much."""
        task = self._bars.add_task(what, total=total)

        def advance(more: int) -> None:
            self._bars.advance(task, more)

        return advance
