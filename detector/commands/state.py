"""`tidewarden state`: streams' memory as something one can hold; over any store that the configuration names.

tidewarden state list -c prod.yaml                        shards, or --streams
tidewarden state show -c prod.yaml pump-7                 what is remembered of a stream, in words
tidewarden state diff -c prod.yaml pump-7 pump-8          what differs, the largest first
tidewarden state export -c prod.yaml 'pump-*' -o pumps.rows
tidewarden state import -c prod.yaml pumps.rows
tidewarden state fork -c prod.yaml pump-7 pump-8          the same memory under another key

The first four read, also beside a daemon that serves; the others are in `state_changes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from detector.checkpoint.base import Store
from detector.checkpoint.edit import Held, read_held
from detector.checkpoint.export import Exported, read_export
from detector.clock import SystemClock
from detector.commands import memory, state_changes
from detector.commands.output import Config, age, print_json, print_table, say
from detector.commands.shards import (
    Json,
    Partition,
    Topic,
    facts_of,
    find,
    held_of,
    layouts_of,
    only,
    opened,
    overview,
    running,
)
from detector.errors import InputError
from detector.records import ArenaRows, Shard
from detector.settings import Settings
from detector.verification.ranges import starts

Pair: TypeAlias = tuple[str, dict[str, Any], dict[str, Any]]
"""Whose memory, and its facts on either side."""

command = typer.Typer(
    help="List, show, export, import, fork and compare streams' memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# list -----------------------------------------------------------------------------------------------------------------


@command.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Streams to list, as a glob; with --streams.")] = "*",
    config: Config = None,
    topic: Topic = None,
    partition: Partition = None,
    streams: Annotated[bool, typer.Option("--streams", help="List streams instead of shards.")] = False,
    as_json: Json = False,
) -> None:
    """List shards, or with --streams their streams.

    Example: tidewarden state list -c prod.yaml --streams 'pump-*'
    """

    async def read() -> list[dict[str, Any]]:
        async with opened(config) as (_, store):
            if not streams:
                return await overview(store, topic, partition)
            lines = (line for held in await held_of(store, topic, partition) for line in memory.stream_lines(held))
            return [line for line in lines if fnmatchcase(line["stream"], pattern)]

    (print_streams if streams else print_shards)(asyncio.run(read()), as_json=as_json)


def print_streams(lines: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """A line per stream."""
    if as_json:
        print_json(list(lines))
        return
    heads = ("stream", "shard", "last sample", "anomaly", "row")
    told = (
        (each["stream"], each["shard"], each["last_sample"], each["open_since"] or "-", each["row"]) for each in lines
    )
    print_table("streams", heads, told)


def print_shards(shards: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """A line per shard."""
    if as_json:
        print_json(list(shards))
        return
    now_ns = SystemClock().now_ns()
    heads = ("shard", "position", "streams", "cold", "open", "fence", "lost", "history", "written")
    keys = ("position", "streams", "cold", "open_anomalies", "fence", "lost_positions", "history")
    print_table(
        "shards",
        heads,
        (
            (f"{each['topic']}-{each['partition']}", *(each[key] for key in keys), age(each["created"], now_ns))
            for each in shards
        ),
    )


# show and diff --------------------------------------------------------------------------------------------------------


@command.command()
def show(
    stream: Annotated[str, typer.Argument(help="The stream's key.")],
    config: Config = None,
    topic: Topic = None,
    partition: Partition = None,
    as_json: Json = False,
) -> None:
    """Say what is remembered of a stream: scale, warm-up, evidence, open anomaly.

    Example: tidewarden state show -c prod.yaml pump-7
    """

    async def read() -> tuple[Settings, list[tuple[Held, ArenaRows]]]:
        async with opened(config) as (settings, store):
            return settings, find(await held_of(store, topic, partition), stream)

    settings, found = asyncio.run(read())
    bundles = running(settings).models.values()
    warm_up = {bundle.sha256: bundle.warm_up for bundle in bundles}
    told = [facts_of(each.manifest, rows, bundles) | _freezes(settings, each, rows) for each, rows in found]
    if as_json:
        print_json(told)
        return
    for line in (line for facts in told for line in memory.in_words(facts, warm_up.get(facts["bundle_sha256"]))):
        say(line)


def _freezes(settings: Settings, held: Held, rows: ArenaRows) -> dict[str, Any]:
    """What the configuration says of the learning of the one stream in `rows`."""
    detector = settings.detectors.get(rows.detector)
    return {"freeze": memory.freezes(detector.freeze if detector else [], held.manifest, rows, 0)}


@command.command()
def diff(
    one: Annotated[str, typer.Argument(help="A stream, or a file of state export.")],
    other: Annotated[str | None, typer.Argument(help="Another; left out with --at.", show_default=False)] = None,
    config: Config = None,
    at: Annotated[
        list[int] | None,
        typer.Option(
            help="Compare one stream in the checkpoint at this position with that of another --at, or the newest."
        ),
    ] = None,
    topic: Topic = None,
    partition: Partition = None,
    as_json: Json = False,
) -> None:
    """Compare two streams, one stream at two positions, or two exports: fields that differ, the largest first.

    Example: tidewarden state diff -c prod.yaml pump-7 --at 120000
    """
    if (other is None) == (not at):
        raise InputError("diff", "what with", expected="two streams or files, or one stream and --at", got=one)
    if other is not None and Path(one).is_file() and Path(other).is_file():
        pairs = _exports(read_export(Path(one)), read_export(Path(other)))
    else:
        pairs = [asyncio.run(_pair(config, one, other, at or [], topic, partition))]
    found = [(stream, *each) for stream, first, second in pairs for each in memory.differences(first, second)]
    if as_json:
        print_json([dict(zip(("stream", "field", "one", "other"), each, strict=True)) for each in found])
    else:
        rows = ((stream, name, _short(first), _short(second)) for stream, name, first, second in found)
        print_table("differences", ("stream", "field", "one", "other"), rows)
        if not found:
            say("no differences")


async def _pair(
    config: Path | None, one: str, other: str | None, at: Sequence[int], topic: str | None, partition: int | None
) -> Pair:
    """Two streams, or one stream in two checkpoints."""
    async with opened(config) as (settings, store):
        held = await held_of(store, topic, partition)
        if other is not None:
            found, title = [only(held, one), only(held, other)], f"{one} {other}"
        else:
            newest, _ = only(held, one)
            past = [await _at(store, newest.manifest.shard, position) for position in at[:2]]
            found, title = [only([each], one) for each in (*past, newest)[:2]], one
        models = running(settings).models.values()
        first, second = (_content(facts_of(each.manifest, rows, models)) for each, rows in found)
        return title, first, second


async def _at(store: Store, shard: Shard, position: int) -> Held:
    found = await starts(store, shard)
    for start in found:
        if start.manifest.position == position:
            return await read_held(store, start.manifest)
    positions = ", ".join(str(start.manifest.position) for start in found)
    raise InputError(shard, "checkpoint", expected=f"a position among {positions}", got=position)


def _content(facts: dict[str, Any]) -> dict[str, Any]:
    """What of a stream's facts is memory: not its name, and not where it was found."""
    return {name: value for name, value in facts.items() if name not in ("stream", "shard", "position", "gaps")}


def _exports(one: Sequence[Exported], other: Sequence[Exported]) -> list[Pair]:
    """Stream by stream; one that a file lacks is there with no facts at all."""
    first, second = ({key: facts for part in parts for key, facts in _every(part)} for parts in (one, other))
    return [(key, first.get(key, {}), second.get(key, {})) for key in dict.fromkeys([*first, *second])]


def _every(part: Exported) -> Iterator[tuple[str, dict[str, Any]]]:
    layouts = layouts_of(part.manifest, [])
    for rows in part.arenas:
        for row, stream in enumerate(rows.streams):
            facts = memory.stream_facts(part.manifest, rows, row, layouts.get(rows.bundle_sha256))
            yield stream, _content(facts)


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "-" if value is None else str(value)


command.command("export")(state_changes.export)
command.command("import")(state_changes.import_)
command.command("fork")(state_changes.fork)
