"""What a source promises to the pipeline.

A source owns its client and its shards. It hands over bytes and positions and never decodes, so that no record can
pin it. The pipeline restores a shard first and then tells the source where to read it from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from detector.records import Records, Shard

Revoked: TypeAlias = Callable[[Sequence[Shard], float], Awaitable[None]]
"""Called with shards that are about to be taken away, and with the seconds that there are to put them in order. Returns
by then and never raises; afterwards nothing of these shards is expected any more, and nothing of them is applied."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a shard's log begins and ends right now."""

    low: int
    """The first position that can still be read."""
    high: int
    """One past the last position that was written."""


class Source(Protocol):
    """An edge that records come from. All methods run on the event loop; none blocks it."""

    name: str

    async def start(self) -> None:
        """Connect. Raises SourceError (retriable or not) when that is impossible."""
        ...

    @property
    def reclaim_s(self) -> float | None:
        """How long after another owner's claim a shard may still seem to be ours, where shards move between replicas.

        None where they never do: then another claim means that two replicas were given the same shard.
        """
        ...

    def listen(self, revoked: Revoked) -> None:
        """Await `revoked` before shards are given away. A source that never loses any forgets it."""
        ...

    async def assigned(self) -> list[Shard] | None:
        """Shards that came to us since the last call; None where nobody said anything, which is usual. Returns at once.

        [] is a word too: we are to have none. A shard that comes is paused until `resume`. One that was revoked and
        came back is told of again.
        """
        ...

    async def shards(self) -> list[Shard]:
        """Every shard that could come to us, ours included; others may have them now."""
        ...

    async def bounds(self, shard: Shard, near: int | None = None) -> Bounds:
        """Where the shard's log begins and ends now.

        `near` is the position of a checkpoint, where there is one: a file does not know how often it was rotated
        before we came, and takes its generation from there.
        """
        ...

    async def anchor(self, shard: Shard, position: int) -> str | None:
        """A fingerprint of what stands right before `position`; None where nothing does or it can't be read.

        A checkpoint keeps it, so that a topic that was created anew or a file that was replaced is noticed.
        """
        ...

    async def partitions(self, shard: Shard) -> int | None:
        """How many partitions the shard's topic has now; None where there are none, as with files.

        A checkpoint keeps it: with another number, keys stand in other partitions than their streams' memory.
        """
        ...

    async def resume(self, shard: Shard, position: int) -> None:
        """Start handing over the shard's records from `position` on; a shard that was revoked meanwhile is left alone.

        A poll that ends after this has returned hands over nothing that was read before.
        """
        ...

    async def pause(self, shard: Shard) -> None:
        """Hand over no more of the shard's records until `resume`; what a poll under way has already may still come."""
        ...

    async def poll(self, timeout_s: float) -> list[Records]:
        """Records that are there, at most one batch per shard, or [] after `timeout_s`.

        Not called while the pipeline has no room: that is the backpressure. Never cancelled from outside (T4).
        """
        ...

    @property
    def exhausted(self) -> bool:
        """True when a finite source has handed over everything; a live one never is."""
        ...

    async def commit(self, positions: dict[Shard, int]) -> None:
        """Tell the outside how far we are. Advisory: the manifest is the truth. Bounded in time; never raises."""
        ...

    async def stop(self) -> None:
        """Disconnect; safe to call twice and after a failed start."""
        ...
