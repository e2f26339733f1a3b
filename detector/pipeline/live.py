"""One source as the pipeline sees it, and one shard of it from its restore to the moment when it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from detector.checkpoint.policies import Policies
from detector.checkpoint.protocol import Checkpointer
from detector.checkpoint.restore import Start
from detector.engine import Engine
from detector.records import Shard
from detector.sources.base import Source


@dataclass(frozen=True, slots=True)
class Input:
    """A source, and how its shards are begun and scored."""

    source: Source
    start: Start
    new_engine: Callable[[Shard], Engine]
    policies: Policies = field(default_factory=Policies)
    """What becomes of a checkpoint that no longer fits."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a poll is carried through; free while records are waited for."""


@dataclass(slots=True, eq=False)
class LiveShard:
    """A shard that is restored and being read: one lineage."""

    input: Input
    engine: Engine
    checkpointer: Checkpointer
    position: int
    replay_until: int
    """Below it outputs may have been sent before a restart."""
    known_alerts: Mapping[str, frozenset[str]]
    """Per sink the ids not to send again; emptied behind the replay: what is closed at its very end was told too."""
    writing: asyncio.Task[None] | None = None
    """The checkpoint under way."""
    moved_s: float | None = None
    """When the first record was processed that the last manifest does not know."""
    is_resting: bool = False
    """Paused: the store stalls."""
    has_flushed: bool = False
    """Its source has ended, and samples were closed for that; no position tells."""

    @property
    def shard(self) -> Shard:
        """Which one."""
        return self.checkpointer.shard

    @property
    def is_replaying(self) -> bool:
        """Whether records are being read for the second time."""
        return self.position < self.replay_until

    @property
    def has_moved(self) -> bool:
        """Whether there is anything that the last manifest does not know."""
        return self.has_flushed or self.position != self.checkpointer.manifest.position

    def advance_to(self, position: int, now_s: float) -> None:
        """Note that everything below `position` was handed to the sinks."""
        self.position = position
        self.moved_s = now_s if self.moved_s is None else self.moved_s
        if position > self.replay_until:
            self.known_alerts = {}

    def unkept_s(self, now_s: float) -> float:
        """For how long there has been something that no manifest knows."""
        return 0.0 if self.moved_s is None else now_s - self.moved_s
