"""The points at which a daemon kills itself, for the crash matrix; `POINTS` says what stands where at each.

A tamper: `partial(crash_at, point, hit, marker)` lets the daemon die by a real SIGKILL when it comes to that point for
the `hit`-th time, and makes the file `marker` right before. Its first poll of each shard takes the records before the
first fault, and counts for nothing; then its polls are small and its checkpoints many, so that a short feed has enough
of each.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detector import app
from detector.checkpoint import store_dir, store_kafka, store_object
from detector.checkpoint.base import Store
from detector.checkpoint.kafka_log import LogWriter
from detector.checkpoint.store_kafka import KafkaStore
from detector.engine import engine as engine_module
from detector.records import Records, Shard
from detector.sources.base import Source
from detector.sources.file import FileSource
from tests.system.ledger import wrap_store

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
_CHUNK_BYTES = 700  # of the topic of checkpoints, where a blob is to be torn
_ACKNOWLEDGED_S = 0.2  # within it the broker has what was sent
_UNDER_WAY_S = 0.001
_ANYWHERE_S = 0.04  # between two hits of the timer


class Crash:
    """Counts how often a point was reached, and dies at the given one."""

    def __init__(self, hit: int, marker: Path) -> None:
        self.hit, self._left, self._marker = hit, hit, marker
        self.is_armed = False
        """Whether what is reached counts."""

    def here(self) -> None:
        """The point was reached: die if it is time."""
        if self.is_time():
            self.die()

    def is_time(self) -> bool:
        """Whether this is the hit."""
        self._left -= self.is_armed
        return self._left == 0

    def die(self) -> None:
        """SIGKILL, from inside: nothing runs after it, no `finally`, no flush."""
        self._marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def crash_at(point: str, hit: int, calm: Mapping[Shard, int], marker: Path) -> None:
    """Arrange for the death of this process; `calm` says how many records each shard has before its first fault."""
    crash = Crash(hit, marker)
    pace = _Pace(crash, calm)
    wrap_store(partial(_PacedStore, pace))
    if point == "in a wave":
        _before(engine_module, "decide", crash.here)
    elif point in ("torn rows", "torn manifest", "rows unnamed"):
        prefix = "manifest-" if point == "torn manifest" else "segment-"
        for tear in (_tear_files, _tear_records, _tear_objects):
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


class _Takeovers:
    """Tells the manifests of checkpoints from the first of each shard, with which an owner takes it over."""

    def __init__(self) -> None:
        self._known: set[object] = set()

    def is_one(self, shard: object) -> bool:
        """Whether this manifest is the shard's first in this process."""
        is_first = shard not in self._known
        self._known.add(shard)
        return is_first


class _CrashingStore:
    """A store beside whose writes the process may die."""

    def __init__(self, point: str, crash: Crash, store: Store) -> None:
        self._point, self._crash, self._store, self._takeovers = point, crash, store, _Takeovers()

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


def _tear_files(crash: Crash, prefix: str, *, is_whole: bool) -> None:
    """Half of the file is there, or all of it, and its name is not."""
    takeovers = _Takeovers()

    def is_hit(path: Path) -> bool:
        if not path.name.startswith(prefix) or (prefix == "manifest-" and takeovers.is_one(path.parent)):
            return False
        return crash.is_time()

    def fsync(descriptor: int) -> None:
        if not is_whole and is_hit(Path(os.readlink(f"/proc/self/fd/{descriptor}"))):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            crash.die()
        os.fsync(descriptor)

    def replace(before: Path, after: Path) -> None:
        if is_whole and is_hit(Path(after)):
            crash.die()
        os.replace(before, after)

    store_dir.os = _But(os, fsync=fsync, replace=replace)  # type: ignore[assignment]  # from outside


def _tear_records(crash: Crash, prefix: str, *, is_whole: bool) -> None:
    """Half of the chunks, made small for that, are in the log; or all of them, and nobody was told."""
    plain_start, plain_packed, plain_append = KafkaStore.start, store_kafka.packed, LogWriter.append
    takeovers = _Takeovers()

    async def start(store: KafkaStore) -> None:
        await plain_start(store)
        store._chunk_bytes = _CHUNK_BYTES

    def packed(shard: Shard, name: str, number: int, write: str, of: int, chunk: Any) -> Any:
        is_ours = name.startswith(prefix) and number == of // 2 and not is_whole
        if is_ours and not (prefix == "manifest-" and takeovers.is_one(shard)) and crash.is_time():
            time.sleep(_ACKNOWLEDGED_S)
            crash.die()
        return plain_packed(shard, name, number, write, of, chunk)

    async def append(log: LogWriter, *arguments: Any) -> list[int]:
        offsets = await plain_append(log, *arguments)
        if is_whole and arguments[-1].startswith(f"write {prefix}"):
            crash.here()
        return offsets

    KafkaStore.start, LogWriter.append = start, append  # type: ignore[method-assign]  # from outside
    store_kafka.packed = packed


def _tear_objects(crash: Crash, prefix: str, *, is_whole: bool) -> None:
    """The request is under way, and whether the object appears is chance; or it is answered, and nobody was told."""
    takeovers, plain = _Takeovers(), store_object.obstore.put_async

    async def put_async(objects: Any, path: str, *arguments: Any, **more: Any) -> Any:
        folder, _, name = path.rpartition("/")
        is_ours = name.startswith(prefix) and not (prefix == "manifest-" and takeovers.is_one(folder))
        request = plain(objects, path, *arguments, **more)
        if is_ours and not is_whole and crash.is_time():
            time.sleep(_UNDER_WAY_S)  # the request goes on in a thread of its own
            crash.die()
        answer = await request
        if is_ours and is_whole:
            crash.here()
        return answer

    store_object.obstore = _But(store_object.obstore, put_async=put_async)


class _But:
    """A module, but for some of its functions."""

    def __init__(self, module: Any, **functions: Callable[..., Any]) -> None:
        self._module = module
        self.__dict__ |= functions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


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
        FileSource._read = lambda source, reel, _: plain(source, reel, self._size(reel.shard))  # type: ignore[method-assign]

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
