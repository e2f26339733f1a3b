"""A world in which the pipeline can crash: fakes at our own contracts, and what survives of them.

A `World` is what outlives a process: the log of records, the outputs that were acknowledged, the checkpoint store. A
run of the pipeline in it ends at the feed's end, or by a `Crash`, after which the next run begins from what survived.

    feed = [s(0), s(1), CRASH, s(2)]        records and events as plain values
    world = World(feed); await world.survive()
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detector.checkpoint.base import Store
from detector.checkpoint.protocol import Identity
from detector.checkpoint.stores.dir import DirStore
from detector.clock import Clock, ManualClock, SystemClock
from detector.pipeline import Input, Pipeline
from detector.records import (
    Alert,
    Records,
    Scores,
    Shard,
)
from detector.settings import DirCheckpointSettings
from detector.sinks.base import DeadLetter, Tail
from detector.sinks.deliver import Deliveries
from detector.sources.base import Bounds, Revoked
from detector.telemetry import Telemetry
from tests.scenarios.echo import SHA256, SHARD, EchoEngine, S, alert, plain_feed, records, s
from tests.scenarios.underway import Underway

CRASH = "crash"
_DRAWN_OUT_S = 0.02


class Crash(Exception):  # noqa: N818  # it is an event of the test's world, not an error
    """The process is gone."""


class ListSource:
    """Hands over a feed in polls of random size; a CRASH in it strikes once, when reading gets there."""

    name = "list"

    def __init__(self, world: World) -> None:
        self._world, self._next, self._gained = world, None, [SHARD]

    async def start(self) -> None:
        """Nothing to connect to."""

    @property
    def reclaim_s(self) -> float | None:
        """Nobody else is there."""
        return None

    def listen(self, revoked: Revoked) -> None:
        """The shard is never taken away."""

    async def assigned(self) -> list[Shard] | None:
        """The one shard, at first."""
        gained, self._gained = self._gained, None
        return gained

    async def shards(self) -> list[Shard]:
        """The one."""
        return [SHARD]

    async def bounds(self, shard: Shard, near: int | None = None) -> Bounds:
        """All of the log."""
        return Bounds(self._world.low, len(self._world.log))

    async def anchor(self, shard: Shard, position: int) -> str | None:
        """The record before the position, in words."""
        return repr(self._world.log[position - 1]) if 0 < position <= len(self._world.log) else None

    async def partitions(self, shard: Shard) -> int | None:
        """As the world says."""
        return self._world.partitions

    async def resume(self, shard: Shard, position: int) -> None:
        """Read from there."""
        self._next = position

    async def pause(self, shard: Shard) -> None:
        """Stay there."""
        self._next = None

    async def poll(self, timeout_s: float) -> list[Records]:
        """The next few records."""
        await asyncio.sleep(self._world.pace_s)
        if self._next is None or self.exhausted:
            await asyncio.sleep(0.001)
            return []
        count = self._world.random.randint(1, self._world.largest_poll)
        if self._world.awaits_crash and 2 * self._next > len(self._world.log):
            # The rest is drawn out until the step has been reached, however slow the disk is.
            await asyncio.sleep(_DRAWN_OUT_S)
            count = 1
        items, start = self._world.log[self._next : self._next + count], self._next
        for at in range(start, start + len(items)):
            if at in self._world.crashes:
                self._world.crashes.remove(at)
                if at == start:
                    raise Crash(f"at {at}")
                items = items[: at - start]
                self._world.crashes.add(at)
                break
        self._next = start + len(items)
        return [records(items, start)]

    @property
    def exhausted(self) -> bool:
        """True at the feed's end."""
        return self._next is not None and self._next >= len(self._world.log)

    async def commit(self, positions: dict[Shard, int]) -> None:
        """Note it."""
        await self._world.reach("commit")
        self._world.committed |= positions

    async def stop(self) -> None:
        """Nothing to disconnect."""


class MemorySink:
    """Acknowledges late: what was accepted is safe only when flushed, or when the crash happens to spare it."""

    guarantee = "survives as much as the test says"

    def __init__(self, world: World, name: str) -> None:
        self.name, self._world, self._buffer = name, world, []
        self._acknowledged_to: int | None = None

    @property
    def _topic(self) -> list[Any]:
        return self._world.outputs.setdefault(self.name, [])

    async def start(self) -> None:
        """Nothing to connect to."""

    async def deliver_alerts(self, shard: Shard, alerts: Sequence[Alert]) -> None:
        """Buffer them."""
        await self._accept(alerts)

    async def deliver_scores(self, shard: Shard, scores: Sequence[Scores]) -> None:
        """Buffer (position, score)."""
        for each in scores:
            await self._accept(list(zip(each.positions.tolist(), each.score.tolist(), strict=True)))

    async def deliver_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Buffer them."""
        await self._accept(letters)

    async def flush(self) -> None:
        """Acknowledge everything accepted before the call, after a while."""
        await self._world.reach(f"flush {self.name}")
        waiting = len(self._buffer)
        await asyncio.sleep(self._world.linger_s)
        await self._world.acknowledge(self.name)
        self._settle(waiting)

    async def alert_mark(self, shard: Shard) -> int | None:
        """After the last acknowledged alert; before any, the end."""
        return len(self._topic) if self._acknowledged_to is None else self._acknowledged_to

    async def alert_tail(self, shard: Shard, mark: int) -> Tail:
        """Ids from the mark on."""
        return Tail(frozenset(each.id for each in self._topic[mark:]), len(self._topic))

    async def stop(self) -> None:
        """Flush."""
        await self.flush()

    def crash(self) -> None:
        """The process is gone: some of what was in flight had arrived, in order."""
        self._settle(self._world.random.randint(0, len(self._buffer)) if self._world.spares_some else 0)

    async def _accept(self, items: Sequence[Any]) -> None:
        self._buffer += items

    def _settle(self, count: int) -> None:
        count = min(count, len(self._buffer))
        self._topic.extend(self._buffer[:count])
        del self._buffer[:count]
        if count:
            self._acknowledged_to = len(self._topic)


class StumblingStore:
    """A store in which a step can be reached by a crash, before or after it was done."""

    def __init__(self, world: World, inner: Store) -> None:
        self._world, self._inner = world, inner

    def where(self, shard: Shard) -> str:
        """As the store says."""
        return self._inner.where(shard)

    async def names(self, shard: Shard) -> list[str]:
        """As the store says."""
        return await self._inner.names(shard)

    async def read(self, shard: Shard, name: str) -> bytes:
        """As the store says."""
        return await self._inner.read(shard, name)

    async def write(self, shard: Shard, name: str, blocks: Sequence[bytes]) -> None:
        """Write, or crash before or after."""
        kind = name.partition("-")[0]
        await self._world.reach(f"before {kind}")
        await self._world.underway.carry_out(self._inner.write(shard, name, blocks))
        await self._world.reach(f"after {kind}")

    async def create(self, shard: Shard, name: str) -> bool:
        """As the store says."""
        return await self._world.underway.carry_out(self._inner.create(shard, name))

    async def delete(self, shard: Shard, names: Sequence[str]) -> None:
        """Delete, or crash before."""
        await self._world.reach("delete")
        await self._world.underway.carry_out(self._inner.delete(shard, names))


@dataclass
class World:
    """What survives a crash, and how the next process is started."""

    feed: Sequence[S | str]
    folder: Path
    seed: int = 0
    largest_poll: int = 8
    linger_s: float = 0.0
    pace_s: float = 0.0
    every_s: float = 0.001
    clock: Clock = field(default_factory=SystemClock)
    spares_some: bool = True
    """Whether a crash lets part of what was in flight arrive."""
    low: int = 0
    partitions: int | None = None
    """How many partitions the topic has."""
    start: str = "earliest"
    crash_at: tuple[str, int] | None = None
    """A step by name, and at which time of reaching it to crash."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.log = [item for item in self.feed if isinstance(item, S)]
        self.crashes = set()
        before = 0
        for item in self.feed:
            before += isinstance(item, S)
            if item == CRASH:
                self.crashes.add(before)
        self.outputs: dict[str, list[Any]] = {}
        self.committed: dict[Shard, int] = {}
        self.reached: dict[str, int] = {}
        self.runs = self.crashed = 0
        self.store, self.underway = DirStore(self.folder), Underway()
        self.identity = Identity({"echo": (SHA256, "echo@1")}, "configuration", "numerics")

    @property
    def awaits_crash(self) -> bool:
        """Whether the step to crash at is still to come."""
        return self.crash_at is not None and not self.crashed

    async def reach(self, step: str) -> None:
        """A step of the protocol is reached: the place to crash at."""
        self.reached[step] = self.reached.get(step, 0) + 1
        if self.crash_at == (step, self.reached[step]):
            raise Crash(step)

    async def acknowledge(self, sink: str) -> None:
        """A sink is about to acknowledge; tests may override it to fail."""

    def pipeline(self, **changes: Any) -> Pipeline:
        """A new process."""
        self.sinks = [MemorySink(self, name) for name in ("alerts", "scores", "letters")]
        alerts, scores, letters = self.sinks
        self.engine = EchoEngine(SHARD)
        self.telemetry = Telemetry()
        parts: dict[str, Any] = {
            "inputs": [Input(ListSource(self), self.start, lambda _: self.engine)],
            "deliveries": Deliveries({"alerts": alerts}, {"scores": scores}, {"letters": letters}),
            "store": StumblingStore(self, self.store),
            "identity": self.identity,
            "telemetry": self.telemetry,
            "clock": self.clock,
            "checkpoint": DirCheckpointSettings(every_s=self.every_s),
        }
        return Pipeline(**(parts | changes))

    async def run(self, **changes: Any) -> None:
        """One process, to the feed's end or a crash."""
        self.runs += 1
        pipeline = self.pipeline(**changes)
        try:
            await asyncio.wait_for(pipeline.run(), 120)
            for sink in self.sinks:
                await sink.stop()
        except* Crash:
            self.crashed += 1
            for sink in self.sinks:
                sink.crash()
        finally:
            await self.underway.settled()

    async def survive(self, most_runs: int = 100) -> None:
        """Processes, until one reaches the feed's end."""
        for _ in range(most_runs):
            before = self.crashed
            await self.run()
            if self.crashed == before:
                return
        raise AssertionError(f"still crashing after {most_runs} runs")

    def alerts(self) -> list[Alert]:
        """What stands on the alerts' output."""
        return self.outputs.get("alerts", [])


__all__ = [
    "CRASH",
    "SHARD",
    "Crash",
    "EchoEngine",
    "ManualClock",
    "MemorySink",
    "S",
    "World",
    "alert",
    "plain_feed",
    "records",
    "s",
]
