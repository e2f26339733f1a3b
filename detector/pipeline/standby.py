"""Memory that is kept ready for shards that are not ours now: what was ours a moment ago, and what others have.

Shards that the group took away linger for a while. A standby also follows the checkpoints of every shard that it could
be given: it looks for a newer manifest about once a second and loads the segments that it lacks. It only reads: it
never claims, writes or deletes, so that any number of replicas may follow a shard. When a shard comes to us, its
restore takes the memory from here.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence

import structlog

from detector.checkpoint.base import Store
from detector.checkpoint.protocol import Identity
from detector.checkpoint.standby import is_followed, newer, refreshed
from detector.checkpoint.warm import Warm
from detector.clock import Clock
from detector.engine import Engine
from detector.errors import CheckpointError, LineageError, SourceError
from detector.pipeline.live import Input
from detector.records import Shard
from detector.telemetry import Telemetry

_FOLLOW_S = 1.0  # between two looks at a shard's manifests, give or take a quarter

_log = structlog.get_logger(__name__)


class WarmShards:
    """The warm memory of this replica, by shard."""

    def __init__(self, store: Store, identity: Identity, telemetry: Telemetry, clock: Clock, linger_s: float) -> None:
        self._store, self._identity = store, identity
        self._telemetry, self._clock, self._linger_s = telemetry, clock, linger_s
        self._held: dict[Shard, Warm[Engine]] = {}
        self._until_s: dict[Shard, float] = {}
        """When what lingers is forgotten; what is followed is not among it."""
        self._seen_s: dict[Shard, float] = {}
        """When the copy of what is followed was last as new as the store's."""
        self._turns: defaultdict[Shard, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Held while a shard's memory is worked on."""
        self._told: dict[Shard, str] = {}
        """What stands in the way of following a shard, said once."""

    def keep(self, warm: Warm[Engine]) -> None:
        """Keep what was ours a moment ago, for a while."""
        shard = warm.manifest.shard
        self._held[shard], self._until_s[shard] = warm, self._clock.monotonic_s() + self._linger_s

    async def take(self, shard: Shard) -> Warm[Engine] | None:
        """Hand over the memory for a shard that has come to us."""
        async with self._turns[shard]:
            return self._forget(shard)

    def expire(self) -> None:
        """Forget what has lingered for long enough."""
        now_s = self._clock.monotonic_s()
        for shard in [shard for shard, until_s in self._until_s.items() if until_s <= now_s]:
            self._forget(shard)

    def _forget(self, shard: Shard) -> Warm[Engine] | None:
        self._until_s.pop(shard, None)
        if self._seen_s.pop(shard, None) is not None:
            self._telemetry.followed(shard, None)
        return self._held.pop(shard, None)

    # Standby ------------------------------------------------------------------------------------------------------

    async def follow(self, inputs: Sequence[Input], is_ours: Callable[[Shard], bool]) -> None:
        """Keep a copy of every shard that others may have, for ever."""
        jitter = random.Random()  # spreads the looks of many replicas; no result depends on it
        while True:
            others = [(each, shard) for each in inputs for shard in await _shards(each) if not is_ours(shard)]
            for each, shard in others:
                async with self._turns[shard]:
                    if not is_ours(shard):  # it may have come to us meanwhile
                        await self._look(each, shard)
            for shard in self._seen_s.keys() - {shard for _, shard in others}:
                self._forget(shard)
            await asyncio.sleep(_FOLLOW_S * jitter.uniform(0.75, 1.25))

    async def _look(self, each: Input, shard: Shard) -> None:
        """Load what the store has beyond our copy."""
        now_s = self._clock.monotonic_s()
        try:
            loaded = await newer(self._store, shard, self._held.get(shard))
            if loaded is not None and not is_followed(loaded.manifest, self._identity):
                raise LineageError(shard, "checkpoint of other bundles", hint="it is carried over when it comes to us")
            if loaded is not None:
                # While it is worked on it is nobody's: what fails in the middle is gone.
                self._until_s.pop(shard, None)
                self._held[shard] = await refreshed(self._held.pop(shard, None), loaded, lambda: each.new_engine(shard))
        except CheckpointError as error:
            if self._told.get(shard) != str(error):
                _log.warning("standby cannot follow", shard=str(shard), error=str(error))
                self._told[shard] = str(error)
        else:
            self._told.pop(shard, None)
            if shard in self._held:
                self._until_s.pop(shard, None)
                self._seen_s[shard] = now_s
        if shard in self._seen_s:
            self._telemetry.followed(shard, self._clock.monotonic_s() - self._seen_s[shard])


async def _shards(each: Input) -> list[Shard]:
    try:
        return await each.source.shards()
    except SourceError as error:
        _log.warning("shards are not known", source=each.source.name, error=str(error))
        return []
