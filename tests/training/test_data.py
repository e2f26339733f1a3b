"""History becomes what the daemon would have accepted, is cut by time, padded and masked."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import pyarrow as pa
import pyarrow.parquet
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import InputError
from detector.stages.infer import WallClock
from training.data.batches import block, blocks
from training.data.files import read_files
from training.data.load import load_history
from training.data.series import Series, accept, cut, period_s, sha256
from training.settings import DataSettings, TrainSettings

S = 1_000_000_000


def read(paths: list[Path], **settings: Any) -> tuple[list[Series], Counter[str]]:
    rejects: Counter[str] = Counter()
    return read_files(DataSettings(paths=[str(path) for path in paths], **settings), rejects), rejects


def written(folder: Path, text: str, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def series(stream: str = "s", samples: int = 10, channels: int = 1, start: int = 0) -> Series:
    values = np.arange(samples * channels, dtype=np.float64).reshape(samples, channels)
    return Series(stream, tuple("abc"[:channels]), (start + np.arange(samples)) * S, values, samples)


def test_streams_go_on_across_files(tmp_path: Path) -> None:
    """With a stream column a stream continues in the next file; every numeric column left is a channel."""
    first = written(tmp_path, "time,pump,flow,note\n1,x,1,hi\n1,y,10,\n2,x,,\n", "a.csv")
    second = written(tmp_path, "time,pump,flow,note\n3,x,3,\n", "b.csv")
    found, _ = read([first, second], stream="pump", time_unit="s")
    assert [(one.stream, one.channels, one.time_ns.tolist()) for one in found] == [
        ("x", ("flow",), [1 * S, 3 * S]),  # its second sample had nothing observed
        ("y", ("flow",), [1 * S]),
    ]


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    """The same rows give the same series from either format."""
    csv = written(tmp_path, "ts,a,b\n2026-01-01T00:00:00Z,1.5,\n2026-01-01T00:00:01.5Z,2,7\n")
    times = pa.array([datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)])
    table = pa.table({"ts": times, "a": [1.5, 2.0], "b": pa.array([None, 7], pa.int64())})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    (left,), (right,) = read([csv])[0], read([tmp_path / "a.parquet"])[0]
    assert left.time_ns.tolist() == right.time_ns.tolist() == [1_767_225_600 * S, 1_767_225_601_500_000_000]
    np.testing.assert_array_equal(left.values, right.values)


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("time,a\n1,2\n2,x\n", {"time_unit": "s"}, ["a.csv:3", "column 'a'", "'x'"]),
        ("time,a\n1,2\n2\n", {"time_unit": "s"}, ["a.csv:3", "2 cells"]),
        ("time,a\n1,2\n", {}, ["data.time_unit"]),
        ("time,a\nyesterday,3\n", {}, ["a.csv", "column 'time'", "'yesterday'"]),
        ("time,a\n1,2\n", {"time_unit": "s", "channels": ["b"]}, ["a.csv", "column 'b' is missing", "time, a"]),
        ("a\n1\n", {}, ["data.period_s"]),
        ("time,a\n", {"time_unit": "s"}, ["holds no rows"]),
        ("time,a\n1,x\n", {"time_unit": "s"}, ["no numeric column"]),
    ],
)
def test_a_fault_is_named_by_place(tmp_path: Path, text: str, settings: dict[str, Any], words: list[str]) -> None:
    """What is wrong with a file is said with file, line and column."""
    with pytest.raises(InputError) as caught:
        read([written(tmp_path, text)], **settings)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_missing_file_is_named() -> None:
    """A pattern that matches nothing is an error, not an empty history."""
    with pytest.raises(InputError, match=r"nowhere.*no such file"):
        read([Path("nowhere/*.csv")])


def test_rows_without_time_are_counted(tmp_path: Path) -> None:
    """Without a time column the row number times the period is the time."""
    (found,), _ = read([written(tmp_path, "a\n1\n2\n3\n")], period_s=0.5)
    assert found.time_ns.tolist() == [0, S // 2, S]


def test_what_the_daemon_refuses_is_left_out_and_counted() -> None:
    """Late, duplicate, empty and infinite samples are counted by the daemon's reasons."""
    rejects: Counter[str] = Counter()
    time_ns = np.array([1, 3, 2, 3, 4, 5, 6]) * S
    values = np.array([[1.0], [2.0], [3.0], [4.0], [np.nan], [np.inf], [7.0]])
    found = accept("s", ["a"], time_ns, values, rejects)
    assert found is not None
    assert found.values[:, 0].tolist() == [1.0, 2.0, 7.0]
    assert rejects == {"late": 1, "duplicate": 1, "nothing_observed": 1, "not_finite": 1}


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=60))
def test_accepted_times_rise(rows: list[tuple[int, bool]]) -> None:
    """Whatever comes, what is kept rises strictly and kept plus refused is everything."""
    rejects: Counter[str] = Counter()
    values = np.array([[1.0 if seen else np.nan] for _, seen in rows])
    found = accept("s", ["a"], np.array([at for at, _ in rows], np.int64), values, rejects)
    kept = 0 if found is None else len(found)
    assert kept + rejects.total() == len(rows)
    assert found is None or bool((np.diff(found.time_ns) > 0).all())


def test_the_cut_is_one_moment() -> None:
    """All streams are cut at the same moment, the last share of the time they span together."""
    early, late = cut([series("a", 100), series("b", 50, start=50)], 0.2)
    assert early.time_ns[early.cut] == late.time_ns[late.cut] == 80 * S
    assert (early.cut, late.cut) == (80, 30)


def test_padding_is_not_observed() -> None:
    """A shorter stream is padded with what counts as missing."""
    padded = block([series("a", 3, 2), series("b", 5, 2)], "UTC")
    assert padded.observed.sum(axis=(1, 2)).tolist() == [6, 10]
    assert np.isnan(padded.values[0, 3:]).all()
    assert padded.elapsed.tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 1, 1]]


def test_blocks_hold_every_stream_once() -> None:
    """Streams are grouped by their number of channels, none lost, none twice."""
    everything = [series(f"s{n}", 5 + n, 1 + n % 3) for n in range(20)]
    found = list(blocks(everything, "UTC", most=4))
    assert sorted(one.stream for each in found for one in each.series) == sorted(one.stream for one in everything)
    assert all(len({len(one.channels) for one in each.series}) == 1 and len(each.series) <= 4 for each in found)


def test_clock_features_are_the_daemons() -> None:
    """Training sees the very bits of time of day and week that production will see."""
    one = series(samples=5, start=1_700_000_000)
    found = block([one], "Europe/Vienna").clock[0]
    np.testing.assert_array_equal(found, WallClock("Europe/Vienna").features(one.time_ns))
    assert np.abs(found).max() > 0


def test_the_hash_sees_every_change() -> None:
    """Another value, time, name or order is other data."""
    one = series()
    other = Series("s", ("a",), one.time_ns, one.values + np.eye(10, 1), 10)
    renamed = Series("t", ("a",), one.time_ns, one.values, 10)
    assert len({sha256([one]), sha256([other]), sha256([renamed]), sha256([one, one])}) == 4
    assert sha256([one]) == sha256([series()])


def test_the_period_is_the_usual_step() -> None:
    """A gap does not change the nominal period."""
    one = series(samples=20)
    assert (
        period_s([Series("s", ("a",), one.time_ns + np.where(np.arange(20) > 9, 1000 * S, 0), one.values, 20)]) == 1.0
    )


@pytest.mark.parametrize("mode", ["any", "fixed"])
def test_generated_history_is_the_same_for_the_same_seed(mode: str) -> None:
    """Plant and generators are pure functions of their settings."""
    data = {"plant": {"streams": 2, "hours": 0.5}, "synthetic": {"streams": 6, "samples": 300}}
    settings = {"name": "a", "data": data if mode == "any" else {"plant": data["plant"]}, "model": {"mode": mode}}
    first, second = (load_history(TrainSettings.model_validate(settings)) for _ in range(2))
    assert sha256(first.series) == sha256(second.series)
    assert (first.channels is None, first.period_s is None) == (mode == "any", mode == "any")


def test_a_fixed_detector_refuses_streams_that_differ(tmp_path: Path) -> None:
    """A joint forecaster needs one set of channels."""
    rows = "".join(f"{n},{n}\n" for n in range(100))
    paths = [written(tmp_path, f"time,{name}\n{rows}", f"{name}.csv") for name in "ab"]
    data = {"paths": list(map(str, paths)), "time_unit": "s"}
    settings = TrainSettings.model_validate({"name": "x", "data": data, "model": {"mode": "fixed"}})
    with pytest.raises(InputError, match="differ in channels"):
        load_history(settings)


def test_too_little_history_is_an_error(tmp_path: Path) -> None:
    """Ten samples are nothing to learn from."""
    path = written(tmp_path, "time,a\n" + "".join(f"{n},{n}\n" for n in range(10)))
    data = {"paths": [str(path)], "time_unit": "s"}
    with pytest.raises(InputError, match="too little"):
        load_history(TrainSettings.model_validate({"name": "x", "data": data}))
