"""Files that no benchmark would have and users do: scored or refused with the reason, and none costs another."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from detector.scoring import Columns, Summary, engine_factory, open_bundle, score_files
from detector.settings import DetectorSettings

COLUMNS = Columns(time_unit="s")
TINY = str(Path(__file__).parents[1] / "golden" / "tiny-any.onnx")
ROWS = 400


def wave(channels: int = 1) -> np.ndarray:
    """(ROWS, channels): a sine with noise."""
    noise = np.random.default_rng(5).standard_normal((ROWS, channels))
    return np.sin(np.arange(ROWS) / 7)[:, None] + 0.1 * noise


def hostile() -> dict[str, np.ndarray]:
    gaps, spike = wave(), wave()
    gaps[50:90] = np.nan
    spike[310] = 1e30
    return {
        "short": wave()[:30],
        "single": wave()[:1],
        "constant": np.full((ROWS, 1), 7.0),
        "gaps": gaps,
        "spike": spike,
        "half missing": np.where(np.arange(2) == 0, np.nan, wave(channels=2)),
        "wide": wave(channels=64),
    }


def write(path: Path, values: np.ndarray) -> Path:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["time", *(f"channel_{c}" for c in range(values.shape[1]))])
        out.writerows(
            [60 * row, *("" if math.isnan(cell) else repr(cell) for cell in cells)]
            for row, cells in enumerate(values.tolist())
        )
    return path


def score(inputs: list[Path], output: Path) -> tuple[list[dict[str, str]], Summary]:
    """With the bundle in the box; the rows of the output, and what came of it."""
    engines = engine_factory(open_bundle("default"), DetectorSettings(), detail=False)
    summary = score_files(engines, [str(path) for path in inputs], output, columns=COLUMNS, detail=False)
    with output.open(newline="") as file:
        return list(csv.DictReader(file)), summary


@pytest.mark.parametrize("kind", hostile())
def test_every_kind_of_series_has_a_finite_score_for_every_row(tmp_path: Path, kind: str) -> None:
    """Short, constant, gappy, spiky, missing and wide: a row out for every row in, each score finite."""
    values = hostile()[kind]
    rows, summary = score([write(tmp_path / f"{kind}.csv", values)], tmp_path / "out.csv")
    assert not summary.errors
    assert len(rows) == len(values)
    scores = np.array([float(row["score"]) for row in rows])
    assert np.isfinite(scores).all()
    assert (scores[:100] == 0).all()  # warm-up
    if kind == "constant":
        assert scores.max() < 2
    if kind == "spike":
        assert scores.argmax() == 310


def test_a_bad_file_among_them_is_named_and_costs_no_other(tmp_path: Path) -> None:
    """Text in a number column costs its file, with line and column; what the others get is what they get alone."""
    good = write(tmp_path / "good.csv", wave())
    missing = write(tmp_path / "missing.csv", np.full((ROWS, 1), np.nan))
    others = [write(tmp_path / f"{kind}.csv", values) for kind, values in hostile().items() if kind != "wide"]
    text = write(tmp_path / "text.csv", wave())
    lines = text.read_text().splitlines()
    lines[9] = "480,n/a"
    text.write_text("\n".join(lines) + "\n")
    alone, _ = score([good], tmp_path / "alone.csv")
    rows, summary = score([*others, text, missing, good], tmp_path / "out.csv")
    assert [row for row in rows if row["stream"] == str(good)] == alone
    assert [str(error).removeprefix(str(tmp_path)) for error in summary.errors] == [
        "/text.csv:10: column 'channel_0': not a number: expected a number or an empty cell, got 'n/a'",
        "/missing.csv: has no numeric column: expected at least one channel",
    ]


def test_a_long_file_gives_a_score_for_each_of_its_300_000_rows(tmp_path: Path) -> None:
    """300 streams of 1,000 rows in one file, in order of time: as many rows out, every stream scored."""
    path = tmp_path / "long.csv"
    values = np.random.default_rng(6).normal(size=(1_000, 300)).round(3).tolist()
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["pump", "time", "flow"])
        out.writerows((pump, 60 * at, flow) for at, row in enumerate(values) for pump, flow in enumerate(row))
    engines = engine_factory(open_bundle(TINY), DetectorSettings(), detail=False)
    columns = Columns(stream="pump", time_unit="s")
    summary = score_files(engines, [str(path)], tmp_path / "out.csv", columns=columns, detail=False)
    assert (summary.rows, summary.streams, summary.errors) == (300_000, 300, [])
    with (tmp_path / "out.csv").open(newline="") as file:
        scored = {row["stream"] for row in csv.DictReader(file) if float(row["score"]) > 0}
    assert len(scored) == 300
