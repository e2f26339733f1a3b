"""Checkpoints in a folder, local or shared: a folder per shard, a file per name.

A file comes to be under a temporary name, is synced, renamed, and its folder synced: after a loss of power it is whole
or absent. Claims are files created exclusively. Blocking calls run in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from detector.checkpoint.format import decode_manifest
from detector.errors import CheckpointError, CorruptCheckpointError
from detector.records import Shard

_T = TypeVar("_T")
_READABLE = 80  # characters of the topic in a folder's name; the hash behind tells shards apart


class DirStore:
    """The `dir` store."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def start(self) -> None:
        """Nothing to connect to; folders are made when a shard is claimed."""

    async def stop(self) -> None:
        """Nothing to disconnect."""

    async def shards(self) -> list[Shard]:
        """Shards that have a manifest here which can be read."""
        found = await asyncio.to_thread(lambda: [_shard_of(folder) for folder in self._root.glob("*/")])
        return sorted((shard for shard in found if shard is not None), key=str)

    def where(self, shard: Shard) -> str:
        """The shard's folder."""
        return str(self.folder(shard))

    async def names(self, shard: Shard) -> list[str]:
        """What is there for the shard; nothing where its folder does not exist yet."""
        return await self._run(shard, "list", lambda folder: os.listdir(folder) if folder.is_dir() else [])

    async def read(self, shard: Shard, name: str) -> bytes:
        """The whole of one file."""
        try:
            return await asyncio.to_thread((self.folder(shard) / name).read_bytes)
        except OSError as error:
            raise CorruptCheckpointError(self.folder(shard) / name, "read", got=error) from error

    async def write(self, shard: Shard, name: str, blocks: Sequence[bytes]) -> None:
        """Write one file, durably, all or nothing."""
        await self._run(shard, f"write {name}", lambda folder: _write(folder, name, blocks))

    async def create(self, shard: Shard, name: str) -> bool:
        """Create an empty file exclusively; creates the shard's folder too."""
        return await self._run(shard, f"create {name}", lambda folder: _create(folder, name))

    async def delete(self, shard: Shard, names: Sequence[str]) -> None:
        """Delete files; those already gone are fine."""
        await self._run(shard, "delete", lambda folder: _delete(folder, names))

    def folder(self, shard: Shard) -> Path:
        """Where the shard's files lie: a readable name, safe for any topic or path, and a hash of the identity."""
        identity = msgspec.json.encode([shard.cluster, shard.topic, shard.partition])
        readable = re.sub(r"[^A-Za-z0-9._-]", "_", shard.topic)[-_READABLE:].lstrip(".") or "_"
        return self._root / f"{readable}-{shard.partition}-{hashlib.sha256(identity).hexdigest()[:12]}"

    async def _run(self, shard: Shard, what: str, act: Callable[[Path], _T]) -> _T:
        folder = self.folder(shard)
        try:
            return await asyncio.to_thread(act, folder)
        except OSError as error:
            raise CheckpointError(folder, what, got=error) from error


def _shard_of(folder: Path) -> Shard | None:
    """Whose folder it is: any manifest that can be read tells."""
    for path in sorted(folder.glob("manifest-*.json"), reverse=True):
        try:
            return decode_manifest(path.read_bytes(), path).shard
        except (OSError, CorruptCheckpointError):
            continue
    return None


def _write(folder: Path, name: str, blocks: Sequence[bytes]) -> None:
    temporary = folder / f"{name}.tmp"
    with open(temporary, "wb") as file:
        file.writelines(blocks)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / name)
    _sync(folder)


def _create(folder: Path, name: str) -> bool:
    _make(folder)
    try:
        os.close(os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return False
    _sync(folder)
    return True


def _make(folder: Path) -> None:
    """Create a folder and its parents, each durable in its own parent."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        _sync(each.parent)


def _delete(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    with _descriptor(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _descriptor(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
