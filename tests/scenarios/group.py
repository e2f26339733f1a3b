"""A consumer group in a test: replicas over one store and one set of outputs, and a coordinator that moves shards.

What outlives processes is here: the logs, what was acknowledged, the store. A `Replica` is a process: a pipeline with
its own source and sinks. The coordinator rebalances eagerly, as aiokafka does: every member gives back all it has, and
waits for its pipeline to put it in order; then all shards are dealt anew. A **zombie** is a member that the coordinator
gave up on without its knowledge: it goes on with what it has until it notices.

    group = Group(folder, seed=7); await group.live(["join", "rebalance", "crash", "zombie", ...]); group.check()

Whatever happened, `check` demands what the undisturbed run gives: alerts and scores without their copies, the rows at
the end, and that each lineage took each record once.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detector.checkpoint.base import Store
from detector.checkpoint.protocol import Identity
from detector.checkpoint.restore import claim, load
from detector.checkpoint.stores.dir import DirStore
from detector.clock import Clock, ManualClock
from detector.pipeline import Input, Pipeline
from detector.records import Alert, Outcome, Records, Scores, Shard
from detector.settings import DirCheckpointSettings
from detector.sinks.base import DeadLetter, Tail
from detector.sinks.deliver import Deliveries
from detector.sources.base import Bounds, Revoked
from detector.telemetry import Telemetry
from tests.scenarios.echo import SHA256, EchoEngine, S, plain_feed, records
from tests.scenarios.underway import Underway

_TICK_S = 0.002  # real time between two steps of the schedule, and of the clock
_SPEED = 20  # so many times as fast the pipelines' clock runs


class Applied(EchoEngine):
    """An engine that refuses to take a record twice or to leave one out; logs here have no holes."""

    def __init__(self, group: Group, shard: Shard) -> None:
        super().__init__(shard)
        self._group = group

    def advance(self, records: Records) -> Outcome:
        """Count what is applied."""
        start = int(records.positions[0])
        if start != self.position:
            self._group.faults.append(f"{self.shard}: a lineage at {self.position} was given {start}")
        self._group.applied[self.shard] += len(records)
        return super().advance(records)


class GroupSource:
    """A member of the group."""

    name = "group"

    def __init__(self, group: Group) -> None:
        self._group = group
        self.owned: dict[Shard, int | None] = {}
        """Shards that are ours, and where to read on; None while paused."""
        self._lineage: Counter[Shard] = Counter()
        """Raised with each resume, pause and revocation: a read that straddles one is void."""
        self._gained: list[Shard] | None = None
        self._revoked: Revoked | None = None

    async def start(self) -> None:
        """Joining is the coordinator's act."""

    @property
    def reclaim_s(self) -> float | None:
        """A session."""
        return self._group.reclaim_s

    def listen(self, revoked: Revoked) -> None:
        """To be awaited before shards go."""
        self._revoked = revoked

    @property
    def is_listened_to(self) -> bool:
        """Whether the pipeline has come so far that a revocation would be heard."""
        return self._revoked is not None

    async def revoke(self, within_s: float) -> None:
        """Give everything back, in order."""
        shards = list(self.owned)
        self._gained = [shard for shard in self._gained or () if shard not in shards] or None
        if shards and self._revoked is not None:
            await self._revoked(shards, within_s)
        self._lineage.update(shards)
        self.owned.clear()

    def assign(self, shards: Sequence[Shard]) -> None:
        """Take what the coordinator deals."""
        self.owned |= dict.fromkeys(shards)
        self._gained = [*(self._gained or []), *shards]

    async def assigned(self) -> list[Shard] | None:
        """Since the last call."""
        gained, self._gained = self._gained, None
        return gained

    async def shards(self) -> list[Shard]:
        """All."""
        return list(self._group.logs)

    async def partitions(self, shard: Shard) -> int | None:
        """As many as there are logs."""
        return len(self._group.logs)

    async def bounds(self, shard: Shard, near: int | None = None) -> Bounds:
        """The whole log."""
        return Bounds(0, len(self._group.logs[shard]))

    async def anchor(self, shard: Shard, position: int) -> str | None:
        """The record before, in words."""
        return repr(self._group.logs[shard][position - 1]) if position else None

    async def resume(self, shard: Shard, position: int) -> None:
        """Read from there."""
        if shard in self.owned:
            self._lineage[shard] += 1
            self.owned[shard] = position

    async def pause(self, shard: Shard) -> None:
        """Rest."""
        if shard in self.owned:
            self._lineage[shard] += 1
            self.owned[shard] = None

    async def poll(self, timeout_s: float) -> list[Records]:
        """A few records of each shard; what was read for a lineage that ended meanwhile is not handed over."""
        rng, read = self._group.random, []
        for shard, start in self.owned.items():
            if start is not None and start < len(self._group.logs[shard]):
                end = start + rng.randint(1, self._group.largest_poll)
                read.append((self._group.records(shard, start, end), self._lineage[shard]))
        await asyncio.sleep(rng.choice([0, 0.001, 0.003]) + self._group.pace_s)
        found = [batch for batch, lineage in read if lineage == self._lineage[batch.shard]]
        for batch in found:
            self.owned[batch.shard] = batch.next_position
        return found

    @property
    def exhausted(self) -> bool:
        """Never."""
        return False

    async def commit(self, positions: dict[Shard, int]) -> None:
        """Only what is ours."""
        for shard, position in positions.items():
            if shard in self.owned:
                self._group.committed[shard] = position

    async def stop(self) -> None:
        """Leaving is the coordinator's act."""


class TopicSink:
    """Writes to outputs that all replicas share, a list per shard; acknowledges late, and now and then is full."""

    guarantee = "survives as much as the test says"

    def __init__(self, group: Group, kind: str) -> None:
        self.name, self._group = kind, group
        self._buffer: list[tuple[Shard, Any]] = []
        self._acknowledged: dict[Shard, int] = {}

    async def start(self) -> None:
        """Nothing to connect to."""

    async def deliver_alerts(self, shard: Shard, alerts: Sequence[Alert]) -> None:
        """Buffer them; a full sink takes a while."""
        await asyncio.sleep(self._group.random.choice([0, 0, self._group.full_s]))
        self._buffer += [(shard, alert) for alert in alerts]

    async def deliver_scores(self, shard: Shard, scores: Sequence[Scores]) -> None:
        """Buffer (position, score)."""
        for each in scores:
            self._buffer += [(shard, pair) for pair in zip(each.positions.tolist(), each.score.tolist(), strict=True)]

    async def deliver_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Buffer them."""
        self._buffer += [(letter.shard, letter.position) for letter in letters]

    async def flush(self) -> None:
        """Acknowledge everything accepted before the call, after a while."""
        waiting = len(self._buffer)
        await asyncio.sleep(0.001)
        self._settle(waiting)

    async def alert_mark(self, shard: Shard) -> int | None:
        """After the last that we know of; before any, the end."""
        return self._acknowledged.get(shard, len(self._topic(shard)))

    async def alert_tail(self, shard: Shard, mark: int) -> Tail:
        """Ids from the mark on."""
        topic = self._topic(shard)
        return Tail(frozenset(each.id for each in topic[mark:]), len(topic))

    async def stop(self) -> None:
        """Flush."""
        await self.flush()

    def crash(self) -> None:
        """Some of what was in flight had arrived, in order."""
        self._settle(self._group.random.randint(0, len(self._buffer)))
        self._buffer.clear()

    def _topic(self, shard: Shard) -> list[Any]:
        return self._group.outputs.setdefault((self.name, shard), [])

    def _settle(self, count: int) -> None:
        for shard, item in self._buffer[:count]:
            self._topic(shard).append(item)
            self._acknowledged[shard] = len(self._topic(shard))
        del self._buffer[:count]


class SharedStore:
    """The store of all replicas; it may stall, or take long."""

    def __init__(self, group: Group, inner: Store) -> None:
        self._group, self._inner = group, inner
        self.open = asyncio.Event()
        self.open.set()
        self.reads: list[str] = []
        self._underway = Underway()
        self.settled = self._underway.settled

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._inner, verb)

    async def read(self, shard: Shard, name: str) -> bytes:
        """As the store says; noted."""
        self.reads.append(name)
        return await self._inner.read(shard, name)

    async def write(self, shard: Shard, name: str, blocks: Sequence[bytes]) -> None:
        """Now and then an fsync takes five seconds."""
        await self.open.wait()
        if self._group.random.random() < self._group.slow_share:
            self._group.skip(5)
            self._group.done["slow"] += 1
        await self._underway.carry_out(self._inner.write(shard, name, blocks))

    async def create(self, shard: Shard, name: str) -> bool:
        """As the store says."""
        return await self._underway.carry_out(self._inner.create(shard, name))

    async def delete(self, shard: Shard, names: Sequence[str]) -> None:
        """As the store says."""
        await self._underway.carry_out(self._inner.delete(shard, names))


class Replica:
    """A process."""

    def __init__(self, group: Group, *, new_engine: Callable[[Shard], Any] | None = None, **settings: Any) -> None:
        self.source, self.telemetry = GroupSource(group), Telemetry()
        self.sinks = [TopicSink(group, kind) for kind in ("alerts", "scores", "letters")]
        alerts, scores, letters = self.sinks
        self.pipeline = Pipeline(
            inputs=[Input(self.source, "earliest", new_engine or partial(Applied, group), turn=group.new_turn())],
            deliveries=Deliveries({"alerts": alerts}, {"scores": scores}, {"letters": letters}),
            store=group.store,
            identity=group.identity,
            telemetry=self.telemetry,
            clock=group.clock,
            checkpoint=DirCheckpointSettings(**group.settings | settings),
        )
        self.running = asyncio.create_task(self.pipeline.run())
        group.replicas.append(self)

    async def crash(self) -> None:
        """SIGKILL."""
        self.running.cancel()
        await asyncio.wait([self.running])
        for sink in self.sinks:
            sink.crash()

    async def drain(self) -> None:
        """SIGTERM."""
        self.pipeline.drain()
        await asyncio.wait_for(self.running, 10)
        for sink in self.sinks:
            await sink.stop()


class Group:
    """Logs, store, outputs, members, and the coordinator."""

    reclaim_s: float | None = 0.02
    pace_s = 0.0
    """Added to every poll."""
    largest_poll = 8
    full_s = 0.004
    """How long a full sink holds alerts up."""
    new_turn: Callable[[], Any] = asyncio.Lock

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        shards: int = 3,
        count: int = 250,
        slow_share: float = 0.0,
        clock: Clock | None = None,
        store: Store | None = None,
        **settings: Any,
    ) -> None:
        self.random, self.slow_share = random.Random(seed), slow_share
        self.logs: dict[Shard, list[S]] = {
            Shard("cluster", "sensors", number): plain_feed(count, seed=seed * 10 + number) for number in range(shards)
        }
        self.clock = clock or ManualClock()
        self.settings = {"every_s": 0.2, "replay_bound_s": 3.0} | settings
        self.identity = Identity({"echo": (SHA256, "echo@1")}, "configuration", "numerics")
        self.store = SharedStore(self, store or DirStore(folder))
        self.outputs: dict[tuple[str, Shard], list[Any]] = {}
        self.committed: dict[Shard, int] = {}
        self.applied: Counter[Shard] = Counter()
        self.faults: list[str] = []
        self.done: Counter[str] = Counter()
        """What happened, by its word; a test that did nothing fails by it."""
        self.replicas: list[Replica] = []
        """All that there ever were."""
        self.members: list[Replica] = []
        self.zombies: list[Replica] = []
        self._dealt = 0

    def skip(self, seconds: float) -> None:
        """Let time pass on the pipelines' clock, where it is ours to move."""
        if isinstance(self.clock, ManualClock):
            self.clock.advance(seconds)

    # What can happen

    async def join(self) -> None:
        """One more replica."""
        self.members.append(Replica(self))
        await self.rebalance()

    async def leave(self) -> None:
        """One replica drains, unless it is the last."""
        if len(self.members) > 1:
            gone = self.members.pop(self.random.randrange(len(self.members)))
            await gone.drain()
            await self.rebalance()

    async def rebalance(self, within_s: float = 5.0) -> None:
        """Everyone gives everything back; then it is dealt anew."""
        await asyncio.gather(*(member.source.revoke(within_s) for member in self.members))
        self._dealt += 1
        dealt: dict[int, list[Shard]] = {number: [] for number in range(len(self.members))}
        for number, shard in enumerate(self.logs):
            dealt[(number + self._dealt) % len(self.members)].append(shard)
        for number, member in enumerate(self.members):
            member.source.assign(dealt[number])

    async def hasty(self) -> None:
        """A rebalance that leaves no time for anything."""
        await self.rebalance(within_s=0.0)

    async def back(self) -> None:
        """A rebalance after which everything is where it was."""
        self._dealt -= 1
        await self.rebalance()

    async def crash(self) -> None:
        """SIGKILL; another takes its place."""
        gone = self.members.pop(self.random.randrange(len(self.members)))
        await gone.crash()
        self.members.append(Replica(self))
        await self.rebalance()

    async def zombie(self) -> None:
        """SIGSTOP past the session: its shards are given to others, and it goes on without knowing."""
        if len(self.members) > 1:
            self.zombies.append(self.members.pop(self.random.randrange(len(self.members))))
            await self.rebalance()

    async def wake(self) -> None:
        """The zombies learn that they were given up on, and join again."""
        if self.zombies:
            await asyncio.gather(*(zombie.source.revoke(5.0) for zombie in self.zombies))
            self.members += self.zombies
            self.zombies.clear()
            await self.rebalance()

    async def claim(self) -> None:
        """Somebody claims a shard and dies."""
        await claim(self.store, self.random.choice(list(self.logs)))

    async def stall(self) -> None:
        """The store writes nothing, beyond the replay bound."""
        self.store.open.clear()
        self.skip(10)
        await asyncio.sleep(10 * _TICK_S)
        self.store.open.set()

    # A life

    async def live(self, schedule: Sequence[str]) -> None:
        """Do one thing after the other, then let everybody come to the end and leave."""
        ticking = asyncio.create_task(self.tick())
        try:
            await self.join()
            for word in schedule:
                await asyncio.sleep(self.random.uniform(0, 20) * _TICK_S)
                self._raise_failures()
                await getattr(self, word)()
                self.done[word] += 1
            await self.wake()
            await asyncio.wait_for(self._come_to_the_end(), 30)
            for member in self.members:
                await member.drain()
        finally:
            ticking.cancel()
            for replica in (*self.members, *self.zombies):
                replica.running.cancel()
            await asyncio.gather(*(each.running for each in (*self.members, *self.zombies)), return_exceptions=True)

    async def tick(self) -> None:
        """Let time pass, for ever."""
        while True:
            await asyncio.sleep(_TICK_S)
            self.skip(_TICK_S * _SPEED)

    async def _come_to_the_end(self) -> None:
        while True:
            self._raise_failures()
            live = {shard: each.position for member in self.members for shard, each in member.pipeline.live.items()}
            if all(live.get(shard) == len(log) for shard, log in self.logs.items()):
                return
            await asyncio.sleep(_TICK_S)

    def _raise_failures(self) -> None:
        for replica in (*self.members, *self.zombies):
            if replica.running.done():
                replica.running.result()

    @property
    def warm_restores(self) -> int:
        """How many shards went on with memory that was there already, over all replicas that there ever were."""
        return sum(
            int(each.telemetry.registry.get_sample_value("tidewarden_warm_restores_total") or 0)
            for each in self.replicas
        )

    def records(self, shard: Shard, start: int, end: int) -> Records:
        """A piece of a log."""
        return records(self.logs[shard][start:end], start, shard)

    # What must be true

    async def check(self) -> int:
        """Demand what the undisturbed run gives; returns how many alerts came twice."""
        assert not self.faults, self.faults[:3]
        copies = 0
        for shard, log in self.logs.items():
            engine = EchoEngine(shard)
            outcome = engine.advance(records(log, 0, shard))
            alerts = self.outputs.get(("alerts", shard), [])
            assert {alert.id: alert for alert in alerts} == {alert.id: alert for alert in outcome.alerts}
            assert all(alert == {each.id: each for each in outcome.alerts}[alert.id] for alert in alerts), "conflicting"
            copies += len(alerts) - len(outcome.alerts)
            scores = outcome.scores[0]
            given = self.outputs.get(("scores", shard), [])
            assert set(given) == set(zip(scores.positions.tolist(), scores.score.tolist(), strict=True))
            assert set(self.outputs.get(("letters", shard), [])) == {each.position for each in outcome.rejects}
            loaded = await load(self.store, shard)
            assert loaded is not None
            assert loaded.manifest.position == len(log)
            restored = EchoEngine(shard)
            restored.restore(loaded.manifest.position, loaded.manifest.highest_event_ns, loaded.arenas)
            assert restored.rows == engine.rows
            assert self.applied[shard] >= len(log)
        return copies
