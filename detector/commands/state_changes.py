"""Streams' memory out to a file, in from one, and under another key: `tidewarden state export`, `import`, `fork`.

What changes memory makes a new checkpoint of the shard under a new claim. A daemon that serves the shard is fenced by
that and ends; so a shard whose last checkpoint is young is refused, unless --yes. Rows must come from the bundle that
runs, or from one whose rows it can take over, part by part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from detector.checkpoint.base import Store
from detector.checkpoint.edit import Held, at_rest, names, newest, pick, put, renamed, rewrite
from detector.checkpoint.export import Exported, read_export, write_export
from detector.checkpoint.lineage import check_bundles
from detector.checkpoint.restore import load
from detector.clock import SystemClock
from detector.commands.output import Config, say
from detector.commands.shards import Partition, Topic, held_of, only, opened, running
from detector.errors import ConfigurationError, InputError, LineageError
from detector.records import ArenaRows, Shard
from detector.settings import Settings
from detector.stages.decide import DECIDE_VERSION, KNOWN_VERSIONS

_YOUNG = 5  # checkpoints; a shard whose last one is younger is most likely being served

Replace = Annotated[bool, typer.Option("--replace", help="Put aside the memory that is there.")]
Yes = Annotated[bool, typer.Option("--yes", help="Although a daemon may serve the shard: it will be fenced.")]


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    streams: Annotated[list[str] | None, typer.Argument(help="Streams, as globs; all without.")] = None,
    config: Config = None,
    topic: Topic = None,
    partition: Partition = None,
) -> None:
    """Write streams' memory to one file: rows, names, labels, times, channels, bundle, row layout, shard, position.

    Example: tidewarden state export -c prod.yaml 'pump-*' -o pumps.rows
    """

    async def read() -> list[Held]:
        async with opened(config) as (_, store):
            return await held_of(store, topic, partition)

    parts = [part for held in asyncio.run(read()) if names((part := _exported(held, streams or ["*"])).arenas)]
    if not parts:
        raise InputError("export", "streams", expected=f"one that matches {' or '.join(streams or ['*'])}", got="none")
    size = write_export(output, parts)
    count = sum(len(names(part.arenas)) for part in parts)
    say(f"{count:,} streams of {len(parts)} shards > {output} ({size:,} bytes)")


def _exported(held: Held, globs: Sequence[str]) -> Exported:
    return Exported(held.manifest, pick(held.arenas, lambda stream: any(fnmatchcase(stream, glob) for glob in globs)))


def import_(
    file: Annotated[Path, typer.Argument(help="File of `state export`.")],
    config: Config = None,
    topic: Annotated[str | None, typer.Option(help="Put all into this topic; else as exported.")] = None,
    partition: Annotated[int | None, typer.Option(help="Put all into this partition; else as exported.")] = None,
    replaces: Replace = False,
    yes: Yes = False,
) -> None:
    """Put the memory of a file into the newest checkpoint, or into a new one; of a shard whole or not at all.

    In another shard than they come from, streams start without an open anomaly. Stop the daemon before.

    Example: tidewarden state import -c prod.yaml pumps.rows
    """
    parts = read_export(file)
    if (topic is None) != (partition is None):
        raise ConfigurationError("import", "target", expected="--topic and --partition, or neither", got="one of them")

    async def change() -> None:
        async with opened(config) as (settings, store):
            targeted = [await _targeted(part, store, topic, partition) for part in parts]
            for part in targeted:  # all are looked at before one is touched
                await _check_idle(store, part.manifest.shard, settings, yes=yes)
                await _put(store, part, settings, replaces=replaces, where=file, dry=True)
            for part in targeted:
                await _put(store, part, settings, replaces=replaces, where=file)

    asyncio.run(change())


async def _targeted(part: Exported, store: Store, topic: str | None, partition: int | None) -> Exported:
    """The rows as they go to another shard, which must be known: a position in one is none in another."""
    if topic is None or partition is None:
        return part
    there = [shard for shard in await store.shards() if (shard.topic, shard.partition) == (topic, partition)]
    if not there:
        hint = "let the daemon start the shard first"
        raise InputError("import", "target", expected=f"a checkpoint of {topic}-{partition}", got="none", hint=hint)
    return _moved(part, there[0])


def _moved(part: Exported, shard: Shard) -> Exported:
    if shard == part.manifest.shard:
        return part
    manifest = msgspec.structs.replace(
        part.manifest, cluster=shard.cluster, topic=shard.topic, partition=shard.partition
    )
    return Exported(manifest, [at_rest(rows) for rows in part.arenas])


def fork(
    source: Annotated[str, typer.Argument(help="The stream whose memory is copied.")],
    copy: Annotated[str, typer.Argument(help="The key that gets it.")],
    config: Config = None,
    topic: Topic = None,
    partition: Annotated[int | None, typer.Option(help="Partition of the copy; else the source's own.")] = None,
    replaces: Replace = False,
    yes: Yes = False,
) -> None:
    """Give another key the memory of a stream, so that it need not learn anew.

    All is copied bit for bit but an open anomaly: the copy starts without one. Stop the daemon before.

    Example: tidewarden state fork -c prod.yaml pump-7 pump-8
    """

    async def change() -> None:
        async with opened(config) as (settings, store):
            held = await held_of(store, topic)
            origin, rows = only(held, source)
            shard = _target(held, origin, partition)
            await _check_idle(store, shard, settings, yes=yes)
            part = _moved(Exported(origin.manifest, [renamed(rows, copy)]), shard)
            await _put(store, part, settings, replaces=replaces, where=f"stream {copy!r}")

    asyncio.run(change())


def _target(held: Sequence[Held], origin: Held, partition: int | None) -> Shard:
    """The shard of the copy: of the same topic."""
    own = origin.manifest.shard
    wanted = replace(own, partition=own.partition if partition is None else partition)
    if all(each.manifest.shard != wanted for each in held):
        raise InputError("fork", "partition", expected=f"a checkpoint of {wanted}", got="none")
    return wanted


async def _check_idle(store: Store, shard: Shard, settings: Settings, *, yes: bool) -> None:
    """Refuse to fence a daemon that is likely to serve the shard, unless told to."""
    loaded = await load(store, shard)
    if loaded is None:
        return
    age_s = SystemClock().now_ns() / 1e9 - datetime.fromisoformat(loaded.manifest.created).timestamp()
    if age_s >= _YOUNG * settings.checkpoint.every_s:
        return
    if not yes:
        raise InputError(
            store.where(shard),
            "a daemon seems to serve the shard",
            expected=f"a last checkpoint of {_YOUNG * settings.checkpoint.every_s:g} s ago or more",
            got=f"one of {max(0.0, age_s):.0f} s ago",
            hint="stop it and wait, or say --yes, which fences it",
        )
    say(f"{shard}: whoever serves it is fenced now")


async def _put(
    store: Store, part: Exported, settings: Settings, *, replaces: bool, where: object, dry: bool = False
) -> None:
    """Put rows into the shard that their manifest names; dry: see whether it could be done."""
    identity, shard = running(settings), part.manifest.shard
    if part.manifest.decide_version not in KNOWN_VERSIONS:
        what = "version of decide's columns"
        raise LineageError(where, what, expected=DECIDE_VERSION, got=part.manifest.decide_version)
    carry, _ = check_bundles(part.manifest, str(where), identity)
    rows = [carry(each) for each in part.arenas]

    def change(held: Held) -> list[ArenaRows]:
        return put(held, rows, replaces=replaces, where=where)

    if dry:
        change(await newest(store, part.manifest, identity))
        return
    manifest = await rewrite(store, part.manifest, change, identity, SystemClock())
    say(f"{shard}: {len(names(rows)):,} streams put in at position {manifest.position}, fence {manifest.fence}")
