"""What a checkpoint store promises, and the pure decisions over what lies in it.

A store is a flat set of named, immutable blobs per shard: five verbs, so that a folder, a bucket and a compacted topic
can all be one. What the names mean is decided here, without I/O:

    fence-<fence>                     a claim: who owns the shard; created exclusively
    segment-<fence>-<epoch>.rows      rows
    cold-<fence>-<epoch>-<n>.rows     rows of evicted streams
    manifest-<fence>-<epoch>.json     the commit point; the highest (fence, epoch) that is whole is the truth
    history-<fence>-<epoch>.json      a copy of a manifest that names a base alone, kept for `tidewarden verify`

Because the fence comes first, whatever a former owner still writes sorts below the present owner's first manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from detector.checkpoint.format import Block, Manifest, Segment
from detector.records import Shard

_MOST_SEGMENTS = 64  # files that a restore has to open
_MOST_READ = 2.4  # times the live rows; 2.5 are promised, the rest is for headers, and labels that are not counted
_READ_ANYWAY = 1 << 20  # bytes that are too few to be spared
_NAME = re.compile(
    r"(?P<kind>fence|segment|cold|manifest|history)-(?P<fence>\d{10})"
    r"(-(?P<epoch>\d{12})(-\d{4})?\.(rows|json))?(?P<temporary>\.tmp)?"
)


class Store(Protocol):
    """Where checkpoints are kept.

    All methods may be slow and raise CheckpointError, whose `where` names the store and the shard.
    """

    async def start(self) -> None:
        """Connect, and see that the place is fit for its promise. Raises CheckpointError or ConfigurationError."""
        ...

    async def stop(self) -> None:
        """Disconnect; safe to call twice and after a failed start."""
        ...

    async def shards(self) -> list[Shard]:
        """Every shard that has anything here, sorted by its text; for commands, not for the pipeline."""
        ...

    def where(self, shard: Shard) -> str:
        """The shard's place in words that an operator can follow: a folder, a URL, a topic and its partition."""
        ...

    async def names(self, shard: Shard) -> list[str]:
        """What is there for the shard, in any order, leftovers of a crash included."""
        ...

    async def read(self, shard: Shard, name: str) -> bytes:
        """The whole of one; raises CorruptCheckpointError where it is missing or cannot be read."""
        ...

    async def write(self, shard: Shard, name: str, blocks: Sequence[Block]) -> None:
        """Write one; when this returns it survives the loss of power, whole, under its name."""
        ...

    async def create(self, shard: Shard, name: str) -> bool:
        """Create a claim, durably; False where it exists already. Of two callers at once exactly one succeeds.

        What it holds is the store's own affair. Nothing is written for a shard that nobody ever claimed.
        """
        ...

    async def delete(self, shard: Shard, names: Sequence[str]) -> None:
        """Delete what is there of these."""
        ...


def fence_name(fence: int) -> str:
    """Name of the claim with this fence."""
    return f"fence-{fence:010d}"


def segment_name(fence: int, epoch: int) -> str:
    """Name of the rows written at this epoch."""
    return f"segment-{fence:010d}-{epoch:012d}.rows"


def cold_name(fence: int, epoch: int, number: int) -> str:
    """Name of the evicted rows written at this epoch, of which there may be several."""
    return f"cold-{fence:010d}-{epoch:012d}-{number:04d}.rows"


def history_name(fence: int, epoch: int) -> str:
    """Name of the copy of a manifest that is kept as history."""
    return f"history-{fence:010d}-{epoch:012d}.json"


def manifest_name(fence: int, epoch: int) -> str:
    """Name of the manifest of this epoch."""
    return f"manifest-{fence:010d}-{epoch:012d}.json"


def highest_fence(names: Iterable[str]) -> int:
    """The fence of the present owner; 0 where nobody ever claimed the shard."""
    return max((_fence_of(name) for name in names if name.startswith("fence-")), default=0)


def manifests_newest_first(names: Iterable[str]) -> list[str]:
    """Manifests in the order in which a restore tries them."""
    return sorted((name for name in names if name.startswith("manifest-") and name.endswith(".json")), reverse=True)


def needs_base(segments: Sequence[Segment], saved_bytes: int, changed_bytes: int) -> bool:
    """Whether the next checkpoint writes all rows: where a restore would otherwise read far more than the live ones.

    Args:
        segments: What a restore reads now.
        saved_bytes: About what all rows would take.
        changed_bytes: About what the rows that changed would take.
    """
    if not segments or len(segments) >= _MOST_SEGMENTS:
        return True
    read = sum(segment.bytes for segment in segments) + changed_bytes
    return read > max(_MOST_READ * saved_bytes, _READ_ANYWAY)


def garbage(names: Iterable[str], kept: Sequence[Manifest], history: Sequence[Manifest] = ()) -> list[str]:
    """What may be deleted by the owner whose manifests, newest first, are `kept`.

    Everything that neither they nor the `history` within its policy names and that the owner or one before wrote: a
    later owner's files are not ours to judge. Foreign files are never touched.
    """
    own_fence = max(manifest.fence for manifest in kept)
    needed = {fence_name(own_fence)}
    needed.update(manifest_name(manifest.fence, manifest.epoch) for manifest in kept)
    needed.update(history_name(manifest.fence, manifest.epoch) for manifest in history)
    for manifest in (*kept, *history):
        needed.update(segment.name for segment in (*manifest.segments, *manifest.cold))
    return sorted(name for name in names if name not in needed and 0 < _fence_of(name) <= own_fence)


def _fence_of(name: str) -> int:
    match = _NAME.fullmatch(name)
    return int(match["fence"]) if match else 0
