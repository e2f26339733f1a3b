"""The folder store: safe names, what it syncs, and what a full disk leaves behind. The rest is in tests/contracts."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from detector.checkpoint.stores.dir import DirStore
from detector.errors import CheckpointError
from detector.records import Shard

SHARD = Shard("cluster", "sensors", 0)


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


async def test_a_full_disk_is_not_filled_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written whole is taken away; the error names store, shard and reason, and may pass."""
    store = DirStore(tmp_path)
    await store.create(SHARD, "fence-1")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for number in range(5):
            with pytest.raises(CheckpointError, match=r"shard sensors-0: write segment.*No space left") as caught:
                await store.write(SHARD, f"segment-{number}", [b"rows" * 1000])
            assert caught.value.retriable
    assert await store.names(SHARD) == ["fence-1"]
    await store.write(SHARD, "segment-9", [b"rows"])
    assert await store.read(SHARD, "segment-9") == b"rows"


async def test_claims_and_blobs_are_synced_with_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the call returns, and every new folder in its parent."""
    synced: list[str] = []
    plain = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    store = DirStore(tmp_path / "state")
    folder = store.folder(SHARD).name
    await store.create(SHARD, "fence-1")
    assert synced == ["state", tmp_path.name, "fence-1", folder]
    synced.clear()
    await store.write(SHARD, "segment-1", [b"rows"])
    assert synced == ["segment-1.tmp", folder]


async def test_shards_of_the_first_releases_are_found_by_their_manifests(tmp_path: Path) -> None:
    """Whose claims were empty; a folder that tells nothing is passed over."""
    golden = Path(__file__).parents[1] / "golden/checkpoint-v1/state"
    (tmp_path / "foreign").mkdir()
    shards = await DirStore(golden).shards()
    assert [(shard.topic, shard.partition) for shard in shards] == [("plant/line 1", 3)]
    assert await DirStore(tmp_path).shards() == []
    assert await DirStore(tmp_path / "nowhere").shards() == []
