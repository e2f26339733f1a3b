"""How a shard comes back: from its newest whole manifest, or from nothing, and then only as the operator said.

    1. Claim       a fence higher than any before; a former owner's manifests are refused from here on
    2. Load        the newest manifest that is whole together with its rows; damaged ones are passed over, and named
    3. Lineage     same topic, same bundles
    4. Position    the source still has what follows it, and the anchor before it is unchanged
    5. Alerts      ids that stand on each output behind the manifest's mark: the replay will not send them again
    6. Take over   the same manifest under the new fence; without one: a first manifest that pins where we began
    7. Rows        handed to the engine

A cold start is never silent: it happens where a shard has no manifest at all, by the source's `start` policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from detector.checkpoint.base import Store, fence_name, highest_fence, manifests_newest_first
from detector.checkpoint.format import Manifest, decode_manifest, decode_segment, merge
from detector.checkpoint.policies import changed, check_anchor, check_lineage, check_position
from detector.checkpoint.protocol import Identity, Memory, created, marks_now, write_manifest
from detector.clock import Clock
from detector.errors import CheckpointError, CorruptCheckpointError
from detector.records import NO_TIME, ArenaRows, Shard
from detector.sinks.base import Sink
from detector.sources.base import Bounds, Source
from detector.stages.decide import DECIDE_VERSION

_MOST_CLAIMS = 100  # other owners may race for the shard, but not for ever

Start = Literal["earliest", "latest", "fail"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A manifest that is whole, with its rows, and the damaged ones that were passed over on the way to it."""

    manifest: Manifest
    arenas: list[ArenaRows]
    passed_over: list[CorruptCheckpointError]


@dataclass(slots=True)
class Restored:
    """A shard that is ready to go on."""

    manifest: Manifest
    is_new: bool
    """There was no checkpoint: a cold start."""
    rows: int
    passed_over: list[CorruptCheckpointError]
    changed: list[str]
    """Which of configuration and numerics are not what they were when the checkpoint was made."""
    replay_until: int
    """Outputs of positions below it may have been sent before."""
    known_alerts: dict[str, frozenset[str]] = field(default_factory=dict)
    """Per sink the ids that stand there already."""


async def restore(
    shard: Shard,
    *,
    memory: Memory,
    engine_thread: Executor,
    store: Store,
    source: Source,
    start: Start,
    alerts: Mapping[str, Sink],
    identity: Identity,
    clock: Clock,
) -> Restored:
    """Bring a shard's memory back and say from where to read on.

    Raises:
        CorruptCheckpointError: There are manifests and none of them is whole.
        LineageError: The checkpoint belongs to another topic or bundle.
        DataLostError: Records after the checkpoint are gone from the source.
        CheckpointError: The store failed, or there is no checkpoint and the policy is `fail`.
    """
    # 1. Claim.
    fence = await claim(store, shard)
    # 2. Load.
    loaded = await load(store, shard)
    bounds = await source.bounds(shard, None if loaded is None else loaded.manifest.position)
    if loaded is None:
        manifest = await _first(shard, start, bounds, source, alerts)
        arenas, passed_over, known = [], [], {}
    else:
        manifest, arenas, passed_over = loaded.manifest, loaded.arenas, loaded.passed_over
        # 3. Lineage.
        check_lineage(manifest, shard, identity)
        # 4. Position.
        check_position(manifest, bounds)
        await check_anchor(manifest, bounds, source)
        # 5. Alerts.
        known = await _known_alerts(manifest, alerts)
    # 6. Take over.
    manifest = msgspec.structs.replace(
        manifest,
        fence=fence,
        configuration=identity.configuration,
        numerics=identity.numerics,
        created=created(clock),
    )
    await write_manifest(store, manifest)
    # 7. Rows.
    await asyncio.get_running_loop().run_in_executor(
        engine_thread,
        memory.restore,
        manifest.position,
        manifest.highest_event_ns,
        arenas,
        manifest.last_position,
    )
    return Restored(
        manifest=manifest,
        is_new=loaded is None,
        rows=sum(len(arena.streams) for arena in arenas),
        passed_over=passed_over,
        changed=changed(loaded.manifest, identity) if loaded else [],
        replay_until=bounds.high if loaded else manifest.position,
        known_alerts=known,
    )


async def claim(store: Store, shard: Shard) -> int:
    """Become the shard's owner; returns our fence, higher than any before."""
    for _ in range(_MOST_CLAIMS):
        fence = highest_fence(await store.names(shard)) + 1
        if await store.create(shard, fence_name(fence)):
            return fence
    raise CheckpointError(shard, "claim", expected="to become its owner", got=f"{_MOST_CLAIMS} claims by others")


async def load(store: Store, shard: Shard) -> Loaded | None:
    """The newest manifest that is whole with its rows; None where the shard never had one.

    Raises:
        CorruptCheckpointError: There are manifests and none is whole. Going on without memory would be silent loss.
    """
    passed_over: list[CorruptCheckpointError] = []
    for name in manifests_newest_first(await store.names(shard)):
        try:
            manifest = decode_manifest(await store.read(shard, name), f"{shard}/{name}")
            return Loaded(manifest, await load_rows(store, manifest), passed_over)
        except CorruptCheckpointError as error:
            passed_over.append(error)
    if passed_over:
        raise CorruptCheckpointError(
            shard,
            "every manifest is damaged",
            expected="a whole one",
            got=passed_over[0],
            hint="bring the checkpoint folder back from a backup, or move it away to start without memory",
        )
    return None


async def load_rows(store: Store, manifest: Manifest) -> list[ArenaRows]:
    """All rows that a manifest names, deltas laid over their base."""
    segments = []
    for segment in manifest.segments:
        data = await store.read(manifest.shard, segment.name)
        where = f"{manifest.shard}/{segment.name}"
        segments.append(await asyncio.to_thread(decode_segment, data, segment, where))
    return await asyncio.to_thread(merge, segments)


async def _first(shard: Shard, start: Start, bounds: Bounds, source: Source, alerts: Mapping[str, Sink]) -> Manifest:
    """What a shard without a checkpoint begins with."""
    if start == "fail":
        raise CheckpointError(
            shard, "no checkpoint, and start is fail", hint="set start to earliest or latest for the first start"
        )
    position = bounds.low if start == "earliest" else bounds.high
    return Manifest(
        cluster=shard.cluster,
        topic=shard.topic,
        partition=shard.partition,
        epoch=0,
        fence=0,
        position=position,
        highest_event_ns=NO_TIME,
        alert_marks=await marks_now(shard, alerts),
        anchor=await source.anchor(shard, position),
        decide_version=DECIDE_VERSION,
    )


async def _known_alerts(manifest: Manifest, alerts: Mapping[str, Sink]) -> dict[str, frozenset[str]]:
    """Ids behind the mark of each output; from its beginning where the manifest has no mark of it."""
    tails = {
        name: await sink.alert_tail(manifest.shard, manifest.alert_marks.get(name, 0)) for name, sink in alerts.items()
    }
    return {name: tail.ids for name, tail in tails.items() if tail.ids}
