"""`tidewarden check`: says what is wrong before anything is started.

    1. The configuration    what `run` would refuse
    2. The bundles          read, run once and self-tested, each detector's
    3. With --connect       the brokers: topics, their partitions, what may be read, and how alert topics keep records

Joins no consumer group and creates nothing, so it may be run beside a daemon that serves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from detector.app import load_detectors
from detector.clock import SystemClock
from detector.commands import memory
from detector.commands.output import Config, print_table
from detector.engine import Detector
from detector.errors import SourceError, TidewardenError
from detector.settings import KafkaSourceSettings, Settings, SinkSettings, SourceSettings, load
from detector.sinks import make_sink
from detector.sources import make_source
from detector.sources.base import Source

Row = tuple[str, ...]


@dataclass(slots=True)
class Report:
    """What was found."""

    rows: list[Row] = field(default_factory=list)
    """Kind, name, verdict, what there is to say."""
    faults: list[TidewardenError] = field(default_factory=list)

    def good(self, kind: str, name: str, detail: str) -> None:
        """A part is as it must be."""
        self.rows.append((kind, name, "ok", detail))

    def bad(self, kind: str, name: str, fault: TidewardenError) -> None:
        """A part is not; the others are still looked at."""
        self.rows.append((kind, name, "FAULT", str(fault)))
        self.faults.append(fault)


def command(
    config: Config = None,
    connect: Annotated[bool, typer.Option("--connect", help="Also ask the brokers and look at the files.")] = False,
) -> None:
    """Check a configuration and its bundles, and with --connect what it connects to."""
    settings = load(config)
    report = Report()
    report.good("configuration", str(config or "environment"), _summary(settings))
    check_bundles(settings, report)
    if connect:
        asyncio.run(check_edges(settings, report))
    print_table("check", ("part", "name", "verdict", "detail"), report.rows)
    if report.faults:
        Console(stderr=True).print(Text(f"error: {len(report.faults)} faults", style="bold red"))
        raise typer.Exit(max(fault.exit_code for fault in report.faults))


def _summary(settings: Settings) -> str:
    sinks = settings.sinks
    counts = {"alerts": sinks.alerts, "scores": sinks.scores, "dead letters": sinks.dead_letters}
    told = ", ".join(f"{kind} to {len(names) or 'no'} sinks" for kind, names in counts.items())
    return f"{len(settings.sources)} sources, {len(settings.detectors)} detectors, {told}"


# Bundles --------------------------------------------------------------------------------------------------------------


def check_bundles(settings: Settings, report: Report) -> None:
    """Load each detector's bundle and let it prove itself."""
    for name, each in settings.detectors.items():
        try:
            (detector,), numerics = load_detectors(settings.model_copy(update={"detectors": {name: each}}))
        except TidewardenError as fault:
            report.bad("detector", name, fault)
        else:
            report.good("detector", name, f"{_described(detector)}; {numerics}")


def _described(detector: Detector) -> str:
    """The bundle, what a stream costs, and what the configuration tells it."""
    bundle, settings = detector.bundle, detector.settings
    names = settings.channels or bundle.channels
    told = [
        bundle.label,
        *([f"profile {profile}"] if (profile := bundle.metadata.get("shape", {}).get("profile")) else []),
        "any channels" if names is None else f"channels {', '.join(names)}",
        f"{bundle.warm_up} samples of warm-up",
        *(f"{memory.stream_bytes(bundle, count):,} bytes a stream of {count}" for count in _counts(names)),
        *(f"{channel} is {role}" for channel, role in settings.roles.items()),
        *(f"{rule.stream} frozen from {rule.begin}" for rule in settings.freeze),
    ]
    return ", ".join(told)


def _counts(names: Sequence[str] | None) -> Sequence[int]:
    """For how many channels to tell what a stream costs."""
    return (1, 5) if names is None else (len(names),)


# Edges ----------------------------------------------------------------------------------------------------------------


async def check_edges(settings: Settings, report: Report) -> None:
    """Start and stop every source and sink."""
    for name, source in settings.sources.items():
        await _told(report, "source", name, _look_at_source(name, source))
    for kind, sinks in (("alerts", settings.sinks.alerts), ("scores", settings.sinks.scores)):
        for name, sink in sinks.items():
            await _told(report, f"{kind} sink", name, _look_at_sink(name, sink))
    for name, sink in settings.sinks.dead_letters.items():
        await _told(report, "dead letter sink", name, _look_at_sink(name, sink))


async def _told(report: Report, kind: str, name: str, look: Coroutine[Any, Any, str]) -> None:
    try:
        report.good(kind, name, await look)
    except TidewardenError as fault:
        report.bad(kind, name, fault)


async def _look_at_sink(name: str, settings: SinkSettings) -> str:
    sink = make_sink(name, settings)
    try:
        await sink.start()
        return sink.guarantee
    finally:
        await sink.stop()


async def _look_at_source(name: str, settings: SourceSettings) -> str:
    """What each topic or file of the source holds now."""
    found: list[str] = []
    for each in await _without_group(name, settings):
        source = make_source(name, each, SystemClock())
        try:
            await source.start()
            found += await _shards(source)
        finally:
            await source.stop()
    return "; ".join(found)


async def _shards(source: Source) -> list[str]:
    gained = await source.assigned() or []
    told = []
    for topic, shards in groupby(sorted(gained, key=str), key=lambda shard: shard.topic):
        bounds = [await source.bounds(shard) for shard in shards]
        size = sum(each.high - each.low for each in bounds)
        told.append(f"{topic}: {len(bounds)} shards, {size:,} positions")
    return told


async def _without_group(name: str, settings: SourceSettings) -> list[SourceSettings]:
    """The same source by static assignment: to join the group would take partitions from a daemon that serves."""
    if not isinstance(settings, KafkaSourceSettings) or settings.partitions is not None:
        return [settings]
    from detector.kafka.client import describe_cluster  # who reads files needs no Kafka

    where = f"kafka source {name!r}"
    topics = (await describe_cluster(settings, where, SourceError)).topics
    wanted = settings.topics or [topic for topic in topics if re.match(settings.pattern or "", topic)]
    if not wanted:
        raise SourceError(where, "pattern", expected=f"topics like {settings.pattern!r}", got="none")
    spans = {topic: f"0-{topics.get(topic, 1) - 1}" for topic in wanted}
    return [
        settings.model_copy(update={"topics": [topic], "pattern": None, "partitions": span})
        for topic, span in spans.items()
    ]
