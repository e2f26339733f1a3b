"""`tidewarden compare`: what it is told on the command line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from detector.errors import ConfigurationError

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def compare(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file of `train`; docs/training.md lists its keys.")
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option("--over", metavar="KEY[=VALUE,...]", help="What to compare, such as cell,layers,hidden=16,32."),
    ] = None,
    budget: Annotated[str, typer.Option("--budget", help="For all of it: 90s, 30m, 2h.")] = "30m",
    labels: Annotated[
        str | None, typer.Option("--labels", help="Column that is 1 where something was wrong, else 0.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Candidates at the same time; default: one per core.")
    ] = None,
    again: Annotated[
        int, typer.Option("--again", min=0, max=20, help="Trainings of the best one from other seeds.")
    ] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Of the search, and of faults put in on purpose.")] = 7,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as fit.epochs=60.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the folder is made; default runs/.")
    ] = None,
    interrupted: Annotated[
        Path | None, typer.Option("--resume", metavar="FOLDER", help="Go on with a comparison that was interrupted.")
    ] = None,
) -> None:
    """Train candidates under equal budgets, measure them alike, and recommend one."""
    from training.compare.over import parse  # imported on use: torch takes seconds, and `--help` must not
    from training.compare.run import compare as run
    from training.compare.run import resume
    from training.progress import Progress
    from training.settings import load
    from training.settings.compare import CompareSettings

    if interrupted is not None:
        if config is not None or over:
            raise ConfigurationError("--resume", "stands alone", expected="no -c and no --over", got="both")
        with Progress() as progress:
            folder = resume(interrupted, progress)
    else:
        if config is None:
            raise ConfigurationError("--config", "is needed", expected="the YAML file of `tidewarden train`")
        settings = load(config, overrides or ())
        asked = CompareSettings(
            over=parse(over or ()),
            budget_s=seconds(budget),
            jobs=jobs or os.cpu_count() or 1,
            again=again,
            labels=labels,
            seed=seed,
            output=output or settings.output,
        )
        with Progress() as progress:
            folder = run(settings, asked, progress)
    typer.echo(folder / "report.html")


def seconds(text: str) -> float:
    """A duration such as 90s, 30m or 1.5h. Raises ConfigurationError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)", text.strip())
    value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not value:
        raise ConfigurationError("--budget", "not a duration", expected="such as 90s, 30m or 2h", got=repr(text))
    return value
