"""`tidewarden evaluate`: measure a bundle on public suites, with floors and published figures beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from detector.errors import ConfigurationError

_WINDOWED = "windowed-lstm"


def evaluate(
    suite: Annotated[
        list[str],
        typer.Option("--suite", help="Suite, or all, or calibration; docs/evaluate.md lists them. Repeat for several."),
    ],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the suite, or the one that holds them all.")
    ] = None,
    bundle: Annotated[str, typer.Option("--bundle", "-b", help="Bundle; default: the one in the box.")] = "default",
    baselines: Annotated[
        list[str] | None, typer.Option("--with", help="windowed-lstm: train one per series beside ours, on a subset.")
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

    known = [*SUITES, "calibration", "all"]
    for what, names, allowed in (
        ("--suite", suite, known),
        ("--with", baselines or [], [_WINDOWED]),
        ("--split", [split] if split else [], ["dev", "validation"]),
        ("--roles", [roles], ["auto", "declared"]),
    ):
        for name in names:
            if name not in allowed:
                raise ConfigurationError(what, "unknown", expected=f"one of {', '.join(allowed)}", got=name)
    options = Options(
        suites=tuple(SUITES) if "all" in suite else tuple(dict.fromkeys(name for name in suite if name in SUITES)),
        data=data or Path(),
        bundle=bundle,
        windowed_lstm=_WINDOWED in (baselines or []),
        output=output,
        jobs=jobs or os.cpu_count() or 1,
        split=cast(Literal["dev", "validation"] | None, split),
        only=only,
        budget_per_day=budget,
        roles=cast(Literal["auto", "declared"], roles),
        fresh=fresh,
    )
    with Progress() as progress:
        results = run(options, progress)
    out = console()
    for result in results:
        show(out, result)
    write(output, results, facts(options, open_bundle(bundle)))
    out.print(f"report: {output / 'report.html'}", highlight=False, markup=False, soft_wrap=True)
