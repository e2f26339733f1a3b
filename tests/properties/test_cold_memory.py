"""Wherever a stream's row is, its results are the same: evicted and back, through crashes and stores that fail.

A feed is lived through by processes that die at any await, over a store whose writes fail now and then, with memory
for few streams or for all. Every sample's score, every alert, every count of streams forgotten and the rows at the end
must be those of one engine that read the feed in one go. A life in which nothing was evicted, brought back, crashed or
failed proves nothing, and fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from detector.checkpoint.edit import read_held
from detector.checkpoint.protocol import Checkpointer, Identity, Outputs
from detector.checkpoint.restore import restore
from detector.clock import ManualClock
from detector.engine import Engine
from detector.errors import CheckpointError, CorruptCheckpointError
from detector.records import ArenaRows, Outcome, Records, Shard
from detector.settings import EngineSettings, RecordSettings
from detector.sources.base import Bounds
from tests.engine_feed import SHARD, START_S, PlainModel, detector, records

RECORDS = 1200
STREAMS = 40
DECIDE = {"resolve_after_s": 60.0, "update_every_s": 50.0, "cool_down_s": 10.0, "resolve_samples": 2}
FORGET_S = 900.0
LIMITS = [7, 20, 10**6]


class Crash(BaseException):
    """The process is gone."""


class Result(NamedTuple):
    """All that must not depend on where rows are."""

    scores: dict[tuple[str, int], bytes]
    alerts: dict[str, bytes]
    rows: dict[str, dict[str, bytes]]


@dataclass
class Life:
    """What outlives processes, and how they are made."""

    feed: list[bytes]
    positions: list[int]
    limit: int
    is_narrow: bool
    seed: int
    fails: float = 0.0
    crashes: float = 0.0
    forget_s: float | None = None
    new_engine: Callable[..., Engine] = Engine
    blobs: dict[str, bytes] = field(default_factory=dict)
    scores: dict[tuple[str, int], bytes] = field(default_factory=dict)
    alerts: dict[str, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def engine(self) -> Engine:
        """A new one."""
        record = RecordSettings(channel="channel", value="value") if self.is_narrow else RecordSettings()
        of = detector(PlainModel(), decide=DECIDE, channels=["v", "w"] if self.is_narrow else None)
        settings = EngineSettings(max_streams=self.limit, forget_after_s=self.forget_s)
        return self.new_engine(SHARD, [of], record, settings)

    def poll(self, start: int, count: int) -> Records:
        """Records of the feed from one on."""
        end = min(start + count, len(self.feed))
        made = records(self.feed[start:end], positions=self.positions[start:end])
        made.next_position = self.positions[end] if end < len(self.feed) else self.positions[-1] + 1
        return made

    def note(self, outcome: Outcome) -> None:
        """Keep what came out; what comes again after a crash must be the same."""
        for scores in outcome.scores:
            columns = zip(scores.score, scores.threshold, scores.anomaly, strict=True)
            for stream, position, bits in zip(scores.streams, scores.positions.tolist(), columns, strict=True):
                self._put(self.scores, (stream, position), b"".join(bit.tobytes() for bit in bits))
        for alert in outcome.alerts:
            self._put(self.alerts, alert.id, msgspec.json.encode(alert))
        self.counts.update(outcome.counts)

    def _put(self, where: dict[Any, bytes], key: Any, what: bytes) -> None:
        if where.setdefault(key, what) != what:
            self.counts["contradictions"] += 1

    # The store, with the faults of one --------------------------------------------------------------------------------

    def where(self, shard: Shard) -> str:
        return "life"

    async def names(self, shard: Shard) -> list[str]:
        await self.stumble()
        return list(self.blobs)

    async def read(self, shard: Shard, name: str) -> bytes:
        if name not in self.blobs:
            raise CorruptCheckpointError(name, "read", got="nothing")
        return self.blobs[name]

    async def write(self, shard: Shard, name: str, blocks: Sequence[bytes]) -> None:
        await self.stumble()
        self.counts["writes"] += 1
        some_for_sure = self.counts["writes"] % 8 == 5 and self.counts["failed"] < 40  # a checkpoint may be 8 writes
        if self.fails and (self.random.random() < self.fails or some_for_sure):
            self.counts["failed"] += 1
            raise CheckpointError(name, "write", got="no space left")
        assert name not in self.blobs
        self.blobs[name] = b"".join(blocks)
        await self.stumble()

    async def create(self, shard: Shard, name: str) -> bool:
        if name in self.blobs:
            return False
        self.blobs[name] = b""
        return True

    async def delete(self, shard: Shard, names: Sequence[str]) -> None:
        for name in names:
            self.blobs.pop(name, None)

    async def stumble(self) -> None:
        """A place where others go on, and where the process may die."""
        for _ in range(self.random.randint(0, 4)):
            await asyncio.sleep(0)
        self.counts["stumbles"] += 1
        if self.crashes and (self.random.random() < self.crashes or self.counts["stumbles"] % 50 == 49):
            raise Crash


class StillSource:
    """A source that is only asked about itself."""

    def __init__(self, end: int) -> None:
        self._end = end

    async def bounds(self, shard: Shard, near: int | None = None) -> Bounds:
        return Bounds(0, self._end)

    async def anchor(self, shard: Shard, position: int) -> str | None:
        return None

    async def partitions(self, shard: Shard) -> int | None:
        return None

    async def commit(self, positions: dict[Shard, int]) -> None:
        """Nobody listens."""


class Inline(Executor):
    """The engine's thread, which is this one: what is random happens in one order."""

    def submit(self, act: Any, /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(act(*given, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def wide_feed(seed: int, streams: int = STREAMS, count: int = RECORDS, *, is_narrow: bool = False) -> list[bytes]:
    """Streams come in waves of a few, so that most are away for a while; some fire, some are late, some are broken."""
    numbers, now, lines = random.Random(seed), 0.0, []
    awake: list[int] = []
    for at in range(count):
        if at % 100 == 0:
            awake = numbers.sample(range(streams), min(streams, 9))
        now += numbers.choice([0, 1, 5, 20])
        stream = numbers.choice(awake) if numbers.random() < 0.9 else numbers.randrange(streams)
        time = START_S + max(0.0, now - numbers.choice([0, 0, 0, 0, 7, 300]))
        value = numbers.choice([0.0, 1.0, 2.5, 3.0, 9.0 if numbers.random() < 0.3 else 0.5])
        document: dict[str, Any] = {"stream": f"s-{stream}", "time": time}
        if is_narrow:
            document |= {"channel": numbers.choice("vw"), "value": value}
        else:
            document |= {"values": {"v": value} if stream % 5 else {"a": value, "b": 1.0}}
        lines.append(b"{" if numbers.random() < 0.01 else json.dumps(document).encode())
    return lines


def positions(seed: int, count: int = RECORDS) -> list[int]:
    """They skip, so that looks for silence and for streams to forget fall due now and then."""
    steps = np.random.default_rng(seed).choice([1, 40, 300, 1500], count)
    found: list[int] = np.cumsum(steps).tolist()
    return found


def rows_of(arenas: Sequence[ArenaRows]) -> dict[str, dict[str, bytes]]:
    """Per stream the bytes of its row."""
    found: dict[str, dict[str, bytes]] = {}
    for rows in arenas:
        for at, stream in enumerate(rows.streams):
            assert stream not in found
            found[stream] = {name: array[at].tobytes() for name, array in rows.arrays.items()}
    return found


async def live(life: Life) -> Result:
    """Processes, until one gets to the feed's end and makes its last checkpoint."""
    for _ in range(500):
        try:
            held = await process(life)
        except (Crash, CheckpointError):  # a store that fails at the start or the end is waited for by a restart
            life.counts["crashed"] += 1
        else:
            return Result(life.scores, life.alerts, rows_of(held))
    raise AssertionError("still crashing")


async def process(life: Life) -> list[ArenaRows]:
    """One: from the newest checkpoint on, with checkpoints that are written while the shard goes on."""
    engine, source = life.engine(), StillSource(life.positions[-1] + 1)
    identity = Identity({"plain": (PlainModel().bundle.sha256, "plain@1")}, "configuration", "numerics")
    parts: dict[str, Any] = {"memory": engine, "store": life, "source": source, "identity": identity}
    parts["clock"] = ManualClock()
    restored = await restore(SHARD, start="earliest", alerts={}, **parts)
    keeper = Checkpointer(manifest=restored.manifest, engine_thread=Inline(), outputs=Outputs({}), every_s=1, **parts)
    at = int(np.searchsorted(life.positions, restored.manifest.position))
    writing: asyncio.Task[Any] | None = None
    try:
        while at < len(life.feed):
            polled = life.poll(at, life.random.choice([1, 5, 10, 30]))
            await keeper.cold.bring_back(polled)
            life.note(engine.advance(polled))
            at += len(polled)
            await life.stumble()
            if writing is not None and not at % 3:
                await asyncio.wait([writing])  # or a slow machine gets to the end with hardly a checkpoint
            if writing is not None and writing.done():
                settle(writing)
                writing = None
            if writing is None and life.random.random() < 0.5:
                taken = await keeper.take(is_replaying=False)
                life.counts["evicted"] += taken.cold.evicted
                life.counts["joined"] += len(taken.cold.sparse)
                writing = asyncio.create_task(keeper.make_durable(taken))
        if engine.is_narrow:
            await keeper.cold.bring_back_begun()
            life.note(engine.flush())
        while True:
            if writing is not None:
                await asyncio.wait([writing])
                if settle(writing):
                    break
            writing = asyncio.create_task(keeper.make_durable(await keeper.take(is_replaying=False)))
        if keeper.manifest.position < life.positions[-1] + 1 or engine.is_narrow:
            await keeper.make_durable(await keeper.take(is_replaying=False))
    finally:
        if writing is not None:
            writing.cancel()
            with contextlib.suppress(BaseException):
                await writing
    held = await read_held(life, keeper.manifest)
    life.counts["cold at the end"] += len(held.cold)
    return [*held.warm, *held.cold]


def settle(writing: asyncio.Task[Any]) -> bool:
    """Whether a checkpoint became durable; a crash in it is the process's."""
    try:
        writing.result()
    except CheckpointError:
        return False
    return True


def plain(feed: list[bytes], at: list[int], *, is_narrow: bool, forget_s: float | None) -> tuple[Result, Counter[str]]:
    """One engine, one poll, no checkpoint."""
    life = Life(feed, at, 10**6, is_narrow, 0, forget_s=forget_s)
    engine = life.engine()
    life.note(engine.advance(life.poll(0, len(feed))))
    if is_narrow:
        life.note(engine.flush())
    return Result(life.scores, life.alerts, rows_of(engine.snapshot(full=True).arenas)), life.counts


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("forget_s", [None, FORGET_S])
@pytest.mark.parametrize("is_narrow", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
async def test_where_rows_are_changes_nothing(seed: int, is_narrow: bool, forget_s: float | None, limit: int) -> None:
    """Memory for 7 streams, for 20 and for all, with crashes and failing writes: the same bytes."""
    feed, at = wide_feed(seed, is_narrow=is_narrow), positions(seed)
    expected, once = plain(feed, at, is_narrow=is_narrow, forget_s=forget_s)
    life = Life(feed, at, limit, is_narrow, seed, fails=0.15, crashes=0.03, forget_s=forget_s)
    found = await live(life)
    assert found.rows.keys() == expected.rows.keys()
    assert found == expected
    assert life.counts["contradictions"] == 0
    # It really happened.
    assert life.counts["crashed"] > 2
    assert life.counts["failed"] > 0
    assert len(expected.alerts) > 20
    assert (once["streams_forgotten"] > 10) == (forget_s is not None)
    if limit < STREAMS:
        assert life.counts["evicted"] > 10
        assert life.counts["streams_returned"] > 10


@pytest.mark.parametrize("limit", [100, 10**6])
async def test_memory_for_a_hundred_of_many_streams_is_enough(limit: int) -> None:
    """Of 400 streams, which come and go: the same bytes with rows for 100 as with rows for all."""
    feed, at = wide_feed(3, streams=400, count=6000), positions(3, count=6000)
    expected, _ = plain(feed, at, is_narrow=False, forget_s=None)
    life = Life(feed, at, limit, False, 3, fails=0.1, crashes=0.02)
    assert await live(life) == expected
    assert len(expected.rows) > 300
    assert life.counts["contradictions"] == 0
    assert life.counts["crashed"] > 2
    assert (life.counts["evicted"] > 100) == (life.counts["streams_returned"] > 100) == (limit == 100)


class StartsAnew(Engine):
    """What must not be: a stream that comes back begins as a new one."""

    def bring_back(self, arenas: Sequence[ArenaRows]) -> None:
        """Let them go."""
        self.cold.remove(stream for rows in arenas for stream in rows.streams)


class RowsLeaveBeforeTheyAreDurable(Engine):
    """What must not be: rows of a checkpoint that failed are nowhere."""

    def dropped(self) -> None:
        """The rows are dirty again; those that left are forgotten."""
        super().dropped()
        self.cold.remove([stream for stream in self.cold._codes if stream.endswith(("1", "3", "5", "7", "9"))])


class ForgetsByPoll(Engine):
    """What must not be: streams forgotten when a poll ends."""

    def _looks(self, samples: Any, positions: Any, every: int | None) -> Any:
        return super()._looks(samples, positions, every) if every in (None, 1000) else np.array([len(samples)])


@pytest.mark.parametrize("new_engine", [StartsAnew, RowsLeaveBeforeTheyAreDurable, ForgetsByPoll])
async def test_control_what_loses_rows_is_caught(new_engine: type[Engine]) -> None:
    """The property has teeth."""
    feed, at = wide_feed(1), positions(1)
    expected, _ = plain(feed, at, is_narrow=False, forget_s=FORGET_S)
    life = Life(feed, at, 7, False, 1, fails=0.15, forget_s=FORGET_S, new_engine=new_engine)
    assert await live(life) != expected


async def test_rows_that_come_and_go_for_long_are_joined() -> None:
    """Segments stay few, though each checkpoint writes one; joined rows are the same rows."""
    feed, at = wide_feed(5, 120, 2500), positions(5, 2500)
    expected, _ = plain(feed, at, is_narrow=False, forget_s=None)
    life = Life(feed, at, 7, False, 5, fails=0.05)
    assert await live(life) == expected
    assert life.counts["joined"] >= 16
    assert sum(name.startswith("cold-") for name in life.blobs) < 40
