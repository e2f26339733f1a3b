"""`--suite calibration`: what scores and budgets promise beside what comes, the work shared out by kind."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from detector.model.bundle import read_bundle
from training.evaluate.calibration import Row, calibration_table
from training.evaluate.workers import Crew, advance
from training.progress import Progress
from training.synthetic.stationary import KINDS

_ADVANCE_EVERY = 100  # samples between two words on progress


class _Task(NamedTuple):
    bundle: Path
    kinds: tuple[str, ...]
    seeds: int
    samples: int


def promises(bundle: Path, progress: Progress, *, jobs: int, samples: int, seeds: int = 16) -> list[Row]:
    """Hold a bundle to its promises; kinds of streams walk side by side, dealt to so many processes.

    Args:
        bundle: Its file.
        progress: Shows a bar over the samples.
        jobs: Processes.
        samples: Of each stream.
        seeds: Streams of each kind.

    Returns:
        Kind by kind; the same for any number of processes.
    """
    kinds, jobs = tuple(KINDS), min(jobs, len(KINDS))
    work = [_Task(bundle, kinds[job::jobs], seeds, samples) for job in range(jobs)]
    with Crew(jobs, progress.bar("calibration", samples * jobs)) as crew:
        rows = [row for found in crew.map(_of_kinds, work) for row in found]
    return sorted(rows, key=lambda row: kinds.index(row.kind))  # a sort is stable: promises stay in their order


def _of_kinds(task: _Task) -> list[Row]:
    bundle = read_bundle(task.bundle)
    rows: list[Row] = calibration_table(bundle, task.seeds, task.samples, progress=_watch, kinds=task.kinds)
    return rows


def _watch(samples: Sequence[int]) -> Iterator[int]:
    for sample in samples:
        yield sample
        if (sample + 1) % _ADVANCE_EVERY == 0 or sample + 1 == len(samples):
            advance(sample % _ADVANCE_EVERY + 1)


def show(out: Console, rows: Sequence[Row]) -> None:
    """Print realised over promised, promises down and kinds across; what is not kept stands out."""
    kinds, words = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("kind", "promise"))
    by_place = {(row.promise, row.kind): row for row in rows}
    table = Table(title="calibration: realised over promised", title_justify="left", header_style="bold")
    table.add_column("promise", no_wrap=True)
    for kind in kinds:
        table.add_column(kind.replace("_", " "), justify="right")
    for promise in words:
        table.add_row(promise, *(_cell(by_place.get((promise, kind))) for kind in kinds))
    out.print(table)
    kept = sum(row.is_kept for row in rows)
    out.print(f"  {kept} of {len(rows)} promises kept; a mark: outside its factor of 2 (early: 5)", highlight=False)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row.ratio:.2f}" if row.is_kept else f"[bold red]{row.ratio:.2f} ![/]"


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write them as CSV, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*asdict(rows[0]), "ratio", "is_kept"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(row), "ratio": row.ratio, "is_kept": row.is_kept} for row in rows)
    partial.replace(path)
