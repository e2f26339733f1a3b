"""Checkpoints in object storage, S3, Google Cloud Storage or Azure: a prefix per shard, an object per name.

Given the `ObjectCheckpointSettings`. What the protocol needs, these three have: an object appears whole or not at all,
is listed from that moment on, and can be created on condition that it is absent, which makes the claim (`If-None-Match`
on S3 and Azure, generation 0 on Google). Some servers that speak S3 ignore the condition; `start` finds out and refuses
them, because two owners of a shard would not see each other. Storage that cannot sync what it keeps (`file://`) or
keeps nothing (`memory://`) is refused as well.

A claim whose answer was lost may be found taken, by ourselves, on the next try: then nobody owns that fence, and the
claimant takes the one above.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from detector.checkpoint.format import Block
from detector.checkpoint.stores.shard_names import folder_name, identity, in_order, shard_of
from detector.errors import CheckpointError, ConfigurationError, CorruptCheckpointError
from detector.records import Shard
from detector.settings import ObjectCheckpointSettings

_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss")
_PART_BYTES = 8 << 20  # of an upload or a download that is made of several; the storages take 5 MiB and more
_PARTS_AT_ONCE = 8  # one connection to S3 gives about 90 MB/s, its own guide says
_CLIENT = ("allow_http", "allow_invalid_certificates", "proxy_url", "proxy_ca_certificate", "proxy_excludes")
"""Options of the connection; all others are the storage's own."""

# An attempt may take 12 s and no retry begins after 15: the checkpoint fails within half a minute, and backs off.
_TIMES: dict[str, Any] = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=12)}
_RETRIES: dict[str, Any] = {"max_retries": 5, "retry_timeout": timedelta(seconds=15)}

_Result = TypeVar("_Result")


class ObjectStore:
    """The `object` store."""

    def __init__(self, settings: ObjectCheckpointSettings) -> None:
        self._url = settings.url.rstrip("/")
        self._name = f"checkpoint store {self._url}"
        scheme = self._url.partition("://")[0]
        if scheme not in _SCHEMES:
            hint = "for a folder, set type: dir" if scheme == "file" else None
            raise ConfigurationError("checkpoint.url", "storage", expected="s3, gs or az", got=self._url, hint=hint)
        client = {name: value for name, value in settings.options.items() if name in _CLIENT}
        storage = {name: value for name, value in settings.options.items() if name not in _CLIENT}
        make: Any = from_url  # its overloads want to know the kind of storage beforehand
        try:
            self._objects: Any = make(
                self._url,
                config=storage,
                client_options={**_TIMES, **client},
                retry_config=_RETRIES,
            )
        except (BaseError, ValueError) as error:
            raise ConfigurationError("checkpoint", "url or options", got=_said(error)) from error

    async def start(self) -> None:
        """See that the storage answers and that of two creators one is refused.

        Raises:
            CheckpointError: It does not answer, or refuses us.
            ConfigurationError: It overwrites what was to be created.
        """
        probe = f"probe-{uuid.uuid4().hex}"
        created = [await self._ask(self._name, "create", self._created(probe, b"")) for _ in range(2)]
        await self._ask(self._name, "delete", obstore.delete_async(self._objects, probe))
        if created != [True, False]:
            raise ConfigurationError(
                self._name,
                "create an object that exists",
                expected="to be refused",
                got="overwritten" if created[0] else "refused where none was",
                hint="claims need a storage that honours conditional writes: S3, Google, Azure, a recent MinIO or Ceph",
            )

    async def stop(self) -> None:
        """Nothing to disconnect."""

    async def shards(self) -> list[Shard]:
        """Shards that have a claim here."""
        found = await self._ask(self._name, "list", obstore.list_with_delimiter_async(self._objects))
        return in_order(await asyncio.gather(*(self._shard_of(folder) for folder in found["common_prefixes"])))

    def where(self, shard: Shard) -> str:
        """The URL of the shard's prefix."""
        return f"{self._url}/{folder_name(shard)}"

    async def names(self, shard: Shard) -> list[str]:
        """What is there for the shard."""
        paths = await self._ask(self._where(shard), "list", self._paths(folder_name(shard)))
        return [path.rpartition("/")[2] for path in paths]

    async def read(self, shard: Shard, name: str) -> bytes:
        """The whole of one object, in parallel parts where it is large."""
        content = await self._ask(self._where(shard), f"read {name}", self._read(_path(shard, name)))
        if content is None:
            raise CorruptCheckpointError(self._where(shard), f"read {name}", got="no such object")
        return content

    async def write(self, shard: Shard, name: str, blocks: Sequence[Block]) -> None:
        """Write one object; a large one in parallel parts, of which nobody sees anything before the last."""
        if sum(map(len, blocks)) <= _PART_BYTES:
            put = obstore.put_async(self._objects, _path(shard, name), b"".join(blocks), use_multipart=False)
        else:
            put = obstore.put_async(
                self._objects,
                _path(shard, name),
                iter(blocks),
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )
        await self._ask(self._where(shard), f"write {name}", put)

    async def create(self, shard: Shard, name: str) -> bool:
        """Create a claim on condition that there is none."""
        act = self._created(_path(shard, name), identity(shard))
        return await self._ask(self._where(shard), f"create {name}", act)

    async def delete(self, shard: Shard, names: Sequence[str]) -> None:
        """Delete objects; those already gone are fine."""
        await self._ask(self._where(shard), "delete", self._delete([_path(shard, name) for name in names]))

    def _where(self, shard: Shard) -> str:
        return f"checkpoint store {self.where(shard)}, shard {shard}"

    async def _ask(self, where: str, what: str, act: Awaitable[_Result]) -> _Result:
        try:
            return await act
        except (BaseError, OSError, ValueError) as error:
            raise CheckpointError(where, what, got=_said(error)) from error

    async def _created(self, path: str, content: bytes) -> bool:
        try:
            await obstore.put_async(self._objects, path, content, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    async def _paths(self, prefix: str) -> list[str]:
        return [each["path"] for each in await obstore.list(self._objects, prefix).collect_async()]

    async def _read(self, path: str) -> bytes | None:
        try:
            found = await obstore.get_async(self._objects, path)
        except FileNotFoundError:
            return None
        size = found.meta["size"]
        if size <= _PART_BYTES:
            return bytes(await found.bytes_async())
        gate = asyncio.Semaphore(_PARTS_AT_ONCE)

        async def part(start: int) -> memoryview:
            async with gate:
                end = min(start + _PART_BYTES, size)
                return memoryview(await obstore.get_range_async(self._objects, path, start=start, end=end))

        return b"".join(await asyncio.gather(*(part(start) for start in range(0, size, _PART_BYTES))))

    async def _delete(self, paths: Sequence[str]) -> None:
        try:
            await obstore.delete_async(self._objects, paths)
        except FileNotFoundError:  # of Google and Azure, which stop there; S3 does not mind
            for path in paths:
                with suppress(FileNotFoundError):
                    await obstore.delete_async(self._objects, path)

    async def _shard_of(self, folder: str) -> Shard | None:
        """Whose prefix it is: any claim tells."""
        for path in await self._ask(self._name, "list", self._paths(folder)):
            if path.rpartition("/")[2].startswith("fence-"):
                claim = await self._ask(self._name, f"read {path}", self._read(path))
                return None if claim is None else shard_of(claim)
        return None


def _path(shard: Shard, name: str) -> str:
    return f"{folder_name(shard)}/{name}"


def _said(error: Exception) -> str:
    """The first line: the client appends pages of its own insides."""
    return str(error).partition("\n")[0]
