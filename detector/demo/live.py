"""What the demo shows: its story so far, as a live screen on a terminal or as lines elsewhere.

The story is told by the alerts that the daemon wrote to its file, next to the truth about the plant. Reading the file
rather than memory means that what was found before a restart, or a crash, is part of the story too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from detector.demo.plant import Fault
from detector.demo.truth import Truth, total, verdict
from detector.records import Alert, ChannelReading
from detector.status import Status

_ROWS = 14  # anomalies on the screen, newest first
_decode = msgspec.json.Decoder(Alert).decode


@dataclass(frozen=True, slots=True)
class Address:
    """Where the daemon answers."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}"


class AlertFile:
    """Alerts as they are written to a JSON Lines file, each once."""

    def __init__(self, path: Path) -> None:
        self._path, self._read_to = path, 0

    def new(self) -> Iterator[Alert]:
        """Those written since the last call; a line still being written waits for the next."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read_to += len(line)
                yield _decode(line)


@dataclass(slots=True)
class _Anomaly:
    """One row of the screen."""

    fault: Fault | None
    latest: Alert
    strange: Alert
    """The latest that speaks of a strange sample; others tell the time, or that all is well again."""

    def cells(self) -> Iterator[RenderableType]:
        """What the row shows, in the order of the columns."""
        blamed = _blamed(self.strange)
        if self.latest.status == "firing":
            yield Text("firing", style="bold red")
        else:
            yield Text("resolved", style="green")
        yield self.latest.stream
        yield "" if blamed is None else f"{blamed.channel} {blamed.blame:.0%}"
        yield "" if blamed is None else _number(blamed.observed)
        yield "" if blamed is None else f"{_number(blamed.lower)} to {_number(blamed.upper)}"
        yield _time(self.latest.started_at)
        yield _time(self.latest.detected_at)
        yield f"{self.latest.peak_score:.1f}"
        yield Text("false alarm", style="yellow") if self.fault is None else Text(self.fault.kind, style="green")


class Story:
    """The anomalies so far, what each really was, and how far the plant's time has come."""

    def __init__(self, truth: Truth, warm_up: int) -> None:
        self.truth = truth
        self._warm_up = warm_up
        self.samples_before = 0
        """Scored before this process began."""
        self._anomalies: dict[str, _Anomaly] = {}

    def learn(self, alert: Alert) -> str | None:
        """Take note of an alert; a line to print where it opens or closes an anomaly."""
        fault = self.truth.learn(alert)
        anomaly = self._anomalies.setdefault(alert.anomaly_id, _Anomaly(fault, alert, alert))
        anomaly.latest = alert
        if alert.reason in ("threshold", "peak", "blame"):
            anomaly.strange = alert
        return _line(alert, fault) if alert.event in ("open", "close") else None

    @property
    def anomalies(self) -> int:
        """How many there were so far."""
        return len(self._anomalies)

    def warmed_up(self, status: Status) -> float:
        """How far the streams' warm-up has come, 0 to 1, on average."""
        samples = self.samples_before + status.samples
        return min(1.0, samples / max(1, len(self.truth.plant.names) * self._warm_up))

    def progress(self, status: Status, now_s: float) -> str:
        """One line about the machine."""
        streams = sum(shard.streams for shard in status.shards.values())
        firing = sum(shard.open_anomalies for shard in status.shards.values())
        return (
            f"plant time {_clock(event_ns(status))}   {status.record_rate.per_second(now_s):,.0f} samples/s   "
            f"{status.samples:,} samples   {streams} streams   warm-up {self.warmed_up(status):.0%}   {firing} firing"
        )

    def so_far(self, until_ns: int) -> str:
        """One line about how well it went up to a time."""
        return verdict(self.truth.tallies(until_ns), self.truth.false_alarms)

    def screen(self, status: Status, now_s: float, address: Address, heading: str) -> RenderableType:
        """The live view."""
        grid = Table.grid(padding=(0, 1))
        warm_up = self.warmed_up(status)
        grid.add_row("warm-up", ProgressBar(1.0, warm_up, width=30), "done" if warm_up == 1.0 else f"{warm_up:.0%}")
        return Group(
            Text.from_markup(f"[bold]Tidewarden[/bold]  {escape(heading)}"),
            Text(f"status page {address}/   metrics {address}/metrics", style="dim"),
            Text(""),
            Text(self.progress(status, now_s)),
            grid,
            self._table(),
            Text(f"so far: {self.so_far(event_ns(status))}", style="bold"),
            Text("Ctrl-C stops; the next start goes on from here", style="dim"),
        )

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("", "pump", "channel to blame", "observed", "expected", "started", "detected", "peak", "really"):
            table.add_column(column, no_wrap=True)
        newest = sorted(self._anomalies.values(), key=lambda each: each.latest.detected_at, reverse=True)
        for anomaly in newest[:_ROWS]:
            table.add_row(*anomaly.cells())
        return table

    def ending(self, until_ns: int) -> Table:
        """The faults that began before a time, by kind: known, found, how late."""
        tallies = self.truth.tallies(until_ns)
        table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
        table.add_column("kind of fault")
        for column in ("known", "found", "median delay"):
            table.add_column(column, justify="right")
        for tally in [*tallies, total(tallies)]:
            delay = "" if tally.delay_s is None else f"{tally.delay_s / 60:.1f} min"
            style = "bold" if tally.kind == "all" else ""
            table.add_row(tally.kind, str(tally.known), str(tally.found), delay, style=style)
        return table


def _line(alert: Alert, fault: Fault | None) -> str:
    """An anomaly that opens or closes, for logs and pipes."""
    really = "false alarm" if fault is None else f"fault: {fault.kind}"
    if alert.event == "close":
        peak = f"peak {alert.peak_score:.1f} nines"
        return f"{_time(alert.time)} RESOLVED {alert.stream} ({alert.reason}), {peak} [{really}]"
    blamed = _blamed(alert)
    told = "" if blamed is None else (
        f" {blamed.channel} ({blamed.blame:.0%} of the blame): observed {_number(blamed.observed)}, "
        f"expected {_number(blamed.lower)} to {_number(blamed.upper)};"
    )  # fmt: skip
    return (
        f"{_time(alert.time)} FIRING   {alert.stream}{told} {alert.score:.1f} nines, "
        f"started {_time(alert.started_at)}, detected {_time(alert.detected_at)} [{really}]"
    )


def _blamed(alert: Alert) -> ChannelReading | None:
    return max(alert.channels, key=lambda reading: reading.blame, default=None)


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4g}"


def _time(time: str) -> str:
    return time[11:19]


def event_ns(status: Status) -> int:
    """How far the plant's time has come, Unix nanoseconds; 0 before the first sample."""
    return max((0, *(shard.last_event_ns for shard in status.shards.values())))


def _clock(at_ns: int) -> str:
    seconds = max(0, at_ns) // 1_000_000_000 % 86_400
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
