"""History read from both ends: what an estimate may know, and what impute and label make of it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.cli import main
from detector.records import Float64
from training.bidirectional.estimate import Stretch, estimate, stretch
from training.bidirectional.gaps import by_line
from training.bidirectional.model import BothSided, Shape
from training.shapes import Architecture

ROWS, PERIOD_S, SPIKE = 1_200, 60, 700
CONFIG = """
name: waves
data: {{paths: [{folder}/waves.csv], stream: pump}}
model: {{mode: fixed, direction: both, hidden: 12}}
fit: {{epochs: 8, patience: 8, batch: 4, learning_rate: 0.01}}
output: {folder}/runs
"""


def waves(rng: np.random.Generator) -> Float64:
    """(ROWS, 2): a wave of an hour with noise, and what follows from it."""
    a = np.sin(np.arange(ROWS) * (2 * np.pi / 60) + rng.uniform(0, 6)) + rng.normal(0, 0.03, ROWS)
    return np.stack([10 + a, 3 - 2 * a + rng.normal(0, 0.03, ROWS)], axis=1)


def random_stretch(rng: np.random.Generator, channels: int = 3) -> Stretch:
    times = np.cumsum(rng.integers(1, 4, 200)) * 10**9
    values = rng.normal(0, 1, (200, channels)).cumsum(axis=0)
    values[rng.random(values.shape) < 0.2] = np.nan
    return stretch(times, values, "UTC")


def random_model(channels: int = 3) -> BothSided:
    """One whose weights are all at work."""
    torch.manual_seed(1)
    model = BothSided(Shape(Architecture(hidden=8), tuple(map(str, range(channels))), 0.9))
    with torch.no_grad():
        for weights in model.parameters():
            weights.normal_(0, 0.3)
    return model


def write(path: Path, streams: dict[str, Float64]) -> None:
    lines = ["time,pump,a,remark,b"]
    for name, values in streams.items():
        for at, (a, b) in enumerate(values):
            when = np.datetime64(at * PERIOD_S, "s")
            lines.append(f"{when}Z,{name},{'' if np.isnan(a) else f'{a:.3f}'},x,{'' if np.isnan(b) else f'{b:.3f}'}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(*words: object) -> object:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, words)))
    return ended.value.code


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, small and quick."""
    folder = tmp_path_factory.mktemp("both")
    rng = np.random.default_rng(3)
    write(folder / "waves.csv", {f"p{number}": waves(rng) for number in range(6)})
    (folder / "train.yaml").write_text(CONFIG.format(folder=folder), encoding="utf-8")
    assert not run("train", "-c", folder / "train.yaml")
    return next((folder / "runs").iterdir())


def test_an_estimate_never_looks_at_its_own_cell() -> None:
    """Whatever a cell holds, its estimate is the same to the bit; those of its neighbours in time and channel move."""
    one, model = random_stretch(np.random.default_rng(2)), random_model()
    before = estimate(model, one, one.measured)
    at, c = 100, int(np.flatnonzero(one.measured[100])[0])
    values = one.values.copy()
    values[at, c] += 3.0
    after = estimate(model, replace(one, values=values), one.measured)
    moved = before.centre != after.centre
    assert not moved[at, c]
    assert moved[at - 1, c]
    assert moved[at + 1, c]
    assert moved[at, [other for other in range(3) if other != c]].all()


def test_what_is_hidden_tells_nothing() -> None:
    """A cell that is not shown moves no estimate at all, its own or another's."""
    one, model = random_stretch(np.random.default_rng(4)), random_model()
    shown = one.measured
    shown[80:90, 1] = False
    before = estimate(model, one, shown)
    values = one.values.copy()
    values[80:90, 1] = 1e6
    assert np.array_equal(before.centre, estimate(model, replace(one, values=values), shown).centre)


def test_an_untrained_network_draws_a_line_with_a_band_around() -> None:
    """Its line is numpy's interpolation in time, its estimate hardly off it, and the band holds most random walks."""
    one = random_stretch(np.random.default_rng(6), channels=1)
    line = by_line([one], [one.measured])[0][:, 0]
    gone = ~one.measured[:, 0]
    seen = one.periods[~gone]
    assert np.allclose(line[gone], np.interp(one.periods[gone], seen, one.values[~gone, 0]))
    torch.manual_seed(1)
    said = estimate(BothSided(Shape(Architecture(), ("a",), 0.9)), one, one.measured)
    assert np.abs(said.centre[:, 0] - line).max() < 0.2 * (said.upper - said.lower).min()
    inside = ((one.values >= said.lower) & (one.values <= said.upper))[one.measured]
    assert 0.7 < inside.mean() < 1.0


def test_gaps_are_filled_better_than_by_a_line(trained: Path) -> None:
    """A quarter of a wave, after a few seconds of training: the run's own table says so."""
    errors = {(row["gone"], row["from"], row["way"]): float(row["error"]) for row in table(trained / "gaps.csv")}
    for gone in ("all channels", "one channel"):
        assert errors[gone, "4", "both-sided"] < 0.85 * errors[gone, "4", "linear"]


def test_impute_fills_what_is_empty_and_touches_nothing_else(trained: Path, tmp_path: Path) -> None:
    """Same rows and columns; a gap of all channels gets nearly what was lost, inside its band; a late row stays."""
    true = waves(np.random.default_rng(11))
    holed = true.copy()
    holed[300:330], holed[500, 0] = np.nan, np.nan
    write(tmp_path / "history.csv", {"new": holed})
    with (tmp_path / "history.csv").open("a", encoding="utf-8") as file:
        file.write("1970-01-01T00:00:30Z,new,,late,7\n")
    told = ["--run", trained, "--input", tmp_path / "history.csv", "--plot", tmp_path / "filled.html"]
    assert not run("impute", *told, "--output", tmp_path / "filled.csv")
    before, after = table(tmp_path / "history.csv"), table(tmp_path / "filled.csv")
    assert list(before[0]) == list(after[0])
    assert before[-1] == after[-1]
    changed = {(at, name) for at, row in enumerate(before) for name in row if row[name] != after[at][name]}
    assert changed == {(at, name) for at in range(300, 330) for name in "ab"} | {(500, "a")}
    cells = table(tmp_path / "filled-cells.csv")
    assert {(int(row["row"]) - 1, row["channel"]) for row in cells} == changed
    lost = [true[int(row["row"]) - 1, "ab".index(row["channel"])] for row in cells]
    inside = [float(row["lower"]) <= value <= float(row["upper"]) for row, value in zip(cells, lost, strict=True)]
    assert np.mean(inside) > 0.7
    assert "new" in (tmp_path / "filled.html").read_text(encoding="utf-8")


def test_label_finds_the_sample_that_fits_neither_side(trained: Path, tmp_path: Path) -> None:
    """A spike is labelled in its channel, with what was expected there; calm history has next to no labels."""
    values = waves(np.random.default_rng(12))
    values[SPIKE, 1] += 1.5
    write(tmp_path / "history.csv", {"new": values})
    told = ["--run", trained, "--input", tmp_path / "history.csv", "--plot", tmp_path / "labels.html"]
    assert not run("label", *told, "--nines", "2", "--output", tmp_path / "labels.csv")
    rows = table(tmp_path / "labels.csv")
    assert rows[SPIKE]["label"] == "1"
    assert rows[SPIKE]["channel"] == "b"
    assert abs(float(rows[SPIKE]["expected"]) - (values[SPIKE, 1] - 1.5)) < 0.5
    assert sum(row["label"] == "1" for at, row in enumerate(rows) if abs(at - SPIKE) > 40) < 0.03 * ROWS


@pytest.mark.parametrize("what", ["", "weights.pt"])
def test_what_reads_from_both_ends_cannot_stream(
    trained: Path, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scoring with it, and exporting it, is refused with the reason and what to use instead."""
    write(tmp_path / "history.csv", {"new": waves(np.random.default_rng(1))})
    assert run("score", "-i", tmp_path / "history.csv", "-o", tmp_path / "scores.csv", "-b", trained / what)
    assert "samples that are yet to come" in capsys.readouterr().err
    assert run("export", trained / what)
    told = capsys.readouterr().err
    assert "samples that are yet to come" in told
    assert "tidewarden impute" in told


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.mode=any", ["mode: fixed with direction: both"]),
        ("model.start=default", ["model", "start", "direction: both does not use it"]),
        ("fit.chunk=32", ["fit", "chunk", "direction: both does not use it"]),
    ],
)
def test_a_key_that_would_change_nothing_is_refused(
    trained: Path, override: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before hours of training, and by name."""
    assert run("train", "-c", trained.parent.parent / "train.yaml", "--set", override)
    told = " ".join(capsys.readouterr().err.split())
    assert [word for word in words if word not in told] == []
