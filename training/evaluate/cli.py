"""`tidewarden evaluate`: measure a bundle on public suites, with floors and published figures beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, cast, get_args

import typer
from rich.console import Console

from detector.errors import ConfigurationError

Split: TypeAlias = Literal["dev", "validation"]
Roles: TypeAlias = Literal["auto", "declared"]

_ALL, _CALIBRATION, _WINDOWED, _OWN = "all", "calibration", "windowed-lstm", "own-training"


def evaluate(
    suite: Annotated[
        list[str],
        typer.Option("--suite", help="Suite, all or calibration; docs/evaluate.md lists them. May be given again."),
    ],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the suite, or the one that holds them all.")
    ] = None,
    bundle: Annotated[str, typer.Option("--bundle", "-b", help="Bundle; default: the one in the box.")] = "default",
    baselines: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="windowed-lstm: train one per series beside ours, on a subset. own-training: train ours on each "
            "series' own training part besides. May be given again.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for results and what a rerun takes.")] = Path(
        "evaluation"
    ),
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes; default: one per core.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="dev or validation; default: both.")] = None,
    only: Annotated[str, typer.Option("--only", help="Pattern of the series' names, such as '*UCR*'.")] = "*",
    budget: Annotated[
        float | None, typer.Option("--budget", min=1e-6, help="Alarms per stream-day; default: the bundle's.")
    ] = None,
    roles: Annotated[
        str, typer.Option("--roles", help="auto, or declared: tell the graph which channel is the target.")
    ] = "auto",
    samples: Annotated[
        int, typer.Option("--samples", min=200, help="Of each stream; for the suite calibration alone.")
    ] = 300_000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute again what an earlier run left.")] = False,
) -> None:
    """Measure a bundle on public suites, with floors and published figures beside it."""
    from detector.scoring import open_bundle  # imported on use: they take seconds, and `--help` must not
    from training.evaluate.output import facts, write
    from training.evaluate.run import Options
    from training.evaluate.run import evaluate as run
    from training.evaluate.suites import SUITES
    from training.evaluate.terminal import console, show
    from training.progress import Progress

    _check("--suite", suite, [*SUITES, _ALL, _CALIBRATION])
    _check("--with", baselines or (), [_WINDOWED, _OWN])
    _check("--split", [split] if split else (), get_args(Split))
    _check("--roles", [roles], get_args(Roles))
    named = [name for name in suite if name != _CALIBRATION]
    if named and data is None:
        expected = "the folder of the suite, or the one that holds them all"
        raise ConfigurationError("--data", "is needed", expected=expected)
    data = data or Path()
    below = [name for name, each in SUITES.items() if each.is_below(data)] if _ALL in suite else []
    options = Options(
        suites=tuple(dict.fromkeys(each for name in named for each in (below if name == _ALL else [name]))),
        data=data,
        bundle=bundle,
        windowed_lstm=_WINDOWED in (baselines or ()),
        own_training=_OWN in (baselines or ()),
        output=output,
        jobs=jobs or os.cpu_count() or 1,
        split=cast(Split | None, split),
        only=only,
        budget_per_day=budget,
        roles=cast(Roles, roles),
        fresh=fresh,
    )
    opened = open_bundle(bundle)
    out, results, known = console(), [], facts(options, opened)
    for name in options.suites:  # told one by one: what was found stays when a later one is interrupted
        with Progress() as progress:
            results += run(replace(options, suites=(name,)), progress)
        show(out, results[-1])
        write(output, results, known)
        out.print(f"report: {output / 'report.html'}", highlight=False, markup=False, soft_wrap=True)
    if _CALIBRATION in suite:
        _calibration(out, opened.path, output, options.jobs, samples)


def _calibration(out: Console, bundle: Path, output: Path, jobs: int, samples: int) -> None:
    """Hold the bundle to its promises, on streams of our own."""
    from training.evaluate.promises import promises, show, write
    from training.progress import Progress

    with Progress() as progress:
        rows = promises(bundle, progress, jobs=jobs, samples=samples)
    show(out, rows)
    write(output / "calibration.csv", rows)


def _check(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a word that is not known, naming those that are."""
    for word in given:
        if word not in known:
            raise ConfigurationError(option, "unknown", expected=f"one of {', '.join(known)}", got=word)
