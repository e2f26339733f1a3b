"""How a standby follows the checkpoints of a shard that another replica owns: it reads, and does nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from detector.checkpoint.base import Store, manifests_newest_first
from detector.checkpoint.format import Manifest
from detector.checkpoint.lineage import Identity
from detector.checkpoint.restore import Loaded, load
from detector.checkpoint.warm import M, Warm
from detector.records import Shard
from detector.stages.decide import DECIDE_VERSION


async def newer(store: Store, shard: Shard, warm: Warm[M] | None) -> Loaded | None:
    """What the newest whole manifest has beyond the warm one; None where there is nothing newer.

    Raises:
        CheckpointError: The store failed, or the owner deleted what we were about to read; look again later.
    """
    names = manifests_newest_first(await store.names(shard))
    if not names or (warm is not None and names[0] == warm.name):
        return None
    return await load(store, shard, warm)


def is_followed(manifest: Manifest, identity: Identity) -> bool:
    """Whether its rows are of the bundles that run here; others become so only by a restore."""
    ours = all(arena.bundle_sha256 == identity.bundles.get(arena.detector, ("",))[0] for arena in manifest.arenas)
    return ours and manifest.decide_version == DECIDE_VERSION and not manifest.mixed


async def refreshed(warm: Warm[M] | None, loaded: Loaded, new_memory: Callable[[], M]) -> Warm[M]:
    """Bring the warm memory, or a new one, to the manifest that was loaded; the former is used up."""
    memory = warm.memory if warm is not None and loaded.is_warm else new_memory()
    of = loaded.manifest
    await asyncio.to_thread(
        memory.extend,
        of.position,
        of.highest_event_ns,
        loaded.arenas,
        of.last_position,
        forgotten_ns=of.forgotten_ns,
        cold=loaded.cold,
    )
    return Warm(of, memory)
