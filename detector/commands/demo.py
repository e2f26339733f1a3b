"""`tidewarden demo`: the whole daemon on a plant whose faults are known; docs/demo.md tells what is to be seen.

Nothing here is a stand-in: the command makes a configuration (source `plant`, the bundle in the box, a `dir`
checkpoint, alerts to a file) and runs the same `App` as `tidewarden run`. What it adds is the screen.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.live import Live

from detector import __version__, logs
from detector.alerts import rfc3339
from detector.app import App
from detector.checkpoint.restore import load as load_checkpoint
from detector.checkpoint.stores import make_store
from detector.clock import SystemClock
from detector.demo.live import Address, AlertFile, Story, event_ns
from detector.demo.plant import Plant
from detector.demo.truth import Truth
from detector.errors import InputError
from detector.records import Shard
from detector.scoring import open_bundle
from detector.settings import Settings, load

_SOURCE = "demo"
_FRAMES_PER_S = 4
_REPORT_S = 10.0  # between two lines of progress where there is no terminal
_LONGEST_S = 80.0  # without a terminal nobody presses Ctrl-C
_BUDGET_PER_DAY = 3.0  # false alarms per pump and day at most: as often as a pump of the plant fails


@dataclass(frozen=True, slots=True)
class Show:
    """What is shown; a checkpoint of another show is of no use."""

    bundle: str
    streams: int
    seed: int
    hours: float
    speed: float
    bundle_sha256: str
    version: str
    is_over: bool = False


StateOption = Annotated[Path, typer.Option(help="Folder for checkpoints and alerts.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what an earlier demo left there.")]
Port = Annotated[int, typer.Option(help="Port of status page and metrics; 0 takes a free one.")]
Speed = Annotated[float, typer.Option(min=1.0, help="Times real speed.")]
Hours = Annotated[float, typer.Option(min=1.0, help="How much of the plant's time is shown.")]
Pumps = Annotated[int, typer.Option(min=1, max=10_000, help="How many pumps there are.")]
Seed = Annotated[int, typer.Option(min=0, help="Which plant.")]
BundleOption = Annotated[str, typer.Option("--bundle", "-b", help="The detector; `default` is the one in the box.")]


def command(
    state: StateOption = Path(".tidewarden-demo"),
    fresh: Fresh = False,
    port: Port = 0,
    speed: Speed = 600.0,
    hours: Hours = 12.0,
    pumps: Pumps = 50,
    seed: Seed = 7,
    bundle: BundleOption = "default",
) -> None:
    """Watch Tidewarden find faults in a synthetic plant.

    Ctrl-C drains; the next start goes on from the checkpoint. Where standard output is no terminal, lines are printed
    and the demo ends by itself.
    """
    opened = open_bundle(bundle)
    show = Show(bundle, pumps, seed, hours, speed, opened.sha256, __version__)
    say = Console(highlight=False, markup=False, soft_wrap=True)
    _make_room(state, show, fresh, say)
    settings = settings_of(show, state, port)
    logs.configure(settings.log)
    demo = _Demo(show, state, App(settings), Story(Truth(Plant(pumps, seed), hours), opened.warm_up), say)
    asyncio.run(demo.run())
    demo.conclude()


def settings_of(show: Show, state: Path, port: int) -> Settings:
    """The configuration that the demo embeds."""
    plant = {"type": "plant", "streams": show.streams, "seed": show.seed, "speed": show.speed, "hours": show.hours}
    embedded: dict[str, Any] = {
        "sources": {_SOURCE: plant},
        "detectors": {"default": {"bundle": show.bundle, "decide": {"budget_per_day": _BUDGET_PER_DAY}}},
        "sinks": {"alerts": {"file": {"type": "file", "path": str(_alerts(state))}}},
        "checkpoint": {"type": "dir", "path": str(state / "checkpoint"), "every_s": 5.0},
        "http": {"host": "127.0.0.1", "port": port},
        "log": {"level": "warning"},
    }
    return load(None, embedded)


def _alerts(state: Path) -> Path:
    return state / "alerts.jsonl"


def _make_room(state: Path, show: Show, fresh: bool, say: Console) -> None:
    """Delete what an earlier demo left, where it cannot be continued, and say why."""
    earlier = _read(state)
    if earlier is None or earlier == show:
        reason = "forgetting the earlier demo" if fresh and earlier else ""
    else:
        reason = "the earlier demo had come to its end" if earlier.is_over else "the earlier demo was another one"
    if reason:
        say.print(f"{reason}: starting anew")
        shutil.rmtree(state / "checkpoint", ignore_errors=True)
        _alerts(state).unlink(missing_ok=True)
    _write(state, show)


def _read(state: Path) -> Show | None:
    try:
        return msgspec.json.decode((state / "demo.json").read_bytes(), type=Show)
    except (OSError, msgspec.MsgspecError):
        return None


def _write(state: Path, show: Show) -> None:
    try:
        state.mkdir(parents=True, exist_ok=True)
        (state / ".gitignore").write_text("*\n")  # wherever somebody tries it, their repository stays as it was
        (state / "demo.json").write_bytes(msgspec.json.encode(show))
    except OSError as error:
        raise InputError(state, "cannot be written", hint="name another folder with --state") from error


class _Demo:
    """The daemon and the screen, side by side."""

    def __init__(self, show: Show, state: Path, app: App, story: Story, say: Console) -> None:
        self._show, self._state, self._app, self._story, self._say = show, state, app, story, say
        self._clock = SystemClock()
        self._begun_s = self._clock.monotonic_s()
        self._file = AlertFile(_alerts(state))
        self._is_told = False

    async def _take_up(self) -> None:
        """Take note of what an earlier start left, and say where this one goes on."""
        for alert in self._file.new():
            self._story.learn(alert)
        loaded = await load_checkpoint(make_store(self._app.settings.checkpoint), Shard("plant", _SOURCE, 0))
        if loaded is None or not loaded.manifest.position:
            return
        manifest = loaded.manifest
        self._story.samples_before = manifest.position
        self._say.print(
            f"continuing from the checkpoint of {manifest.created}: position {manifest.position:,}, "
            f"plant time {rfc3339(manifest.highest_event_ns)}, {sum(len(rows.streams) for rows in loaded.arenas)} "
            f"streams, {self._story.anomalies} anomalies so far"
        )

    async def run(self) -> None:
        """Show until the daemon ends."""
        await self._take_up()
        daemon = asyncio.create_task(self._app.run(), name="daemon")
        try:
            await (self._paint(daemon) if self._say.is_terminal else self._report(daemon))
        finally:
            await daemon  # its failure, if any, is ours

    async def _paint(self, daemon: asyncio.Task[None]) -> None:
        """The live view."""
        heading = f"{self._show.streams} pumps, {self._show.hours:g} hours at {self._show.speed:g} times real speed"
        with Live(console=self._say, auto_refresh=False, screen=False, transient=True) as live:
            while not daemon.done():
                self._tell_start(live.console.print)
                self._learn(lambda _: None)
                live.update(self._story.screen(self._status, self._now_s, self._address, heading), refresh=True)
                await asyncio.wait([daemon], timeout=1 / _FRAMES_PER_S)

    async def _report(self, daemon: asyncio.Task[None]) -> None:
        """Lines, for a pipe or a log."""
        next_s = self._now_s
        while not daemon.done():
            self._tell_start(self._say.print)
            self._learn(self._say.print)
            if self._is_told and self._now_s >= next_s:
                self._say.print(self._story.progress(self._status, self._now_s))
                next_s = self._now_s + _REPORT_S
            if self._now_s - self._begun_s > _LONGEST_S:
                self._app.drain()
            await asyncio.wait([daemon], timeout=1 / _FRAMES_PER_S)

    def _tell_start(self, say: Callable[[str], None]) -> None:
        """Once the shard is restored: where one can look."""
        shard = next(iter(self._status.shards.values()), None)
        if self._is_told or shard is None or not shard.is_restored:
            return
        self._is_told = True
        say(f"status page {self._address}/   metrics {self._address}/metrics")

    def _learn(self, say: Callable[[str], None]) -> None:
        for alert in self._file.new():
            if line := self._story.learn(alert):
                say(line)

    def conclude(self) -> None:
        """Say what was found, and whether there is more to come."""
        self._learn(lambda _: None)
        until_ns = event_ns(self._status)
        if self._status.is_draining:
            self._say.print(f"drained; the next start goes on from the checkpoint in {self._state}")
        else:
            _write(self._state, replace(self._show, is_over=True))
            until_ns = self._story.truth.plant.start_ns + round(self._show.hours * 3.6e12)
        self._say.print(self._story.ending(until_ns))
        self._say.print(self._story.so_far(until_ns))

    @property
    def _status(self) -> Any:
        return self._app.telemetry.status

    @property
    def _now_s(self) -> float:
        return self._clock.monotonic_s()

    @property
    def _address(self) -> Address:
        http = self._app.settings.http
        return Address(http.host, self._app.server.port if self._app.server else http.port)
