"""What every store promises (detector/checkpoint/base.py), each law as a function of a place.

They are functions, so that a store which breaks one can be shown to fail it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from pathlib import Path

import pytest

from detector.checkpoint.base import Store, fence_name, manifest_name, segment_name
from detector.checkpoint.stores.shard_names import in_order
from detector.errors import CheckpointError, CorruptCheckpointError
from detector.records import Shard
from tests.scenarios.world import CRASH, SHARD, EchoEngine, World, plain_feed, records
from tests.stores import Place

_BOUND_S = 40.0  # for one act on a place that is gone
_CLAIMANTS = 8
_ROUNDS = 10
ODD = [
    Shard("cluster", "a", 1),
    Shard("cluster", "a-1", 1),
    Shard("cluster", "a", 11),
    Shard("other", "a", 1),
    Shard("cluster", "../../etc/passwd", 1),
    Shard("file:plant", "/var/log/x y.csv", 0),
    Shard("cluster", "Straße-é-日本", 1),
    Shard("cluster", '","a",1,"', 1),
    Shard("cluster", "a_b", 1),
    Shard("cluster", "a/b", 1),
]


async def claimed(place: Place) -> Store:
    """An instance that owns the shard: nothing is written for one that nobody claimed."""
    store = await place.open()
    await store.create(SHARD, fence_name(1))
    return store


async def what_is_written_is_read(place: Place) -> None:
    """Nothing, one byte, 5 MB, many blocks, views of a buffer: it comes back byte for byte, here and elsewhere."""
    store, other = await claimed(place), await place.open()
    random_bytes, plain = random.Random(1).randbytes(5_000_000), b"plain " * 1_000_000
    wanted = {
        "segment-none": [],
        "segment-empty": [b""],
        "segment-byte": [b"x"],
        "segment-random": [random_bytes],
        "segment-plain": [plain],
        "segment-blocks": [b"%d" % i * (i % 7) for i in range(10_000)],
        "segment-views": [memoryview(random_bytes)[i : i + 100_003] for i in range(0, 5_000_000, 100_003)],
    }
    for name, blocks in wanted.items():
        await store.write(SHARD, name, blocks)
    assert sorted(await store.names(SHARD)) == sorted([fence_name(1), *wanted])
    for each in (store, other):
        for name, blocks in wanted.items():
            found = await each.read(SHARD, name)
            assert isinstance(found, bytes)
            assert found == b"".join(blocks), name


async def of_many_claimants_exactly_one_wins(place: Place) -> None:
    """However close they come, from several instances."""
    stores = [await place.open() for _ in range(4)]
    for number in range(1, _ROUNDS + 1):
        claims = (stores[i % len(stores)].create(SHARD, fence_name(number)) for i in range(_CLAIMANTS))
        assert sum(await asyncio.gather(*claims)) == 1
        assert not await stores[0].create(SHARD, fence_name(number))
    for store in stores:
        assert sorted(await store.names(SHARD)) == [fence_name(number) for number in range(1, _ROUNDS + 1)]


async def what_another_instance_did_is_seen_at_once(place: Place) -> None:
    """A claim above all: the check of the fence stands on it."""
    one, other = await place.open(), await place.open()
    for number in range(1, _ROUNDS + 1):
        assert await one.create(SHARD, fence_name(number))
        assert fence_name(number) in await other.names(SHARD)
        await other.write(SHARD, segment_name(number, 1), [b"rows"])
        assert segment_name(number, 1) in await one.names(SHARD)
        await one.delete(SHARD, [segment_name(number, 1)])
        assert segment_name(number, 1) not in await other.names(SHARD)
        one, other = other, one


async def what_is_deleted_is_gone(place: Place) -> None:
    """For everybody; deleting what never was is fine, and the rest stays."""
    store = await claimed(place)
    await store.delete(SHARD, ["segment-never-was"])
    for name in ("segment-1", "segment-2", "segment-3"):
        await store.write(SHARD, name, [name.encode() * 1000])
    await store.delete(SHARD, ["segment-1", "segment-never-was", "segment-3"])
    await store.delete(SHARD, [])
    for each in (store, await place.open()):
        assert sorted(await each.names(SHARD)) == [fence_name(1), "segment-2"]
        assert await each.read(SHARD, "segment-2") == b"segment-2" * 1000
        with pytest.raises(CorruptCheckpointError, match="read segment-1"):
            await each.read(SHARD, "segment-1")


async def shards_are_told_apart(place: Place) -> None:
    """Names that look alike, paths, quotes, any script: each shard has its own, and its identity comes back."""
    store = await place.open()
    assert await store.shards() == []
    for number, shard in enumerate(ODD):
        assert await store.names(shard) == []
        assert await store.create(shard, fence_name(1))
        await store.write(shard, "segment-1", [b"%d" % number])
    for each in (store, await place.open()):
        assert await each.shards() == in_order(ODD)
        for number, shard in enumerate(ODD):
            assert await each.read(shard, "segment-1") == b"%d" % number
    await store.delete(ODD[0], ["segment-1", fence_name(1)])
    assert await store.names(ODD[0]) == []
    for shard in ODD[1:]:
        assert sorted(await store.names(shard)) == [fence_name(1), "segment-1"]
    assert len({store.where(shard).partition(" partition ")[0] for shard in ODD}) in (1, len(ODD))


async def a_shard_with_a_claim_alone_is_listed(place: Place) -> None:
    """And one whose manifest is damaged."""
    store = await place.open()
    await store.create(ODD[0], fence_name(1))
    await store.create(ODD[1], fence_name(1))
    await store.write(ODD[1], manifest_name(1, 1), [b"no manifest"])
    assert await store.shards() == sorted(ODD[:2], key=str)


async def no_half_blob_is_ever_seen(place: Place) -> None:
    """A reader that looks all the time finds a blob whole or not at all."""
    writer, reader = await claimed(place), await place.open()
    content, looks = os.urandom(12_000_000), 0
    for number in range(3):
        name = segment_name(1, number)
        writing = asyncio.create_task(writer.write(SHARD, name, [content[i::7] for i in range(7)]))
        while name not in await reader.names(SHARD):
            if writing.done():
                await writing
            looks += 1
            await asyncio.sleep(0)
        assert await reader.read(SHARD, name) == b"".join(content[i::7] for i in range(7))
        await writing
    assert looks > 0, "never looked during a write"


async def what_is_missing_or_damaged_is_said_to_be(place: Place) -> None:
    """As CorruptCheckpointError, with store, shard and name, so that a restore falls back; or the bytes are others."""
    store = await claimed(place)
    with pytest.raises(CorruptCheckpointError, match=f"{SHARD}.*: read segment-1") as caught:
        await store.read(SHARD, "segment-1")
    assert not caught.value.retriable
    await store.write(SHARD, "segment-2", [b"rows"])
    await place.damage(SHARD, "segment-2")
    with contextlib.suppress(CorruptCheckpointError):
        assert await (await place.open()).read(SHARD, "segment-2") != b"rows"


async def a_feed_with_crashes_ends_as_one_without(place: Place, folder: Path) -> None:
    """The whole protocol over the store: crashes anywhere, also between its steps; same alerts, same memory."""
    feed = plain_feed(150)
    for at in (140, 97, 60, 33, 8):
        feed.insert(at, CRASH)
    for crash_at in (None, ("after segment", 2), ("before manifest", 3), ("delete", 2)):
        world = World(feed, folder, seed=3, linger_s=0.001, pace_s=0.003, crash_at=crash_at)
        world.store = await place.open()
        await world.store.delete(SHARD, await world.store.names(SHARD))
        await world.survive()
        assert world.crashed >= 5
        engine = EchoEngine(SHARD)
        assert world.alerts() == engine.advance(records(world.log, 0)).alerts
        assert (world.engine.rows, world.engine.position) == (engine.rows, engine.position)


async def a_restore_falls_back_one_manifest(place: Place, folder: Path) -> None:
    """The newest rows are damaged: the run goes on from the manifest before, and ends the same."""
    world = World([*plain_feed(200), CRASH, *plain_feed(50, seed=2)], folder, pace_s=0.01)
    world.store = await place.open()
    await world.run()
    names = await world.store.names(SHARD)
    newest = max(name for name in names if name.startswith("segment-"))
    assert sum(name.startswith("manifest-") for name in names) >= 2
    await place.damage(SHARD, newest)
    world.store = await place.open()
    await world.survive()
    engine = EchoEngine(SHARD)
    engine.advance(records(world.log, 0))
    assert (world.engine.rows, world.engine.position) == (engine.rows, engine.position)


LAWS = [
    what_is_written_is_read,
    of_many_claimants_exactly_one_wins,
    what_another_instance_did_is_seen_at_once,
    what_is_deleted_is_gone,
    shards_are_told_apart,
    a_shard_with_a_claim_alone_is_listed,
    no_half_blob_is_ever_seen,
    what_is_missing_or_damaged_is_said_to_be,
]
PROTOCOL_LAWS = [a_feed_with_crashes_ends_as_one_without, a_restore_falls_back_one_manifest]


async def a_place_that_is_gone_is_said_to_be(place: Place) -> None:
    """Each verb fails within a bound, says which store and which shard, and may be tried again."""
    store = await place.open()
    assert await store.create(SHARD, fence_name(1))
    place.cut()
    await asyncio.gather(
        *(
            _fails(store, verb, *arguments)
            for verb, *arguments in (
                ("names",),
                ("create", fence_name(2)),
                ("write", segment_name(1, 1), [b"rows"]),
                ("delete", [fence_name(1)]),
                ("read", segment_name(9, 9)),
            )
        )
    )


async def _fails(store: Store, verb: str, *arguments: object) -> None:
    started = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        await getattr(store, verb)(SHARD, *arguments)
    assert time.monotonic() - started < _BOUND_S
    assert caught.value.retriable or isinstance(caught.value, CorruptCheckpointError), caught.value
    assert str(SHARD) in caught.value.where
    assert caught.value.where.startswith("checkpoint "), caught.value
