"""Deaths in the middle of a store's write, each as that store's kind of storage allows.

    dir       half of the file under its temporary name; or all of it, and not yet renamed
    kafka     half of the chunks in the log; or all of them, and the writer was not told
    object    a request under way, of which chance says whether it arrives; or an answer that nobody heard

Only what begins with `prefix` counts, and of manifests only those of checkpoints, not the first with which an owner
takes a shard over.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detector.checkpoint.stores import dir as store_dir
from detector.checkpoint.stores import kafka as store_kafka
from detector.checkpoint.stores import object as store_object
from detector.checkpoint.stores.kafka import KafkaStore
from detector.checkpoint.stores.kafka_log import LogWriter
from detector.records import Shard

_CHUNK_BYTES = 700  # of the topic of checkpoints, so that a small blob has several chunks
_ACKNOWLEDGED_S = 0.2  # within it the broker has what was sent
_UNDER_WAY_S = 0.001


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


class Takeovers:
    """Tells the manifests of checkpoints from the first of each shard, with which an owner takes it over."""

    def __init__(self) -> None:
        self._known: set[object] = set()

    def is_one(self, shard: object) -> bool:
        """Whether this manifest is the shard's first in this process."""
        is_first = shard not in self._known
        self._known.add(shard)
        return is_first


def tear_files(crash: Crash, prefix: str, *, is_whole: bool) -> None:
    """Half of the file is there, or all of it, and its name is not."""
    takeovers = Takeovers()

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


def tear_records(crash: Crash, prefix: str, *, is_whole: bool) -> None:
    """Half of the chunks, made small for that, are in the log; or all of them, and nobody was told."""
    plain_start, plain_packed, plain_append = KafkaStore.start, store_kafka.packed, LogWriter.append
    takeovers = Takeovers()

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


def tear_objects(crash: Crash, prefix: str, *, is_whole: bool) -> None:
    """The request is under way, and whether the object appears is chance; or it is answered, and nobody was told."""
    takeovers, plain = Takeovers(), store_object.obstore.put_async

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
