"""`tidewarden forecast`: how a stream may go on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from detector.errors import ConfigurationError


def forecast(
    inputs: Annotated[list[str], typer.Option("--input", "-i", help="History: CSV or Parquet files, or globs.")],
    horizon: Annotated[int, typer.Option("--horizon", "-n", min=1, help="Samples ahead.")],
    bundle: Annotated[str, typer.Option("--bundle", "-b", help="Bundle; default: the one in the box.")] = "default",
    output: Annotated[Path, typer.Option("--output", "-o", help="The table of quantiles.")] = Path("forecast.csv"),
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the fans as well, on this HTML page.")] = None,
    paths: Annotated[int, typer.Option("--paths", min=10, help="Trajectories drawn of each stream.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="The same seed draws the same trajectories.")] = 0,
    time: Annotated[str | None, typer.Option(help="Time column; found by its name where it is a usual one.")] = None,
    time_unit: Annotated[
        Literal["s", "ms", "us", "ns", "iso8601"] | None, typer.Option("--time-unit", help="What its numbers count.")
    ] = None,
    period: Annotated[float | None, typer.Option(min=1e-9, help="Seconds between rows without a time column.")] = None,
    stream: Annotated[str | None, typer.Option(help="Stream column; without it each file is one stream.")] = None,
    channels: Annotated[
        str | None, typer.Option(help="Channels, as A,B,C; default: every numeric column left.")
    ] = None,
    zone: Annotated[str, typer.Option("--time-zone", help="Of the plant.")] = "UTC",
) -> None:
    """Say how streams may go on: quantiles of many trajectories, each sampled from forecast to forecast."""
    from collections import Counter  # imported on use, like what follows: `--help` must not wait

    from detector.model.session import Session
    from detector.scoring import open_bundle
    from training.data.files import read_files
    from training.forecast.output import write_page, write_table
    from training.forecast.trajectories import follow
    from training.progress import Progress
    from training.settings import DataSettings

    opened = open_bundle(bundle)
    named = channels.split(",") if channels else list(opened.channels) if opened.channels else None
    if opened.channels and tuple(named or ()) != opened.channels:
        raise ConfigurationError("--channels", expected=f"{','.join(opened.channels)}, as in the bundle", got=channels)
    settings = DataSettings(
        paths=inputs, time=time, time_unit=time_unit, stream=stream, channels=named, period_s=period, time_zone=zone
    )
    rejects: Counter[str] = Counter()
    with Progress() as progress:
        series = read_files(settings, rejects, progress.over("reading"))
        found = follow(Session(opened), series, horizon, paths=paths, zone=zone, seed=seed)
        rows = write_table(output, found)
        if plot is not None:
            write_page(plot, f"The next {horizon} samples", found)
            progress.says(f"fans: {plot}")
        left_out = ", ".join(f"{n} {reason}" for reason, n in rejects.items() if n) or "none"
        progress.says(f"{len(found)} streams, {rows} rows; samples of the history left out: {left_out}")
    typer.echo(output)
