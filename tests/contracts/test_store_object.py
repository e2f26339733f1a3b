"""What object storage promises besides: real conditions, parts, and what is refused; on moto's S3 server."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import obstore
import pytest

from detector.checkpoint.base import fence_name
from detector.checkpoint.stores import make_store
from detector.checkpoint.stores.object import ObjectStore
from detector.errors import CheckpointError, ConfigurationError
from detector.records import Shard
from detector.settings import ObjectCheckpointSettings
from tests.stores import Place, closing, in_bucket, object_server

SHARD = Shard("cluster", "sensors", 0)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server."""
    with object_server() as url:
        yield url


@pytest.fixture
async def place(server: str) -> AsyncIterator[Place]:
    """A prefix of its own."""
    async with closing(in_bucket(server)) as made:
        yield made


def settings(url: str, **options: str) -> ObjectCheckpointSettings:
    """Of a store at that URL."""
    return ObjectCheckpointSettings(type="object", url=url, options=options)


async def test_the_condition_is_the_servers_not_ours(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two creators at once send `If-None-Match: *`, and the server refuses one of them."""
    stores = [await place.open(), await place.open()]
    modes: list[Any] = []
    plain = obstore.put_async

    async def watched(*arguments: Any, **more: Any) -> Any:
        modes.append(more.get("mode"))
        return await plain(*arguments, **more)

    monkeypatch.setattr(obstore, "put_async", watched)
    for number in range(1, 20):
        won = await asyncio.gather(*(store.create(SHARD, fence_name(number)) for store in stores))
        assert sorted(won) == [False, True]
    assert set(modes) == {"create"}


async def test_storage_that_ignores_the_condition_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two owners of a shard would not see each other there."""
    plain = obstore.put_async

    async def ignoring(*arguments: Any, mode: str | None = None, **more: Any) -> Any:
        return await plain(*arguments, **more)

    monkeypatch.setattr(obstore, "put_async", ignoring)
    with pytest.raises(ConfigurationError, match="expected to be refused, got overwritten"):
        await place.open()
    assert await make_store(place.settings).shards() == [], "the probe was left behind"


async def test_large_blobs_go_and_come_in_parts(place: Place) -> None:
    """A part short, exact and over."""
    store = await place.open()
    for size in (8 << 20, (8 << 20) + 1, 20_000_000):
        content = random.Random(size).randbytes(size)
        blocks = [content[i : i + 1_000_003] for i in range(0, size, 1_000_003)]
        await store.write(SHARD, f"segment-{size}", blocks)
        assert await store.read(SHARD, f"segment-{size}") == content


@pytest.mark.parametrize("url", ["file:///tmp/x", "memory:///", "http://host/bucket", "bucket/prefix", "s3:/bucket"])
def test_storage_that_would_not_keep_what_it_is_given_is_refused(url: str) -> None:
    """A folder has a store of its own."""
    with pytest.raises(ConfigurationError, match="expected s3, gs or az") as caught:
        ObjectStore(settings(url))
    assert ("type: dir" in str(caught.value)) == url.startswith("file")


@pytest.mark.parametrize("option", ["regoin", "allow_htpp"])
def test_a_misspelt_option_is_refused(option: str) -> None:
    """The storage's client knows its own."""
    with pytest.raises(ConfigurationError, match=option):
        ObjectStore(settings("s3://bucket/prefix", **{option: "x"}))


async def test_a_bucket_that_is_not_there_is_said_to_be(server: str) -> None:
    """In one line, with its name."""
    store = ObjectStore(settings("s3://nowhere/prefix", endpoint=server, region="us-east-1", allow_http="true"))
    with pytest.raises(CheckpointError, match=r"checkpoint store s3://nowhere/prefix: create, got .*404") as caught:
        await store.start()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("gs://bucket/prefix", {"skip_signature": "true"}),
        ("az://container/prefix", {"account_name": "a", "account_key": "a2V5"}),
    ],
)
def test_the_other_storages_are_understood(url: str, options: dict[str, str]) -> None:
    """Nothing is asked of them before the start."""
    assert ObjectStore(settings(url, **options)).where(SHARD).startswith(f"{url}/sensors-0-")


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """As for every other extra."""
    from detector.cli import _EXTRAS

    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "detector.checkpoint.stores.object", raising=False)
    with pytest.raises(ModuleNotFoundError) as caught:
        make_store(settings("s3://bucket/prefix"))
    assert _EXTRAS[caught.value.name] == "objects"
