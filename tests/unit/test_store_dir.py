"""The folder store: whole or absent, exclusive claims, safe names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from detector.checkpoint.store_dir import DirStore
from detector.errors import CheckpointError, CorruptCheckpointError
from detector.records import Shard

SHARD = Shard("cluster", "sensors", 0)


@pytest.fixture
def store(tmp_path: Path) -> DirStore:
    """A store in a folder that does not exist yet."""
    return DirStore(tmp_path / "not" / "yet")


async def test_what_was_written_is_read(store: DirStore) -> None:
    """Blocks become one file, under its name only."""
    assert await store.names(SHARD) == []
    assert await store.create(SHARD, "fence-1")
    await store.write(SHARD, "one", [b"ab", b"", b"c"])
    assert await store.read(SHARD, "one") == b"abc"
    assert sorted(await store.names(SHARD)) == ["fence-1", "one"]
    await store.delete(SHARD, ["one", "never-was"])
    assert await store.names(SHARD) == ["fence-1"]


async def test_of_many_claims_one_succeeds(store: DirStore) -> None:
    """However close they come."""
    assert sum(await asyncio.gather(*(store.create(SHARD, "fence-1") for _ in range(20)))) == 1


async def test_a_missing_file_is_damage(store: DirStore) -> None:
    """A manifest that names it is not whole."""
    with pytest.raises(CorruptCheckpointError, match="nothing: read"):
        await store.read(SHARD, "nothing")


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With what was being done."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"file/sensors-0-.*: create fence-1") as caught:
        await DirStore(tmp_path / "file").create(SHARD, "fence-1")
    assert caught.value.retriable


@pytest.mark.parametrize("topic", ["..", ".", "", "../../etc/passwd", "/var/log/x.csv", "a b\n", "ü" * 300, "C:\\x"])
async def test_any_topic_or_path_is_safe_as_a_folder(tmp_path: Path, topic: str) -> None:
    """It stays one folder below the root."""
    store = DirStore(tmp_path)
    folder = store.folder(Shard("cluster", topic, 0))
    assert folder.parent == tmp_path
    assert await store.create(Shard("cluster", topic, 0), "fence-1")
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_shards_that_look_alike_have_folders_of_their_own(tmp_path: Path) -> None:
    """Same readable part, another cluster, path or partition."""
    shards = [Shard("a", "x/y", 0), Shard("a", "x_y", 0), Shard("b", "x/y", 0), Shard("a", "x/y", 1)]
    assert len({DirStore(tmp_path).folder(shard) for shard in shards}) == len(shards)
