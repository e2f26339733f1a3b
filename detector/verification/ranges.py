"""Which checkpoint a range can be computed from, and whether it still can be.

A range begins at any offset at or after a checkpoint whose rows are still kept, if the log still has what follows that
checkpoint, and ends where the daemon's last checkpoint ends: outputs behind it may be on their way still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from detector.checkpoint.base import Store, manifests_newest_first
from detector.checkpoint.format import Manifest, decode_manifest
from detector.checkpoint.history import copies
from detector.checkpoint.protocol import Identity
from detector.errors import CannotVerifyError, CorruptCheckpointError
from detector.records import Shard
from detector.sources.base import Bounds
from detector.stages.decide import DECIDE_VERSION

_READ_AT_ONCE = 8  # manifests; a week of hourly ones in object storage would take many seconds one by one


@dataclass(frozen=True, slots=True)
class Start:
    """A checkpoint that a replay can begin with."""

    manifest: Manifest
    is_history: bool
    """Kept by policy; else one of the last two, which the daemon replaces soon."""

    def can_replay(self, bounds: Bounds) -> bool:
        """Whether the log still has what follows."""
        return bounds.low <= self.manifest.position


async def starts(store: Store, shard: Shard) -> list[Start]:
    """Every checkpoint whose rows are all there, by position; where one is history and live, it counts as history."""
    there = await store.names(shard)
    names = [*manifests_newest_first(there), *copies(there)]
    gate = asyncio.Semaphore(_READ_AT_ONCE)

    async def read(name: str) -> Manifest | None:
        try:
            async with gate:
                return decode_manifest(await store.read(shard, name), f"{shard}/{name}")
        except CorruptCheckpointError:
            return None  # damaged, or deleted by the daemon since we looked

    found: dict[tuple[int, int], Start] = {}
    for name, manifest in zip(names, await asyncio.gather(*map(read, names)), strict=True):
        if manifest and {segment.name for segment in (*manifest.segments, *manifest.cold)} <= set(there):
            found[manifest.fence, manifest.epoch] = Start(manifest, name.startswith("history-"))
    return sorted(found.values(), key=lambda each: (each.manifest.position, each.manifest.fence, each.manifest.epoch))


def choose(found: Sequence[Start], shard: Shard, first: int, bounds: Bounds) -> Start:
    """The last one at or before the range.

    Raises:
        CannotVerifyError: There is none, or the log no longer has what follows it.
    """
    fitting = [each for each in found if each.manifest.position <= first]
    if not fitting:
        raise CannotVerifyError(
            shard, f"no checkpoint at or before offset {first}", expected="history that reaches it", got=_told(found)
        )
    if not fitting[-1].can_replay(bounds):
        raise CannotVerifyError(
            shard,
            "the log was deleted",
            expected=f"records from offset {fitting[-1].manifest.position}",
            got=f"the first that is left, {bounds.low}",
            hint="keep records for as long as the history",
        )
    return fitting[-1]


def end_of(found: Sequence[Start]) -> int:
    """Up to where outputs are surely complete."""
    return max((each.manifest.position for each in found), default=0)


def passed(found: Sequence[Start], begin: Start, end: int) -> list[Manifest]:
    """The checkpoints from `begin` to the one that closed the range: whoever made that had sent all its outputs."""
    manifests = [each.manifest for each in found[found.index(begin) :]]
    closed = next((number for number, each in enumerate(manifests) if each.position >= end), len(manifests))
    return manifests[: closed + 1]


def check_same(manifest: Manifest, identity: Identity) -> None:
    """Refuse to compute with another bundle or configuration than the daemon had.

    Raises:
        CannotVerifyError: It would differ, and that would prove nothing.
    """
    shard = manifest.shard
    if manifest.decide_version != DECIDE_VERSION:
        what = "version of decide's columns"
        raise CannotVerifyError(shard, what, expected=DECIDE_VERSION, got=manifest.decide_version)
    for arena in manifest.arenas:
        sha256, label = identity.bundles.get(arena.detector, ("", "no such detector"))
        if sha256 != arena.bundle_sha256:
            raise CannotVerifyError(
                shard,
                f"bundle of detector {arena.detector!r}",
                expected=f"{arena.bundle} (sha256 {arena.bundle_sha256[:12]}), as at offset {manifest.position}",
                got=f"{label} (sha256 {sha256[:12]})" if sha256 else label,
                hint="name a configuration with the bundle of that time",
            )
    if manifest.configuration and manifest.configuration != identity.configuration:
        raise CannotVerifyError(
            shard,
            "configuration",
            expected=f"that of offset {manifest.position} (hash {manifest.configuration[:12]})",
            got=f"another (hash {identity.configuration[:12]})",
            hint="name the configuration of that time",
        )


def _told(found: Sequence[Start]) -> str:
    if not found:
        return "none; set checkpoint.keep_history"
    return f"offsets {found[0].manifest.position} to {end_of(found)}; see --list"
