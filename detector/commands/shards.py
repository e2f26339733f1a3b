"""What the state commands share: the store that the configuration names, and where a stream has memory."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from detector.bundles import locate
from detector.checkpoint.base import Store
from detector.checkpoint.edit import Held, pick, read_held
from detector.checkpoint.format import Manifest
from detector.checkpoint.history import copies
from detector.checkpoint.lineage import Identity
from detector.checkpoint.restore import load
from detector.checkpoint.stores import make_store
from detector.commands import memory
from detector.errors import InputError
from detector.model.bundle import Bundle, read_bundle
from detector.model.rows import RowLayout
from detector.records import ArenaRows
from detector.settings import Settings
from detector.settings import load as load_settings

Topic: TypeAlias = Annotated[str | None, typer.Option(help="Only shards of this topic (or path).", show_default=False)]
Partition: TypeAlias = Annotated[int | None, typer.Option(help="Only shards of this partition.", show_default=False)]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@asynccontextmanager
async def opened(config: Path | None) -> AsyncIterator[tuple[Settings, Store]]:
    """The configuration and its store, started."""
    settings = load_settings(config)
    store = make_store(settings.checkpoint)
    try:
        await store.start()
        yield settings, store
    finally:
        await store.stop()


async def held_of(store: Store, topic: str | None = None, partition: int | None = None) -> list[Held]:
    """The newest whole checkpoint of every shard that is meant, with all its rows.

    Raises:
        InputError: There is none.
    """
    found = []
    for shard in await store.shards():
        if topic in (None, shard.topic) and partition in (None, shard.partition):
            loaded = await load(store, shard)
            if loaded is not None:
                found.append(await read_held(store, loaded.manifest))
    if not found:
        raise InputError("checkpoint", "shards", expected="checkpoints of at least one", got="none")
    return found


async def overview(store: Store, topic: str | None = None, partition: int | None = None) -> list[dict[str, Any]]:
    """The facts of every shard that is meant."""
    facts = []
    for held in await held_of(store, topic, partition):
        shard = held.manifest.shard
        facts.append(memory.shard_facts(held, len(copies(await store.names(shard))), store.where(shard)))
    return facts


def find(held: Sequence[Held], stream: str) -> list[tuple[Held, ArenaRows]]:
    """Where a stream has memory, each with its row alone.

    Raises:
        InputError: Nowhere; the nearest names are told.
    """
    found = [(each, rows) for each in held for rows in pick(each.arenas, lambda name: name == stream)]
    if not found:
        every = [name for each in held for name in each.streams]
        near = difflib.get_close_matches(stream, every, 3)
        hint = f"did you mean {', '.join(near)}?" if near else None
        raise InputError(
            f"stream {stream!r}", "memory", expected="a stream that has any", got=_others(every), hint=hint
        )
    return found


def only(held: Sequence[Held], stream: str) -> tuple[Held, ArenaRows]:
    """The one place where a stream has memory."""
    found = find(held, stream)
    if len(found) > 1:
        shards = ", ".join(str(each.manifest.shard) for each, _ in found)
        raise InputError(f"stream {stream!r}", "shard", expected="--topic and --partition", got=f"memory in {shards}")
    return found[0]


def _others(every: Sequence[str]) -> str:
    return f"{len(every):,} others" if every else "no streams at all"


def facts_of(manifest: Manifest, rows: ArenaRows, bundles: Iterable[Bundle]) -> dict[str, Any]:
    """Of the one stream in `rows`."""
    return memory.stream_facts(manifest, rows, 0, layouts_of(manifest, bundles).get(rows.bundle_sha256))


def layouts_of(manifest: Manifest, bundles: Iterable[Bundle]) -> dict[str, RowLayout]:
    """Per bundle hash its row layout: the manifest has them, but for those of the first format."""
    known = {bundle.sha256: bundle.layout for bundle in bundles}
    return known | {each.bundle_sha256: each.layout for each in manifest.bundles}


def running(settings: Settings) -> Identity:
    """The bundles of the configuration, as a restore would compare them with a checkpoint's."""
    models = {name: read_bundle(locate(each.bundle)) for name, each in settings.detectors.items()}
    bundles = {name: (bundle.sha256, bundle.label) for name, bundle in models.items()}
    return Identity(bundles, configuration="", numerics="", models=models)
