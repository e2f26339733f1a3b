"""The long way, for each network: `tidewarden train` on the demo's plant, then `tidewarden score` with its bundle.

A minute or two each, so only `make battery` goes it.
"""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from detector.cli import app
from detector.demo.plant import CHANNELS, Plant
from tests.battery.networks import NETWORKS
from training.settings import TrainSettings, dump

pytestmark = [
    pytest.mark.skipif(not os.environ.get("LONG"), reason="minutes in all: make battery"),
    pytest.mark.timeout(1200),
]

MODES = {"decay": "fixed", "deep": "fixed", "hybrid": "fixed"}
"""Networks that go it with all channels at once: decay has more to do there, for a channel may be missing alone."""


@pytest.mark.parametrize("name", NETWORKS)
def test_from_a_configuration_to_scores(name: str, tmp_path: Path) -> None:
    """Training forecasts the later span better, leaves a proved bundle, and the daemon's command scores with it."""
    keys = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(NETWORKS[name]).items()}
    settings = TrainSettings.model_validate(
        {
            "name": name,
            "data": {"plant": {"streams": 4, "hours": 3, "seed": 1}},
            "model": keys | {"profile": "light", "warm_up": 32, "mode": MODES.get(name, "any")},
            "fit": {"epochs": 6, "batch": 4, "learning_rate": 3e-3},
            "output": str(tmp_path / "runs"),
        }
    )
    (tmp_path / "train.yaml").write_text(dump(settings))
    trained = CliRunner().invoke(app, ["train", "-c", str(tmp_path / "train.yaml")])
    assert trained.exit_code == 0, trained.output
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "metrics.json").read_text())["fit"]["best_epoch"] > 0
    assert (folder / "attention.csv").exists() == (NETWORKS[name].shape in ("attention", "hybrid"))

    output = tmp_path / "scores.csv"
    command = ["score", "-b", str(folder / "bundle.onnx"), "-i", str(_plant(tmp_path)), "-o", str(output)]
    scored = CliRunner().invoke(app, [*command, "--stream", "pump", "--time-unit", "ns"])
    assert scored.exit_code == 0, scored.output
    with output.open(newline="") as file:
        scores = [float(row["score"] or 0) for row in csv.DictReader(file)]
    assert any(scores)
    assert all(map(math.isfinite, scores))


def _plant(folder: Path) -> Path:
    """A quarter of an hour of two pumps, as CSV."""
    pumps = Plant(2, 11)
    path = folder / "plant.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["pump", "time", *CHANNELS])
        for stream, event_ns, values in pumps.samples(0.25):
            for one, ns, row in zip(stream.tolist(), event_ns.tolist(), values.tolist(), strict=True):
                out.writerow([pumps.names[one], ns, *("" if cell != cell else repr(cell) for cell in row)])
    return path
