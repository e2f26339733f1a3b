"""`tidewarden score`: files in, scores out. docs/score.md is its interface, on which others build."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from detector import scoring
from detector.clock import SystemClock
from detector.errors import ConfigurationError
from detector.model.bundle import Bundle
from detector.model.further import ROLES
from detector.settings import DetectorSettings, load

_BAR_AFTER_S = 2.0  # shorter work needs no bar


class TimeUnit(StrEnum):
    """What a number in the time column counts since 1970."""

    s = "s"
    ms = "ms"
    us = "us"
    ns = "ns"
    iso8601 = "iso8601"


Inputs = Annotated[list[str], typer.Option("--input", "-i", help="CSV or Parquet files, or globs in quotes.")]
More = Annotated[list[str] | None, typer.Argument(help="Further files or globs.", show_default=False)]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where to; .csv or .parquet.")]
BundleOption = Annotated[
    str | None, typer.Option("--bundle", "-b", help="The detector; by default the one in the box.", show_default=False)
]
Time = Annotated[str | None, typer.Option(help="Time column; by default time, timestamp, ts, date or datetime.")]
Unit = Annotated[TimeUnit | None, typer.Option("--time-unit", help="What a number in the time column counts.")]
Period = Annotated[
    float | None, typer.Option(min=1e-9, help="Seconds between rows without a time column; default the bundle's, or 1.")
]
Stream = Annotated[str | None, typer.Option(help="Stream column; without it each file is one stream.")]
Channels = Annotated[str | None, typer.Option(help="Channels, as A,B,C; by default every numeric column left.")]
Channel = Annotated[
    str | None, typer.Option(help="A row per channel: the column with the channel's name.", show_default=False)
]
Value = Annotated[str, typer.Option(help="A row per channel: the column with the number.")]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration to take a detector's settings from.")
]
DetectorName = Annotated[str | None, typer.Option("--detector", help="Which detector of the configuration.")]
Role = Annotated[
    list[str] | None,
    typer.Option("--role", help="What a channel is, as load=context: target, context or auto. May be given again."),
]
DetailOption = Annotated[bool, typer.Option("--detail", help="Add expected, lower, upper, blame and reason.")]
Threads = Annotated[int, typer.Option(min=1, help="Engines side by side; the output is the same for any number.")]


def command(
    inputs: Inputs,
    output: Output,
    more: More = None,
    bundle: BundleOption = None,
    time: Time = None,
    time_unit: Unit = None,
    period: Period = None,
    stream: Stream = None,
    channels: Channels = None,
    channel: Channel = None,
    value: Value = "value",
    role: Role = None,
    config: Config = None,
    detector: DetectorName = None,
    detail: DetailOption = False,
    threads: Threads = min(8, os.cpu_count() or 1),
) -> None:
    """Score files offline, with the engine that serves.

    One row of output per row of input, in input order. Exit code 1 when a file could not be used; the others are
    scored all the same.
    """
    roles = _roles(role or [])
    settings = _settings(config, detector)
    if roles:
        settings = settings or DetectorSettings()
        settings = settings.model_copy(update={"roles": {**settings.roles, **roles}})
    opened = scoring.open_bundle(bundle or (settings.bundle if settings else "default"))
    columns = scoring.Columns(
        time=time,
        time_unit=None if time_unit is None else time_unit.value,
        stream=stream,
        channels=_channels(channels, settings, opened, is_long=channel is not None),
        channel=channel,
        value=value,
        period_s=period or opened.period_s or 1.0,
    )
    with _Bars() as bars:
        summary = scoring.score_files(
            scoring.engine_factory(opened, settings, name=detector or "default", detail=detail),
            [*inputs, *(more or [])],
            output,
            columns=columns,
            detail=detail,
            threads=threads,
            watcher=bars,
            named=list(roles),
        )
    _tell(summary, output)
    if summary.errors:
        raise typer.Exit(1)


def _settings(config: Path | None, detector: str | None) -> DetectorSettings | None:
    """The detector that the configuration and `--detector` name; None where there is no configuration."""
    if config is None:
        if detector is not None:
            raise ConfigurationError("--detector", "needs --config", got=detector)
        return None
    detectors = load(config).detectors
    if detector is None and len(detectors) == 1:
        return next(iter(detectors.values()))
    if detector not in detectors:
        raise ConfigurationError("--detector", "no such detector", expected=" or ".join(detectors), got=detector)
    return detectors[detector]


def _roles(given: list[str]) -> dict[str, str]:
    """What `--role` says: channel to role."""
    roles = {}
    for each in given:
        channel, _, role = each.rpartition("=")
        if not channel or role not in ROLES:
            expected = f"CHANNEL={'|'.join(ROLES)}"
            raise ConfigurationError("--role", "a channel and its role", expected=expected, got=each)
        roles[channel] = role
    return roles


def _channels(
    given: str | None, settings: DetectorSettings | None, bundle: Bundle, *, is_long: bool
) -> tuple[str, ...] | None:
    """The channels that were named, or of long tables those declared, as for the daemon's narrow records."""
    if given is not None:
        return tuple(channel.strip() for channel in given.split(","))
    declared = settings.channels if settings is not None else None
    if not is_long:
        return None
    return bundle.channels if declared is None else tuple(declared)


class _Bars(scoring.Watcher):
    """Progress bars that show themselves only when the work takes long."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._begun_s = self._clock.monotonic_s()
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
        self._read, self._score = (self._bars.add_task(what, total=0) for what in ("read", "score"))

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def will_read(self, count: int) -> None:
        self._more(self._read, count)

    def have_read(self, count: int) -> None:
        self._advance(self._read, count)

    def will_score(self, count: int) -> None:
        self._more(self._score, count)

    def have_scored(self, count: int) -> None:
        self._advance(self._score, count)

    def _more(self, task: TaskID, count: int) -> None:
        self._bars.update(task, total=(self._bars.tasks[task].total or 0) + count)

    def _advance(self, task: TaskID, count: int) -> None:
        self._bars.advance(task, count)
        if not self._bars.live.is_started and self._clock.monotonic_s() - self._begun_s > _BAR_AFTER_S:
            self._bars.start()


def _tell(summary: scoring.Summary, output: Path) -> None:
    """The summary, on standard error; faults last, where they are seen."""
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    if summary.files:
        say(
            f"{summary.rows:,} rows, {summary.streams:,} streams, {summary.files:,} files: "
            f"{summary.anomalies:,} anomalies, {sum(summary.rejects.values()):,} rows rejected > {output}"
        )
    for reason, count in summary.rejects.most_common():
        say(f"  {count:,} x {reason.label}: {reason.meaning}")
    for error in summary.errors:
        say(f"error: {error}", style="red", markup=False)
    if summary.errors:
        say(f"{len(summary.errors)} of the inputs left out", style="red")
