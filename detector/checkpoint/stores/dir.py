"""Checkpoints in a folder, local or shared: a folder per shard, a file per name.

A file comes to be under a temporary name, is synced, renamed, and its folder synced: after a loss of power it is whole
or absent. Claims are files created exclusively; each says whose folder it is. Blocking calls run in a thread.

The client of object storage could serve a folder too, but syncs neither file nor folder, so that a loss of power would
take back what was promised: docs/decisions/0007-checkpoint-stores.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from detector.checkpoint.format import Block, decode_manifest
from detector.checkpoint.stores.shard_names import folder_name, identity, in_order, shard_of
from detector.errors import CheckpointError, CorruptCheckpointError
from detector.records import Shard

_T = TypeVar("_T")


class DirStore:
    """The `dir` store."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def start(self) -> None:
        """Nothing to connect to; folders are made when a shard is claimed."""

    async def stop(self) -> None:
        """Nothing to disconnect."""

    async def shards(self) -> list[Shard]:
        """Shards that have a claim here, or a manifest that can be read."""
        try:
            return await asyncio.to_thread(lambda: in_order(_shard_of(folder) for folder in self._root.glob("*/")))
        except OSError as error:
            raise CheckpointError(f"checkpoint folder {self._root}", "list", got=error) from error

    def where(self, shard: Shard) -> str:
        """The shard's folder."""
        return str(self.folder(shard))

    async def names(self, shard: Shard) -> list[str]:
        """What is there for the shard; nothing where its folder does not exist yet."""
        return await self._run(shard, "list", _list)

    async def read(self, shard: Shard, name: str) -> bytes:
        """The whole of one file."""
        try:
            return await asyncio.to_thread((self.folder(shard) / name).read_bytes)
        except OSError as error:
            raise CorruptCheckpointError(self._where(shard), f"read {name}", got=error) from error

    async def write(self, shard: Shard, name: str, blocks: Sequence[Block]) -> None:
        """Write one file, durably, all or nothing."""
        await self._run(shard, f"write {name}", lambda folder: _write(folder, name, blocks))

    async def create(self, shard: Shard, name: str) -> bool:
        """Create a claim exclusively; creates the shard's folder too."""
        return await self._run(shard, f"create {name}", lambda folder: _create(folder, name, identity(shard)))

    async def delete(self, shard: Shard, names: Sequence[str]) -> None:
        """Delete files; those already gone are fine."""
        await self._run(shard, "delete", lambda folder: _delete(folder, names))

    def folder(self, shard: Shard) -> Path:
        """Where the shard's files lie."""
        return self._root / folder_name(shard)

    def _where(self, shard: Shard) -> str:
        return f"checkpoint folder {self.folder(shard)}, shard {shard}"

    async def _run(self, shard: Shard, what: str, act: Callable[[Path], _T]) -> _T:
        try:
            return await asyncio.to_thread(act, self.folder(shard))
        except OSError as error:
            raise CheckpointError(self._where(shard), what, got=error) from error


def _shard_of(folder: Path) -> Shard | None:
    """Whose folder it is: any claim tells; those of the first releases are empty, but any manifest tells as well."""
    for path in folder.glob("fence-*"):
        with suppress(OSError):
            if (shard := shard_of(path.read_bytes())) is not None:
                return shard
    for path in folder.glob("manifest-*.json"):
        with suppress(OSError, CorruptCheckpointError):
            return decode_manifest(path.read_bytes(), path).shard
    return None


def _list(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _write(folder: Path, name: str, blocks: Sequence[Block]) -> None:
    temporary = folder / f"{name}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.writelines(blocks)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / name)
    except OSError:
        # A full disk would be filled further with every attempt, as each has a name of its own.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync(folder)


def _create(folder: Path, name: str, content: bytes) -> bool:
    _make(folder)
    try:
        descriptor = os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
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
