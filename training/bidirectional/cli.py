"""`tidewarden impute` and `tidewarden label`: what comes of history that is read from both ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

if TYPE_CHECKING:
    from training.bidirectional.files import History
    from training.bidirectional.run import Run

_Run: TypeAlias = Annotated[
    Path, typer.Option("--run", "-r", help="Run folder of `tidewarden train` with model.direction: both.")
]
_Input: TypeAlias = Annotated[Path, typer.Option("--input", "-i", help="History: a CSV or Parquet file.")]
_Plot: TypeAlias = Annotated[Path | None, typer.Option("--plot", help="Draw it as well, on this HTML page.")]
_Time: TypeAlias = Annotated[str | None, typer.Option(help="Time column; default: the run's.")]
_TimeUnit: TypeAlias = Annotated[
    Literal["s", "ms", "us", "ns", "iso8601"] | None,
    typer.Option("--time-unit", help="What its numbers count; default: as in the run."),
]
_Period: TypeAlias = Annotated[
    float | None, typer.Option(min=1e-9, help="Seconds between rows without a time column; default: the run's.")
]
_Stream: TypeAlias = Annotated[str | None, typer.Option(help="Stream column; default: the run's.")]


def impute(
    run: _Run,
    input_: _Input,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file again, filled.")] = Path("imputed.csv"),
    cells: Annotated[
        Path | None, typer.Option("--cells", help="What was filled, with bands; default: OUTPUT-cells.csv.")
    ] = None,
    plot: _Plot = None,
    time: _Time = None,
    time_unit: _TimeUnit = None,
    period: _Period = None,
    stream: _Stream = None,
) -> None:
    """Fill the empty cells of history from what was measured before, after and beside them; offline."""
    from training.bidirectional.impute import fill, write_cells, write_table  # on use: `--help` must not wait for torch
    from training.bidirectional.output import write_filled

    opened, history = _open(run, input_, time, time_unit, period, stream)
    filled = fill(opened, history)
    names = opened.model.shape.channels
    write_table(output, history, filled, names)
    count = write_cells(cells or output.with_name(f"{output.stem}-cells.csv"), filled, names)
    if plot is not None:
        write_filled(plot, f"Filled: {input_.name}", [(one.stream, one.said, one.cells) for one in filled], names)
    typer.echo(f"{count} cells filled; {_left(history)}", err=True)
    typer.echo(output)


def label(
    run: _Run,
    input_: _Input,
    output: Annotated[Path, typer.Option("--output", "-o", help="A row for each of the file's.")] = Path("labels.csv"),
    least: Annotated[float, typer.Option("--nines", min=0.1, help="Label from this score on.")] = 3.0,
    plot: _Plot = None,
    time: _Time = None,
    time_unit: _TimeUnit = None,
    period: _Period = None,
    stream: _Stream = None,
) -> None:
    """Say how strange each sample of history is, going by what came before and after it; offline."""
    from training.bidirectional.judge import judge, write_table
    from training.bidirectional.output import write_labels

    opened, history = _open(run, input_, time, time_unit, period, stream)
    judged = judge(opened, history, least)
    names = opened.model.shape.channels
    count = write_table(output, history, judged, names, least)
    if plot is not None:
        drawn = [(stream_, found.estimate, found.score) for stream_, found in judged]
        write_labels(plot, f"Labelled: {input_.name}", drawn, names, least)
    typer.echo(f"{count} samples labelled; {_left(history)}", err=True)
    typer.echo(output)


def _open(
    run: Path,
    path: Path,
    time: str | None,
    time_unit: Literal["s", "ms", "us", "ns", "iso8601"] | None,
    period: float | None,
    stream: str | None,
) -> tuple[Run, History]:
    from training.bidirectional.files import read_history
    from training.bidirectional.run import open_run

    opened = open_run(run)
    given = {"time": time, "time_unit": time_unit, "period_s": period, "stream": stream}
    data = opened.settings.data.model_copy(update={key: value for key, value in given.items() if value is not None})
    return opened, read_history(path, opened.model.shape.channels, data)


def _left(history: History) -> str:
    return f"rows without a place in the order of time, left as they are: {history.left_out or 'none'}"
