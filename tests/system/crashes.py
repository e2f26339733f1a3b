"""The points at which a daemon kills itself, for the crash matrix; `POINTS` says what stands where at each.

A tamper: `partial(crash_at, point, hit, marker)` lets the daemon die by a real SIGKILL when it comes to that point for
the `hit`-th time, and makes the file `marker` right before. Its first poll of each shard takes the records before the
first fault, and counts for nothing; then its polls are small and its checkpoints many, so that a short feed has enough
of each.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detector import app
from detector.checkpoint.base import Store
from detector.engine import engine as engine_module
from detector.records import Records, Shard
from detector.sources.base import Source
from detector.sources.file import FileSource
from tests.system.ledger import wrap_store
from tests.system.tears import Crash, Takeovers, tear_files, tear_objects, tear_records

POINTS = {
    "in a wave": "the model was asked, nothing of the wave is decided; alerts of polls since the manifest are out",
    "outputs acknowledged": "every output below the position is, and no row is written",
    "torn rows": "half of a segment is written",
    "rows unnamed": "the segment is whole, but not under its name (dir); stored, but nobody was told (kafka, object)",
    "rows, no manifest": "the segment is durable",
    "torn manifest": "half of a manifest is written",
    "a manifest": "that of one shard is durable; those of others may be a checkpoint behind",
    "all manifests": "those of all shards are durable, and none is committed",
    "anywhere": "a timer's choice",
}
"""The points of a checkpoint's life, and what stands where then."""

_POLL_RECORDS = 60  # of all shards together
_BESIDE = 3  # polls that may still be under way when the last calm record was read
_EVERY = 3  # polls; each so manieth waits for the checkpoints under way, the others go on beside them
_PATIENCE_S = 2.0
_ANYWHERE_S = 0.04  # between two hits of the timer


def crash_at(point: str, hit: int, calm: Mapping[Shard, int], marker: Path) -> None:
    """Arrange for the death of this process; `calm` says how many records each shard has before its first fault."""
    crash = Crash(hit, marker)
    pace = _Pace(crash, calm)
    wrap_store(partial(_PacedStore, pace))
    if point == "in a wave":
        _before(engine_module, "decide", crash.here)
    elif point in ("torn rows", "torn manifest", "rows unnamed"):
        prefix = "manifest-" if point == "torn manifest" else "segment-"
        for tear in (tear_files, tear_records, tear_objects):
            tear(crash, prefix, is_whole=point == "rows unnamed")
    elif point in ("outputs acknowledged", "rows, no manifest", "a manifest"):
        wrap_store(partial(_CrashingStore, point, crash))
    elif point == "anywhere":
        pace.when_armed = threading.Timer(_ANYWHERE_S * hit, crash.die).start
    elif point != "all manifests":
        raise ValueError(f"no such point: {point}")
    commits = _Commits(crash, len(calm)) if point == "all manifests" else None
    make = app.make_source
    app.make_source = lambda *arguments: _PacedSource(make(*arguments), pace, commits)


def _before(module: Any, name: str, act: Callable[[], None]) -> None:
    plain = getattr(module, name)

    def wrapped(*arguments: Any, **more: Any) -> Any:
        act()
        return plain(*arguments, **more)

    setattr(module, name, wrapped)


class _CrashingStore:
    """A store beside whose writes the process may die."""

    def __init__(self, point: str, crash: Crash, store: Store) -> None:
        self._point, self._crash, self._store, self._takeovers = point, crash, store, Takeovers()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, shard: Shard, name: str, blocks: Sequence[bytes]) -> None:
        is_rows, is_manifest = name.startswith("segment-"), name.startswith("manifest-")
        if is_rows and self._point == "outputs acknowledged":
            self._crash.here()
        await self._store.write(shard, name, blocks)
        if is_rows and self._point == "rows, no manifest":
            self._crash.here()
        if is_manifest and self._point == "a manifest" and not self._takeovers.is_one(shard):
            self._crash.here()


class _Commits:
    """Holds back the commits of one round of checkpoints until every shard of it is there, and dies then."""

    def __init__(self, crash: Crash, shards: int) -> None:
        self._crash, self._shards = crash, shards
        self._seen: dict[Shard, int] = {}

    async def passed(self, shard: Shard) -> None:
        self._seen[shard] = self._seen.get(shard, 0) + self._crash.is_armed
        if self._seen[shard] == self._crash.hit:
            if len(self._seen) == self._shards and min(self._seen.values()) == self._crash.hit:
                self._crash.die()
            await asyncio.Event().wait()


class _Pace:
    """Cuts the input into polls, and lets polls and checkpoints go on side by side, but not far apart."""

    def __init__(self, crash: Crash, calm: Mapping[Shard, int]) -> None:
        self.when_armed: Callable[[], object] = lambda: None
        self._crash, self._calm, self._shards = crash, dict(calm), len(calm)
        self._writing, self._polls, self._beside = 0, 0, _BESIDE
        plain = FileSource._read
        FileSource._read = lambda source, reel, _: plain(source, reel, self._size(reel.shard))

    def _size(self, shard: Shard) -> int:
        """Of the shard's next poll."""
        return self._calm.pop(shard, _POLL_RECORDS // self._shards)

    def began(self) -> None:
        self._writing += 1

    def ended(self) -> None:
        self._writing -= 1

    async def turn(self) -> None:
        """Before a poll."""
        self._arm()
        await asyncio.sleep(0.005)
        self._polls += 1
        if self._polls % _EVERY == 0:
            end_s = asyncio.get_running_loop().time() + _PATIENCE_S
            while self._writing and asyncio.get_running_loop().time() < end_s:
                await asyncio.sleep(0.002)

    def _arm(self) -> None:
        self._beside -= not self._calm
        if self._beside == 0:
            self._crash.is_armed = True
            self.when_armed()


class _PacedStore:
    """A store that tells the pace of its writes."""

    def __init__(self, pace: _Pace, store: Store) -> None:
        self._pace, self._store = pace, store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, shard: Shard, name: str, blocks: Sequence[bytes]) -> None:
        self._pace.began()
        try:
            await self._store.write(shard, name, blocks)
        finally:
            self._pace.ended()


class _PacedSource:
    """A source whose polls keep the pace, and whose commits may be held back."""

    def __init__(self, source: Source, pace: _Pace, commits: _Commits | None) -> None:
        self._source, self._pace, self._commits = source, pace, commits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def poll(self, timeout_s: float) -> list[Records]:
        await self._pace.turn()
        return await self._source.poll(timeout_s)

    async def commit(self, positions: dict[Shard, int]) -> None:
        if self._commits is not None:
            for shard in positions:
                await self._commits.passed(shard)
        await self._source.commit(positions)
