"""The battery of store_laws.py over a folder, a topic on a real broker, and an S3 server; and stores that fail it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from detector.checkpoint.stores.dir import DirStore
from detector.records import Shard
from tests.contracts import store_laws as laws
from tests.kafka.broker import own_broker
from tests.stores import Place, closing, in_bucket, in_folder, in_topic, object_server

KINDS = ["dir", pytest.param("kafka", marks=pytest.mark.system), "object"]
Law = Callable[..., Awaitable[None]]


@pytest.fixture(scope="session")
def objects() -> Iterator[str]:
    """An S3 server."""
    with object_server() as url:
        yield url


@pytest.fixture
async def place(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """An empty place of that kind."""
    match kind:
        case "dir":
            made = in_folder(tmp_path / "not" / "yet")
        case "kafka":
            made = await in_topic(request.getfixturevalue("kafka"))
        case _:
            made = in_bucket(request.getfixturevalue("objects"))
    async with closing(made):
        yield made


def name_of(law: Any) -> str:
    """As the test is called."""
    return getattr(law, "__name__", "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("law", laws.LAWS, ids=name_of)
async def test_every_store_keeps(law: Law, place: Place) -> None:
    """The contract, law by law."""
    await law(place)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("law", laws.PROTOCOL_LAWS, ids=name_of)
async def test_the_protocol_holds_over_every_store(law: Law, place: Place, tmp_path: Path) -> None:
    """Checkpoints, crashes, restores."""
    await law(place, tmp_path)


async def test_a_folder_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    """With what is there instead."""
    await laws.a_place_that_is_gone_is_said_to_be(in_folder(tmp_path / "state"))


async def test_a_bucket_that_is_gone_is_said_to_be() -> None:
    """A server that ended."""
    server = object_server()
    place = in_bucket(server.__enter__(), cut=lambda: server.__exit__(None, None, None))
    await laws.a_place_that_is_gone_is_said_to_be(place)


@pytest.mark.system
@pytest.mark.parametrize("how", ["stop", "freeze"])
async def test_a_broker_that_is_gone_is_said_to_be(how: str) -> None:
    """One that ended, and one that is there but does not answer."""
    with own_broker() as broker:
        async with closing(await in_topic(broker.address, cut=getattr(broker, how))) as place:
            await laws.a_place_that_is_gone_is_said_to_be(place)


class _RacyStore(DirStore):
    """Looks, and then writes: not exclusive."""

    async def create(self, shard: Shard, name: str) -> bool:
        if name in await self.names(shard):
            return False
        await super().create(shard, name)
        return True


class _LaggingStore(DirStore):
    """Lists what it listed before, as some storages do."""

    listed: dict[Shard, list[str]]

    async def names(self, shard: Shard) -> list[str]:
        now = await super().names(shard)
        self.listed, before = {shard: now}, getattr(self, "listed", {shard: now})
        return before[shard]


class _TornStore(DirStore):
    """Writes in place."""

    async def write(self, shard: Shard, name: str, blocks: Sequence[Any]) -> None:
        for end in range(len(blocks) + 1):
            (self.folder(shard)).mkdir(parents=True, exist_ok=True)
            (self.folder(shard) / name).write_bytes(b"".join(blocks[:end]))
            await asyncio.sleep(0)


class _CrossedStore(DirStore):
    """Tells shards apart by the readable part of their names alone."""

    def folder(self, shard: Shard) -> Path:
        return self._root / f"{shard.topic.replace('/', '_')}-{shard.partition}"


class _DeafStore(DirStore):
    """Deletes nothing."""

    async def delete(self, shard: Shard, names: Sequence[str]) -> None:
        pass


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (_RacyStore, laws.of_many_claimants_exactly_one_wins),
        (_LaggingStore, laws.what_another_instance_did_is_seen_at_once),
        (_TornStore, laws.no_half_blob_is_ever_seen),
        (_CrossedStore, laws.shards_are_told_apart),
        (_DeafStore, laws.what_is_deleted_is_gone),
    ],
    ids=name_of,
)
async def test_control_a_store_that_breaks_the_law_fails_it(
    broken: type[DirStore], law: Law, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The battery has teeth."""
    monkeypatch.setattr("tests.stores.make_store", lambda settings: broken(settings.path))
    with pytest.raises(AssertionError):
        await law(in_folder(tmp_path / "state"))
