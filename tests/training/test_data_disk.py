"""History that does not fit into memory: the same samples, the same hash, and a training that learns from them."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import pyarrow as pa
import pyarrow.parquet
import torch
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import ConfigurationError, InputError
from detector.tables import read_blocks, read_table
from tests.waves import S, changed, detector, waves
from training.data import files
from training.data.disk import Disk, Stored
from training.data.gather import Gathered, Room
from training.data.load import load_history
from training.data.series import Series, cut, sha256
from training.fit import fit
from training.progress import Progress
from training.settings import TrainSettings
from training.spans import Span, Stretch, loaded, some, standardise


def gathered(all_of_it: list[Series], folder: Path, room_bytes: int, piece: int = 50) -> list[Series]:
    """The same streams, fed piece by piece and in turn."""
    taken = Gathered(Counter(), Room(folder, room_bytes))
    for at in range(0, max(map(len, all_of_it)), piece):
        for one in all_of_it:
            taken.add(one.stream, one.channels, one.time_ns[at : at + piece], one.values[at : at + piece])
    return cut(taken.series(), 0.2)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 40), st.integers(0, 40))
def test_an_array_on_disk_reads_as_in_memory(rows: list[int], start: int, stop: int) -> None:
    """Whatever its extents are, and whatever part is asked for."""
    array = np.arange(3.0 * sum(rows)).reshape(-1, 3)
    disk = Disk(Path(os.environ.get("TMPDIR", "/tmp")))
    extents = []
    for part in np.split(array, np.cumsum(rows)[:-1]):
        disk.append(np.zeros(2))  # something of others lies between
        extents.append(disk.append(part))
    stored = Stored(disk, extents, (3,), np.float64)
    np.testing.assert_array_equal(stored[start:stop], array[start:stop])
    np.testing.assert_array_equal(np.asarray(stored), array)
    np.testing.assert_array_equal(stored[-1], array[-1])
    np.testing.assert_array_equal(stored[:, 1], array[:, 1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stored)), array)  # noqa: S301  # our own
    assert (len(stored), stored.shape) == (len(array), array.shape)


def test_streams_are_the_same_on_disk(tmp_path: Path) -> None:
    """Samples, cut and hash do not tell whether history fits into memory; nothing is left in the folder."""
    here, there = gathered(waves(), tmp_path, 1 << 30), gathered(waves(), tmp_path, 10_000)
    assert [one.is_stored for one in (*here, *there)] == [False] * 6 + [True] * 6
    assert sha256(here) == sha256(there)
    assert [one.cut for one in here] == [one.cut for one in there]
    np.testing.assert_array_equal(there[2].elapsed_s, here[2].elapsed_s)
    assert list(tmp_path.iterdir()) == []


def test_what_is_late_is_left_out_across_pieces(tmp_path: Path) -> None:
    """Also when the sample that it comes after is on disk already."""
    rejects: Counter[str] = Counter()
    taken = Gathered(rejects, Room(tmp_path, 100))
    for time in (range(50), range(40, 60), range(59, 61)):
        when = np.array(time) * S
        taken.add("s", ("a",), when, np.ones((len(when), 1)))
    (found,) = taken.series()
    assert found.time_ns[0:61].tolist() == [t * S for t in range(61)]
    assert (rejects["late"], rejects["duplicate"]) == (9, 2)


def test_a_stretch_is_nearly_what_it_is_within_its_stream(tmp_path: Path) -> None:
    """Its scale has settled on some samples before it; its times, masks and what counts are exactly the same."""
    made, settings = detector(channels=2), changed(chunk=8)
    streams = waves(2, 1200, channels=2, missing=0.1)
    here = standardise(made, gathered(streams, tmp_path, 1 << 30), "UTC", settings)
    there = standardise(made, gathered(streams, tmp_path, 10_000), "UTC", settings)
    assert all(isinstance(span, Stretch) for part in there for span in part)
    train, known = (sorted(spans, key=lambda span: span.streams) for spans in (loaded(there[0]), here[0]))
    assert [span.shape for span in train] == [span.shape for span in known]
    for one, other in zip(train, known, strict=True):
        assert (one.streams, torch.equal(one.observed, other.observed)) == (other.streams, True)
        assert torch.equal(one.counted, other.counted)
        near = (one.target - other.target).abs() / (1 + other.target.abs())
        assert near.median() < 0.1
    counted = [sum(int(span.counted.sum()) for span in spans) for spans in (loaded(there[1]), here[1])]
    assert counted[0] == counted[1]


def test_training_learns_from_disk_what_it_learns_from_memory(tmp_path: Path) -> None:
    """Losses fall to about the same."""
    losses, settings = [], changed(epochs=1, learning_rate=1e-2)
    for room in (1 << 30, 10_000):
        series = gathered(waves(4, 600), tmp_path, room)
        fitted = fit(detector(), series, "UTC", settings, Progress.silent())
        losses.append(fitted.best.validation_loss)
        assert losses[-1] < fitted.persistence_loss
    assert losses[1] == pytest.approx(losses[0], rel=0.15)


def test_a_curriculum_cuts_stretches_too(tmp_path: Path) -> None:
    """Into pieces that begin where the one before ends, and that have something to settle on."""
    train, _ = standardise(detector(), gathered(waves(1, 2000), tmp_path, 10_000), "UTC", changed(chunk=64))
    (stretch,) = train
    pieces = list(stretch.pieces(64))
    assert [piece.shape for piece in pieces] == [(512, 1)] * 3 + [(64, 1)]
    assert [piece.settle for piece in pieces] == [0, 0, 512, 1024]
    assert loaded([pieces[2]])[0].counted.all()


def test_figures_are_taken_from_some_where_all_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly chosen; spans in memory are all taken."""
    train, _ = standardise(detector(), gathered(waves(3, 600), tmp_path, 5_000), "UTC", changed(chunk=2))
    assert len(some(train)) == len(train)
    monkeypatch.setattr("training.spans._SOME_CELLS", 300)
    few = some(train)
    assert 0 < len(few) < len(train) / 2
    assert all(isinstance(span, Span) for span in few)


def table(folder: Path, kind: str, rows: int = 3000, time: str = "time") -> Path:
    """Two pumps, in turn."""
    columns: dict[str, Any] = {
        time: np.repeat(np.arange(rows // 2), 2),
        "pump": ["x", "y"] * (rows // 2),
        "flow": np.sin(np.arange(rows) / 9),
        "note": ["a"] * rows,
    }
    path = folder / f"pumps-{time}.{kind}"
    if kind == "parquet":
        pa.parquet.write_table(pa.table(columns), path, row_group_size=1000)
    else:
        lines = (",".join(map(str, row)) for row in zip(*columns.values(), strict=True))
        path.write_text("\n".join([",".join(columns), *lines, ""]))
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_large_file_is_read_block_by_block(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same history, with or without a time column."""
    path = table(tmp_path, kind)
    data = {"paths": [str(path)], "stream": "pump", "time_unit": "s"}
    counted = {"paths": [str(table(tmp_path, kind, time="t"))], "stream": "pump", "period_s": 1.0, "channels": ["flow"]}
    asked = [TrainSettings.model_validate({"name": "x", "data": each, "output": tmp_path}) for each in (data, counted)]
    whole = [sha256(load_history(each).series) for each in asked]
    monkeypatch.setattr(files, "_LARGE_BYTES", 0)
    monkeypatch.setattr("detector.tables._BLOCK_ROWS", 128)
    assert [sha256(load_history(each).series) for each in asked] == whole
    blocks = list(read_blocks(path, texts=["pump"], numbers=["flow"]))
    assert max(block.rows for block in blocks) <= 128
    together = read_table(path, texts=["pump"], numbers=["flow"])
    np.testing.assert_array_equal(np.concatenate([block.numbers["flow"] for block in blocks]), together.numbers["flow"])
    with pytest.raises(InputError, match="column 'level' is missing: expected one of time, pump, flow, note"):
        list(read_blocks(path, texts=[], numbers=["level"]))


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the folder, how much was written, and what to do."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    disk = Disk(tmp_path)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ConfigurationError, match=r"does not fit here: expected room.*No space.*data\.memory_mb"):
        disk.append(np.ones(3))
