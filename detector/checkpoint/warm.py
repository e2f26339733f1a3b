"""Memory that is kept ready for a shard that is not ours now: one concept for what lingers and for what stands by.

After a revocation whose last checkpoint became durable, the engine's rows are exactly those of that manifest; they stay
for a while, in case the shard comes straight back. A standby holds the same for shards of other replicas, and follows
their checkpoints. Either way a restore then loads only the segments that the warm manifest does not name, from any
store. What makes that right is that a shard's rows are nothing but its list of segments taken in order: where the
newest manifest's list begins with the warm one's, the rest makes the same rows as all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from detector.checkpoint.base import manifest_name
from detector.checkpoint.format import Manifest, Segment
from detector.checkpoint.protocol import Memory

M = TypeVar("M", bound=Memory)


@dataclass(slots=True)
class Warm(Generic[M]):
    """An engine whose rows are exactly those of a manifest, until it is spent."""

    manifest: Manifest
    memory: M
    is_spent: bool = False
    """Its rows are being brought up to date: from here on they are of no manifest until that is done."""

    @property
    def name(self) -> str:
        """Of the manifest."""
        return manifest_name(self.manifest.fence, self.manifest.epoch)


def missing(manifest: Manifest, warm: Warm[M] | None) -> Sequence[Segment] | None:
    """The segments that turn the warm rows into those of `manifest`; None where they can't, and all must be read."""
    if warm is None or manifest.mixed:  # mixed: some of these segments are of a bundle that our rows are not of
        return None
    held = warm.manifest.segments
    return manifest.segments[len(held) :] if held and manifest.segments[: len(held)] == held else None
