"""Scoring tables with a row per channel: the samples that the daemon would join, with their scores."""

from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from detector.cli import main
from detector.errors import ConfigurationError
from detector.records import Reason
from detector.scoring import Columns, Summary, engine_factory, open_bundle, score_files
from detector.settings import DecideSettings, DetectorSettings

ANY = str(Path(__file__).parents[1] / "golden" / "tiny-any.onnx")
LOUD = DetectorSettings(decide=DecideSettings(threshold_nines=1.5, hysteresis_nines=0.5, cool_down_s=0))
CHANNELS = ("flow", "heat", "hum")
COLUMNS = Columns(stream="pump", time_unit="s", channels=CHANNELS)
LONG = Columns(stream="pump", time_unit="s", channels=CHANNELS, channel="tag", value="reading")

Rows = list[list[Any]]


@pytest.fixture
def feed() -> tuple[Rows, Rows]:
    """The same samples with a row each and with a row per channel, which come in any order and are not all there."""
    rng = random.Random(6)
    wide: Rows = []
    long: Rows = []
    for tick in range(200):
        for pump in ("p1", "p2"):
            values = [rng.gauss(50, 1) + (30 if tick > 190 else 0) for _ in CHANNELS]
            cells: list[Any] = [None if rng.random() < 0.1 else value for value in values]
            if not any(cells):
                cells[0] = 1.0
            wide.append([pump, 60 * tick, *cells])
            order = [c for c in range(3) if cells[c] is not None or rng.random() < 0.5]
            long += [[pump, 60 * tick, CHANNELS[c], cells[c]] for c in rng.sample(order, len(order))]
    return wide, long


def write(path: Path, header: list[str], rows: Rows) -> Path:
    """As CSV."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def score(path: Path, columns: Columns, **options: Any) -> tuple[Summary, list[dict[str, str]]]:
    """The summary and the rows of the output, less the file's name."""
    output = path.with_suffix(".scores.csv")
    engines = engine_factory(open_bundle(ANY), LOUD, detail=True)
    summary = score_files(engines, [str(path)], output, columns=columns, detail=True, **options)
    if summary.errors:
        return summary, []
    with output.open(newline="") as file:
        return summary, [row | {"file": ""} for row in csv.DictReader(file)]


def by_sample(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """In order of stream and time."""
    return sorted(rows, key=lambda row: (row["stream"], float(row["time"])))


def test_a_row_per_channel_scores_as_a_row_per_sample(tmp_path: Path, feed: tuple[Rows, Rows]) -> None:
    """The same bits, forecasts and blame too; one row of output per sample."""
    wide, expected = score(write(tmp_path / "wide.csv", ["pump", "time", *CHANNELS], feed[0]), COLUMNS)
    long, found = score(write(tmp_path / "long.csv", ["pump", "time", "tag", "reading"], feed[1]), LONG, threads=2)
    assert by_sample(found) == by_sample(expected)
    assert (long.rows, long.streams, long.anomalies, long.rejects) == (400, 2, wide.anomalies, Counter())
    assert long.anomalies > 2


def test_rows_that_make_no_sample_are_counted(tmp_path: Path, feed: tuple[Rows, Rows]) -> None:
    """And change nothing of the others."""
    header = ["pump", "time", "tag", "reading"]
    _, expected = score(write(tmp_path / "sound.csv", header, feed[1]), LONG)
    rows = feed[1].copy()
    rows[300:300] = [rows[299], rows[5], rows[6], ["", 1, "flow", 1], ["p1", 1, "", 1], ["p1", 60, "flow", "inf"]]
    rows[7:7] = [["p1", "", "flow", 1], ["p1", 0, "humidity", 3]]
    summary, found = score(write(tmp_path / "rough.csv", header, rows), LONG)
    assert by_sample(found) == by_sample(expected)
    assert summary.rejects == {
        Reason.DUPLICATE: 1,
        Reason.LATE: 2,
        Reason.MISSING_FIELD: 2,
        Reason.NOT_FINITE: 1,
        Reason.BAD_TIME: 1,
    }


def test_the_command_line_reads_long_tables(tmp_path: Path, feed: tuple[Rows, Rows], capsys: Any) -> None:
    """Without --channels those that the file names."""
    path = write(tmp_path / "long.csv", ["pump", "time", "tag", "reading"], feed[1])
    output = tmp_path / "out.csv"
    named = ["--stream", "pump", "--time-unit", "s", "--channel", "tag", "--value", "reading"]
    with pytest.raises(SystemExit) as ended:
        main(["score", "--bundle", ANY, "--input", str(path), "--output", str(output), *named])
    assert ended.value.code == 0
    assert "400 rows, 2 streams" in capsys.readouterr().err
    with output.open(newline="") as file:
        assert len({(row["stream"], row["time"]) for row in csv.DictReader(file)}) == 400


def test_what_a_long_table_needs_is_said(tmp_path: Path) -> None:
    """A time, and for detail the names of its channels."""
    path = write(tmp_path / "long.csv", ["pump", "tag", "reading"], [["p1", "flow", 1]])
    summary, _ = score(path, LONG)
    assert "has no time column" in str(summary.errors[0])
    with pytest.raises(ConfigurationError, match="--channels"):
        score(path, Columns(channel="tag"))
