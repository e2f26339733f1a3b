"""A checkpoint that the first version wrote is loaded and continued by this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.checkpoint.format import merge
from detector.checkpoint.restore import load
from detector.checkpoint.store_dir import DirStore
from tests.golden import checkpoint as golden


@pytest.fixture
def store(tmp_path: Path) -> DirStore:
    """A copy of the golden store: a restore writes."""
    shutil.copytree(golden.FOLDER / "state", tmp_path / "state")
    return DirStore(tmp_path / "state")


def assert_continued(continued: dict[str, Any], manifest_numerics: str) -> None:
    """Bits where the numerics are those that wrote it, else the bundles' tolerance."""
    expected = json.loads((golden.FOLDER / "expected.json").read_text())
    if manifest_numerics == golden.identity().numerics:
        assert continued == expected
        return
    tolerance = max(detector.bundle.tolerance.score for detector in golden.detectors())
    assert continued["scores"].keys() == expected["scores"].keys()
    scores = [list(each["scores"].values()) for each in (continued, expected)]
    np.testing.assert_allclose(*scores, rtol=0, atol=tolerance)


async def test_the_golden_checkpoint_loads_and_continues(store: DirStore) -> None:
    """Both kinds of bundle; the open anomaly goes on."""
    loaded = await load(store, golden.SHARD)
    assert loaded is not None
    assert loaded.passed_over == []
    engine = golden.new_engine()
    keeper = await golden.start(store, engine)
    assert keeper.manifest.position == golden.DELTA
    assert engine.streams == 6
    assert engine.open_anomalies > 0
    assert_continued(golden.plain(engine.advance(golden.records(golden.DELTA, golden.END))), loaded.manifest.numerics)
    await keeper.make_durable(await keeper.take(is_replaying=False))


async def test_its_first_manifest_gives_the_same(store: DirStore) -> None:
    """Passing over a damaged newest one only costs a longer replay."""
    newest = max(store.folder(golden.SHARD).glob("manifest-*"))
    newest.write_bytes(newest.read_bytes()[:100])
    loaded = await load(store, golden.SHARD)
    assert loaded is not None
    engine = golden.new_engine()
    keeper = await golden.start(store, engine)
    assert keeper.manifest.position == golden.BASE
    engine.advance(golden.records(golden.BASE, golden.DELTA))
    assert_continued(golden.plain(engine.advance(golden.records(golden.DELTA, golden.END))), loaded.manifest.numerics)


async def test_rows_are_opaque_and_stay_what_they_were(store: DirStore) -> None:
    """Loaded and written again without a sample between, the rows have the same bytes."""
    loaded = await load(store, golden.SHARD)
    assert loaded is not None
    engine = golden.new_engine()
    engine.restore(
        loaded.manifest.position, loaded.manifest.highest_event_ns, loaded.arenas, loaded.manifest.last_position
    )
    for before, after in zip(merge(loaded.arenas), engine.snapshot(full=True).arenas, strict=True):
        assert (before.detector, before.channels, before.streams) == (after.detector, after.channels, after.streams)
        assert before.labels == after.labels == [{"n": stream[-1]} for stream in before.streams]
        assert {name: array.tobytes() for name, array in before.arrays.items()} == {
            name: array.tobytes() for name, array in after.arrays.items()
        }
