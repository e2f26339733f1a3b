"""From a configuration and a CSV to a bundle that scores, in a folder that is whole or says that it is not."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from rich.console import Console
from typer.testing import CliRunner

from detector.cli import app
from detector.errors import InputError
from detector.model.bundle import read_bundle
from detector.model.session import Session
from training import run as running
from training.folder import run_folder
from training.progress import Progress
from training.run import export_weights, train
from training.settings import TrainSettings, dump, load

FILES = {"config.yaml", "epochs.csv", "metrics.json", "report.html", "weights.pt", "bundle.onnx", "tensorboard"}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pumps in one small CSV."""
    path = tmp_path_factory.mktemp("data") / "pumps.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "pump", "flow", "pressure"])
        for second in range(0, 6000, 10):
            for pump in range(3):
                flow = 100 * pump + 5 * np.sin(second / 300 + pump) + 0.1 * rng.standard_normal()
                pressure = "" if rng.random() < 0.05 else 3 + 0.1 * flow + 0.02 * rng.standard_normal()
                writer.writerow([second, f"p{pump}", flow, pressure])
    return path


def settings(plant: Path, output: Path, **model: object) -> TrainSettings:
    return TrainSettings.model_validate(
        {
            "name": "small",
            "data": {"paths": [str(plant)], "time_unit": "s", "stream": "pump", "units": {"flow": "m3/h"}},
            "model": {"profile": "light", "hidden": 8, "warm_up": 32, **model},  # full is exported in tests/parity
            "fit": {"epochs": 3, "batch": 2, "chunk": 32, "learning_rate": 1e-2},
            "output": str(output),
        }
    )


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def a_bundle_scores(path: Path, channels: int) -> bool:
    """Whether the daemon's own session takes the bundle and gives finite results."""
    bundle = read_bundle(path)
    session, rows = Session(bundle), np.tile(bundle.initial_row(channels), (4, 1))
    for second in range(50):
        values = np.full((4, channels), float(second % 7))
        observed, clock = np.ones((4, channels), np.float32), np.zeros((4, 4), np.float32)
        step = session.step(values, observed, np.full((4, 1), 10, np.float32), clock, rows)
        rows = step.next_state
    return bool(
        np.isfinite(step.score).all() and np.isfinite(rows).all() and rows.shape[1] == bundle.row_floats(channels)
    )


MODELS = {"any": {"mode": "any", "cell": "gru"}, "fixed": {"mode": "fixed", "cell": "lstm", "layers": 2}}


@pytest.fixture(scope="module")
def folders(plant: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run folder of either kind; one made by the command, the other by the function behind it."""
    runs = tmp_path_factory.mktemp("runs")
    config = runs / "train.yaml"
    config.write_text(dump(settings(plant, runs / "elsewhere", **MODELS["any"])))
    called = CliRunner().invoke(app, ["train", "-c", str(config), "--set", "fit.epochs=2", "-o", str(runs / "any")])
    assert called.exit_code == 0, called.output
    return {
        "any": Path(called.stdout.strip()).parent,
        "fixed": train(settings(plant, runs / "fixed", **MODELS["fixed"]), quiet()),
    }


@pytest.mark.parametrize("mode", MODELS)
def test_training_leaves_a_whole_run_folder(plant: Path, folders: dict[str, Path], mode: str) -> None:
    """Either kind trains from a CSV, and leaves everything that the run folder promises."""
    folder = folders[mode]
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["fit"]["validation_loss"] < metrics["fit"]["persistence_loss"] * 1.5
    assert (metrics["data"]["streams"], metrics["data"]["samples"]) == (3, 1800)
    assert len((folder / "epochs.csv").read_text().splitlines()) == 1 + metrics["fit"]["epochs"]
    resolved = settings(plant, folder.parent, **MODELS[mode])
    epochs = {"any": 2, "fixed": 3}[mode]  # one was overridden by --set
    assert load(folder / "config.yaml") == resolved.model_copy(
        update={"fit": resolved.fit.model_copy(update={"epochs": epochs})}
    )


@pytest.mark.parametrize("mode", MODELS)
def test_the_trained_bundle_scores(folders: dict[str, Path], mode: str) -> None:
    """The daemon's own session takes the bundle, whose metadata say what training measured."""
    folder = folders[mode]
    metrics = json.loads((folder / "metrics.json").read_text())
    bundle = read_bundle(folder / "bundle.onnx")
    assert (bundle.name, bundle.version, bundle.warm_up) == ("small", "1", 32)
    assert bundle.metadata["data"]["sha256"] == metrics["data"]["sha256"]
    assert bundle.metadata["calibration"]["coverage"] == pytest.approx(metrics["calibration"]["coverage"])
    assert bundle.metadata["channels"]["names"] == (["flow", "pressure"] if mode == "fixed" else None)
    assert a_bundle_scores(folder / "bundle.onnx", channels=2)


def test_the_report_needs_nothing_else(folders: dict[str, Path]) -> None:
    """One HTML file for light and dark screens, which loads nothing from elsewhere."""
    report = (folders["any"] / "report.html").read_text()
    assert "prefers-color-scheme: dark" in report
    assert not any(word in report.partition("<body>")[2] for word in ("src=", "href="))


def test_export_makes_the_same_bundle_again(plant: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    """weights.pt is all that a bundle needs; another file is refused."""
    called = CliRunner().invoke(app, ["export", str(folders["any"]), "-o", str(tmp_path / "again.onnx")])
    assert called.exit_code == 0, called.output
    assert read_bundle(tmp_path / "again.onnx").metadata == read_bundle(folders["any"] / "bundle.onnx").metadata
    with pytest.raises(InputError, match=r"weights\.pt of a run"):
        export_weights(plant, tmp_path / "none.onnx")


def test_the_command_proposes_a_learning_rate(plant: Path, tmp_path: Path) -> None:
    """`--find-learning-rate` makes no run: it prints what to set, and draws why."""
    config = tmp_path / "train.yaml"
    config.write_text(dump(settings(plant, tmp_path / "out")))
    called = CliRunner().invoke(app, ["train", "-c", str(config), "--find-learning-rate"])
    assert called.exit_code == 0, called.output
    key, _, rate = called.stdout.strip().partition("=")
    assert (key, 1e-5 < float(rate) < 1) == ("fit.learning_rate", True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small-learning-rate.html"]


def test_a_broken_run_says_so(plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that failed keeps what it has under a name that says so, with the reason."""

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(running, "calibrate", fails)
    with pytest.raises(RuntimeError, match="on fire"):
        train(settings(plant, tmp_path), quiet())
    (folder,) = tmp_path.iterdir()
    assert folder.suffix == ".broken"
    assert "the disk is on fire" in (folder / "error.txt").read_text()


def test_ctrl_c_marks_the_run(tmp_path: Path) -> None:
    """Also an interrupted run is marked."""
    with pytest.raises(KeyboardInterrupt), run_folder(tmp_path, "a"):
        raise KeyboardInterrupt
    assert [path.suffix for path in tmp_path.iterdir()] == [".broken"]


def test_run_folders_never_meet(tmp_path: Path) -> None:
    """Two runs in the same second get folders of their own; until it is whole a folder is called partial."""
    with run_folder(tmp_path, "a") as first, run_folder(tmp_path, "a") as second:
        assert (first.suffix, second.suffix) == (".partial", ".partial")
    assert len({path.name for path in tmp_path.iterdir()}) == 2


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
