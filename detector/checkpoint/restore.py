"""How a shard comes back: from its newest whole manifest, or from nothing, and then only as the operator said.

    1. Claim       a fence higher than any before; a former owner's manifests are refused from here on
    2. Load        the newest manifest that is whole together with its rows; damaged ones are passed over, and named;
                   where there is warm memory, only what it lacks (warm.py)
    3. Fit         same topic, bundles that know these rows, a source that still has what follows: by policies.py
    4. Carry       rows of a bundle that runs no more become rows of the one that does
    5. Alerts      ids that stand on each output behind the manifest's mark: the replay will not send them again
    6. Take over   the same manifest under the new fence; without one: a first manifest that pins where we began
    7. Rows        handed to the engine

A cold start is never silent: it happens where a shard has no manifest at all, by the source's `start` policy, or where
what it has cannot be used and the operator said `--cold`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from detector.checkpoint import cold_start
from detector.checkpoint.base import Store, fence_name, highest_fence, manifests_newest_first
from detector.checkpoint.cold import read_cold_streams
from detector.checkpoint.cold_start import lost_memory
from detector.checkpoint.format import Manifest, decode_manifest
from detector.checkpoint.lineage import COLD_HINT
from detector.checkpoint.policies import Policies, fit, tell
from detector.checkpoint.protocol import Identity, created, marks_now, write_manifest
from detector.checkpoint.segments import read_segments
from detector.checkpoint.warm import M, Warm, missing
from detector.clock import Clock
from detector.errors import CheckpointError, CorruptCheckpointError, LineageError, NoCheckpointError
from detector.records import NO_TIME, ArenaRows, Shard
from detector.sinks.base import Sink
from detector.sources.base import Bounds, Source
from detector.stages.decide import DECIDE_VERSION
from detector.state.cold import ColdStreams

_REFUSE = Policies()
_MOST_CLAIMS = 100  # other owners may race for the shard, but not for ever

Start = Literal["earliest", "latest", "fail"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A manifest that is whole, with its rows, and the damaged ones that were passed over on the way to it."""

    manifest: Manifest
    arenas: list[ArenaRows]
    """Base first; `format.merge` makes one of them."""
    passed_over: list[CorruptCheckpointError]
    is_warm: bool = False
    """The rows are only those that the warm memory lacks."""
    cold: list[ColdStreams] = field(default_factory=list)
    """Who is in the cold segments; of those that the warm memory lacks."""


@dataclass(slots=True)
class Restored:
    """A shard that is ready to go on."""

    manifest: Manifest
    is_new: bool
    """There was no checkpoint: a cold start."""
    rows: int
    passed_over: list[CorruptCheckpointError]
    replay_until: int
    """Outputs of positions below it may have been sent before."""
    known_alerts: dict[str, frozenset[str]] = field(default_factory=dict)
    """Per sink the ids that stand there already."""
    was_warm: bool = False
    """The shard goes on with the warm memory, not with the new one."""
    positions_lost: int = 0
    """Records that were gone from the source before they could be read."""
    carried_over: int = 0
    """Streams whose rows were made by another bundle than the one that goes on with them."""
    memory_lost: int = 0
    """Streams that a cold start by `--cold` gave up."""


async def restore(
    shard: Shard,
    *,
    memory: M,
    warm: Warm[M] | None = None,
    store: Store,
    source: Source,
    start: Start,
    alerts: Mapping[str, Sink],
    identity: Identity,
    clock: Clock,
    policies: Policies = _REFUSE,
) -> Restored:
    """Bring a shard's memory back and say from where to read on.

    The rows go into `memory`, which is new and which nobody else uses yet, or where that saves reading into `warm`.

    Raises:
        CorruptCheckpointError: There are manifests and none of them is whole.
        LineageError: The checkpoint belongs to another topic or bundle.
        DataLostError: Records after the checkpoint are gone from the source.
        CheckpointError: The store failed, or there is no checkpoint and the policy is `fail`.
    """
    where = f"{shard} in {store.where(shard)}"
    # 1. Claim.
    fence = await claim(store, shard)
    lost = None
    try:
        # 2. Load.
        loaded = await load(store, shard, warm)
        bounds = await source.bounds(shard, None if loaded is None else loaded.manifest.position)
        # 3. Fit.
        fitted = None
        if loaded is not None:
            fitted = await fit(loaded.manifest, shard, where, bounds, source, identity, policies)
    except (LineageError, CorruptCheckpointError) as refusal:
        if not policies.cold:
            raise
        lost = await lost_memory(store, shard, refusal)
        cold_start.tell(lost, shard)
        loaded = fitted = None
        bounds = await source.bounds(shard, lost.position)
    if loaded is None or fitted is None:
        manifest = await _first(shard, where, start, bounds, source, alerts)
        arenas, passed_over, known, moved = [], [], {}, 0
    else:
        manifest, passed_over, moved = fitted.manifest, loaded.passed_over, fitted.carry.moved(loaded.arenas)
        # 4. Carry.
        arenas = await asyncio.to_thread(lambda: [fitted.carry(rows) for rows in loaded.arenas])
        tell(fitted, shard, moved)
        # 5. Alerts.
        known = await _known_alerts(manifest, alerts)
    # 6. Take over.
    manifest = msgspec.structs.replace(
        manifest,
        fence=fence,
        configuration=identity.configuration,
        numerics=identity.numerics,
        decide_version=DECIDE_VERSION,  # older rows were taken over as they were read
        created=created(clock),
    )
    await write_manifest(store, manifest)
    # 7. Rows.
    was_warm = warm is not None and loaded is not None and loaded.is_warm
    if warm is not None and was_warm:
        memory, warm.is_spent = warm.memory, True
    await asyncio.to_thread(
        memory.extend if was_warm else memory.restore,
        manifest.position,
        manifest.highest_event_ns,
        arenas,
        manifest.last_position,
        forgotten_ns=manifest.forgotten_ns,
        cold=loaded.cold if loaded else (),
    )
    return Restored(
        manifest=manifest,
        is_new=loaded is None,
        rows=memory.streams,
        passed_over=passed_over,
        replay_until=bounds.high if loaded else manifest.position,
        known_alerts=known,
        was_warm=was_warm,
        positions_lost=fitted.gap.end - fitted.gap.start if fitted and fitted.gap else 0,
        carried_over=moved,
        memory_lost=len(lost.streams) if lost else 0,
    )


async def claim(store: Store, shard: Shard) -> int:
    """Become the shard's owner; returns our fence, higher than any before."""
    for _ in range(_MOST_CLAIMS):
        fence = highest_fence(await store.names(shard)) + 1
        if await store.create(shard, fence_name(fence)):
            return fence
    where = f"{shard} in {store.where(shard)}"
    raise CheckpointError(where, "claim", expected="to become its owner", got=f"{_MOST_CLAIMS} claims by others")


async def load(store: Store, shard: Shard, warm: Warm[M] | None = None) -> Loaded | None:
    """The newest manifest that is whole with its rows, or those that `warm` lacks; None where the shard never had one.

    Raises:
        CorruptCheckpointError: There are manifests and none is whole. Going on without memory would be silent loss.
    """
    passed_over: list[CorruptCheckpointError] = []
    for name in manifests_newest_first(await store.names(shard)):
        try:
            manifest = decode_manifest(await store.read(shard, name), f"{shard}/{name}")
            lacking = missing(manifest, warm)
            arenas = await (load_rows(store, manifest) if lacking is None else read_segments(store, shard, lacking))
            known = warm.memory.cold.names.values() if warm is not None and lacking is not None else ()
            cold = await read_cold_streams(store, manifest, known)
            return Loaded(manifest, arenas, passed_over, lacking is not None, cold)
        except CorruptCheckpointError as error:
            passed_over.append(error)
    if passed_over:
        raise CorruptCheckpointError(
            f"{shard} in {store.where(shard)}",
            "every manifest is damaged",
            expected="a whole one",
            got=passed_over[0],
            hint=f"bring the files back from a backup, {COLD_HINT}",
        )
    return None


async def load_rows(store: Store, manifest: Manifest) -> list[ArenaRows]:
    """All rows that a manifest names, base first; whoever takes them in turn ends with the last row of each stream."""
    return await read_segments(store, manifest.shard, manifest.segments)


async def _first(
    shard: Shard, where: str, start: Start, bounds: Bounds, source: Source, alerts: Mapping[str, Sink]
) -> Manifest:
    """What a shard begins with that has no memory; alerts that stand on the outputs already are another memory's."""
    if start == "fail":
        hint = "bring the checkpoint back, or set start to earliest or latest for the first start"
        raise NoCheckpointError(where, "no checkpoint, and start is fail", hint=hint)
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
        partitions=await source.partitions(shard),
    )


async def _known_alerts(manifest: Manifest, alerts: Mapping[str, Sink]) -> dict[str, frozenset[str]]:
    """Ids behind the mark of each output; from its beginning where the manifest has no mark of it."""
    tails = {
        name: await sink.alert_tail(manifest.shard, manifest.alert_marks.get(name, 0)) for name, sink in alerts.items()
    }
    return {name: tail.ids for name, tail in tails.items() if tail.ids}
