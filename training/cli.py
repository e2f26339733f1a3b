"""`tidewarden train`, `compare`, `export`, `evaluate`, `forecast`, `impute`, `label`.

The daemon's command finds them as entry points.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detector.errors import ConfigurationError, InputError
from training.bidirectional.cli import impute, label
from training.compare.cli import compare
from training.evaluate.cli import evaluate
from training.forecast.cli import forecast

__all__ = ["compare", "evaluate", "export", "forecast", "impute", "label", "train"]


def train(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file; docs/training.md lists its keys.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as fit.epochs=5.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder in which the run folder is made; default runs/.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on in a run folder *.broken or *.partial.")
    ] = None,
    look: Annotated[
        bool, typer.Option("--look", help="Only look at the data: gaps, constants, outliers, drift, leakage.")
    ] = False,
    find_learning_rate: Annotated[
        bool, typer.Option("--find-learning-rate", help="Only try learning rates, and propose one.")
    ] = False,
) -> None:
    """Learn from history: leaves a run folder with report and bundle.onnx."""
    from training import run  # imported on use: torch takes seconds, and `--help` must not
    from training.fit.processes import is_first
    from training.progress import Progress
    from training.settings import load

    settings = load(config, overrides or ())
    if output is not None:
        settings = settings.model_copy(update={"output": output})
    with Progress() as progress:
        if look:
            run.look_at(run.read_history(settings, progress), progress)
            return
        if find_learning_rate:
            found, page = run.find_learning_rate(settings, progress)
            progress.says(f"report: {page}")
            typer.echo(f"fit.learning_rate={found.proposed:g}")
            return
        if settings.model.direction == "both":
            from training.bidirectional.run import train as train_both

            if resume is not None:
                hint = "train anew: what reads from both ends takes minutes"
                raise ConfigurationError("--resume", str(resume), expected="direction: forward", got="both", hint=hint)
            typer.echo(train_both(settings, progress))
            return
        folder = run.train(settings, progress, resume)
        if is_first():
            progress.says(f"report: {folder / 'report.html'}")
            typer.echo(folder / "bundle.onnx")


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or its weights.pt.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: bundle.onnx in the run folder.")
    ] = None,
) -> None:
    """Make the bundle of a run again."""
    from training.run import export_weights

    weights = run / "weights.pt" if run.is_dir() else run
    if not weights.exists():
        raise InputError(weights, "no such file", expected="a run folder that `tidewarden train` made")
    typer.echo(export_weights(weights, output or weights.with_name("bundle.onnx")))
