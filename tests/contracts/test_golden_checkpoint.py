"""A checkpoint that any version wrote is loaded and continued by this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.checkpoint.edit import read_held
from detector.checkpoint.format import merge
from detector.checkpoint.restore import load
from detector.checkpoint.stores.dir import DirStore
from tests.golden import checkpoint as made
from tests.golden.checkpoint import Golden


@pytest.fixture(params=[made.FIRST, *made.SECOND], ids=["v1", "v2", "v2-narrow"])
def golden(request: pytest.FixtureRequest) -> Golden:
    """One shard of each version."""
    chosen: Golden = request.param
    return chosen


@pytest.fixture
def store(golden: Golden, tmp_path: Path) -> DirStore:
    """A copy of the golden store: a restore writes."""
    shutil.copytree(golden.folder / "state", tmp_path / "state")
    return DirStore(tmp_path / "state")


def assert_continued(golden: Golden, continued: dict[str, Any], manifest_numerics: str) -> None:
    """Bits where the numerics are those that wrote it, else the bundles' tolerance."""
    expected = json.loads(golden.expected.read_text())
    if manifest_numerics == golden.identity().numerics:
        assert continued == expected
        return
    tolerance = max(detector.bundle.tolerance.score for detector in golden.detectors())
    assert continued["scores"].keys() == expected["scores"].keys()
    scores = [list(each["scores"].values()) for each in (continued, expected)]
    np.testing.assert_allclose(*scores, rtol=0, atol=tolerance)


async def test_the_golden_checkpoint_loads_and_continues(golden: Golden, store: DirStore) -> None:
    """Every kind of bundle and of record; the open anomaly goes on."""
    loaded = await load(store, golden.shard)
    assert loaded is not None
    assert loaded.passed_over == []
    engine = golden.new_engine()
    keeper = await made.start(golden, store, engine)
    assert keeper.manifest.position == made.DELTA
    assert engine.streams + len(engine.cold) == (3 if golden.is_narrow else 6)
    assert engine.open_anomalies > 0
    continued = await made.advance(golden, keeper, engine, made.DELTA, made.END)
    assert_continued(golden, made.plain(continued), loaded.manifest.numerics)
    await keeper.make_durable(await keeper.take(is_replaying=False))


async def test_its_first_manifest_gives_the_same(golden: Golden, store: DirStore) -> None:
    """Passing over a damaged newest one only costs a longer replay."""
    newest = max(store.folder(golden.shard).glob("manifest-*"))
    newest.write_bytes(newest.read_bytes()[:100])
    loaded = await load(store, golden.shard)
    assert loaded is not None
    engine = golden.new_engine()
    keeper = await made.start(golden, store, engine)
    assert keeper.manifest.position == made.BASE
    await made.advance(golden, keeper, engine, made.BASE, made.DELTA)
    continued = await made.advance(golden, keeper, engine, made.DELTA, made.END)
    assert_continued(golden, made.plain(continued), loaded.manifest.numerics)


async def test_rows_are_opaque_and_stay_what_they_were(golden: Golden, store: DirStore) -> None:
    """Loaded and written again without a sample between, the rows have the same bytes."""
    loaded = await load(store, golden.shard)
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


@pytest.mark.parametrize("second", made.SECOND, ids=["wide", "narrow"])
async def test_the_second_version_has_what_the_first_had_not(second: Golden) -> None:
    """Streams that left, cold ones, layouts of bundles, samples that are not yet whole."""
    store = DirStore(second.folder / "state")
    loaded = await load(store, second.shard)
    assert loaded is not None
    assert (loaded.manifest.format, len(loaded.manifest.segments), len(loaded.manifest.bundles) > 0) == (2, 2, True)
    assert any(rows.gone for rows in loaded.arenas)
    held = await read_held(store, loaded.manifest)
    assert sum(len(rows.streams) for rows in held.cold) > 0
    if second.is_narrow:
        assert any(not rows.arrays["join_arrived"].all() for rows in [*held.warm, *held.cold])


async def test_the_first_versions_column_of_samples_is_passed_over() -> None:
    """The row itself counts."""
    store = DirStore(made.FIRST.folder / "state")
    loaded = await load(store, made.SHARD)
    assert loaded is not None
    assert loaded.manifest.format == 1
    segment = await store.read(made.SHARD, loaded.manifest.segments[0].name)
    assert b'"samples"' in segment
    assert all("samples" not in rows.arrays for rows in loaded.arenas)
