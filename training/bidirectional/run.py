"""A run that reads history from both ends: its training, its folder, and how it is opened again.

runs/pumps-both-20261122-031500/
  config.yaml     the resolved configuration; `train -c` takes it again
  epochs.csv      the losses of each epoch
  gaps.csv        how well gaps of the later spans were filled, beside linear interpolation and the last value
  metrics.json    data, fit, gaps
  report.html     the same for people
  weights.pt      network, and what residuals are usual; marked as what cannot stream
"""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector.errors import ConfigurationError, InputError
from detector.model.offline import MARK, is_offline
from detector.records import Float64
from training.bidirectional.estimate import Stretch, stretch
from training.bidirectional.fit import Epoch, check, fit
from training.bidirectional.gaps import Row, by_last, by_line, measure
from training.bidirectional.label import LEAST, usual_residuals
from training.bidirectional.model import BothSided, Shape
from training.bidirectional.output import write_report
from training.data.load import History
from training.data.series import Series, sha256
from training.folder import CONFIG, run_folder
from training.progress import Progress
from training.run import look_at, read_history
from training.settings import ModelSettings, TrainSettings, dump, load
from training.shapes import Architecture

_UNUSED = ("start", "profile", "warm_up", "line")
_USUAL_CELLS = 200_000  # of the later spans, whose residuals are kept for `label`
_SHORTEST = 8  # samples; below it a span has no both sides to speak of


@dataclass(frozen=True, slots=True)
class Run:
    """A complete run."""

    settings: TrainSettings
    model: BothSided
    usual: Float64
    """What residuals are usual; see label.py."""


def train(settings: TrainSettings, progress: Progress) -> Path:
    """Train, measure and report.

    Returns:
        The finished run folder.

    Raises:
        ConfigurationError: a key that means nothing here.
        InputError: the data cannot be used.
    """
    _check(settings)
    torch.set_num_threads(settings.fit.threads)
    with run_folder(settings.output, settings.name) as folder:
        (folder / CONFIG).write_text(dump(settings), encoding="utf-8")
        history = read_history(settings, progress)
        look_at(history, progress)
        earlier, later = spans(history.series, settings.data.time_zone)
        torch.manual_seed(settings.fit.seed)
        model = BothSided(_shape(settings, history))
        epochs = fit(model, earlier, later, settings.fit, progress)
        progress.says("measuring what residuals are usual, and how well gaps are filled")
        usual = usual_residuals(model, _some(later))
        _save(folder / "weights.pt", settings, model, usual)
        _write(folder, settings, history, epochs, _gaps(model, _some(later)))
    return folder.with_suffix("")


def spans(series: Sequence[Series], zone: str) -> tuple[list[Stretch], list[Stretch]]:
    """What is trained on, and what comes later; each standardised by itself."""
    cut = [(one.between(0, one.cut), one.between(one.cut, len(one))) for one in series]
    earlier, later = (
        [stretch(one.time_ns, one.values, zone) for one in side if len(one) >= _SHORTEST]
        for side in zip(*cut, strict=True)
    )
    if not earlier or not later:
        expected = f"{_SHORTEST} samples of a stream or more on either side of fit.validation_share's cut"
        raise InputError("data", "too little to train on", expected=expected)
    return earlier, later


def open_run(folder: Path) -> Run:
    """Open what `train` left.

    Raises:
        InputError: it is no complete run, or one for streams.
    """
    weights = folder / "weights.pt"
    expected = "a run folder that `tidewarden train` made with model.direction: both"
    if not weights.is_file():
        raise InputError(folder, "no such run", expected=expected)
    if not is_offline(weights):
        hint = "score and forecast use its bundle.onnx"
        raise InputError(folder, "cannot fill or label", expected=expected, got="one for streams", hint=hint)
    try:
        saved: dict[str, Any] = torch.load(weights, weights_only=True)
        shape = saved["shape"]
        model = BothSided(Shape(Architecture(**shape["network"]), tuple(shape["channels"]), shape["band_level"]))
        model.load_state_dict(saved["weights"])
        usual = saved["usual"].numpy()
    except (OSError, RuntimeError, LookupError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(weights, "cannot be read", expected="weights.pt of a run", got=error) from error
    return Run(load(folder / CONFIG), model.eval(), usual)


def _check(settings: TrainSettings) -> None:
    check(settings.fit)
    for key in _UNUSED:
        default = ModelSettings.model_fields[key].default
        if getattr(settings.model, key) != default:
            expected = f"{default} (direction: both does not use it)"
            raise ConfigurationError("model", key, expected=expected, got=getattr(settings.model, key))


def _shape(settings: TrainSettings, history: History) -> Shape:
    if history.channels is None:
        raise InputError("data", "streams differ in channels", expected="one set of channels", hint="set data.channels")
    return Shape(Architecture(**settings.model.network()), history.channels, settings.model.band_level)


def _some(later: Sequence[Stretch]) -> list[Stretch]:
    """Evenly chosen, as many as are worth their time."""
    cells = sum(one.values.size for one in later)
    return list(later[:: -(-cells // _USUAL_CELLS)])


def _gaps(model: BothSided, later: Sequence[Stretch]) -> dict[str, list[Row]]:
    """Tables by what is gone."""
    others = {"linear": by_line, "last value": by_last}
    found = {"all channels": measure(model, later, others)}
    if len(model.shape.channels) > 1:
        found["one channel"] = measure(model, later, others, alone=True)
    return found


def _save(path: Path, settings: TrainSettings, model: BothSided, usual: Float64) -> None:
    if (few := int((~np.isnan(usual)).sum(axis=1).min())) < LEAST:
        expected = f"{LEAST} measured samples of every channel or more after the cut, to rank residuals"
        raise InputError("data", "too little to label by", expected=expected, got=few, hint="more history")
    torch.save(
        {
            "mark": MARK,
            "name": settings.name,
            "version": settings.version,
            "shape": asdict(model.shape),
            "weights": model.state_dict(),
            "usual": torch.from_numpy(usual.astype(np.float32)),
        },
        path,
    )


def _write(
    folder: Path, settings: TrainSettings, history: History, epochs: Sequence[Epoch], gaps: dict[str, list[Row]]
) -> None:
    best = min(epochs, key=lambda one: one.validation_loss)
    metrics = {
        "data": {
            "sha256": sha256(history.series),
            "streams": len(history.series),
            "samples": history.samples,
            "rejects": history.rejects,
        },
        "fit": {"epochs": len(epochs) - 1, "best_epoch": best.epoch, "validation_loss": best.validation_loss},
        "gaps": {gone: [asdict(row) for row in rows] for gone, rows in gaps.items()},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    with (folder / "epochs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(map(asdict, epochs))
    with (folder / "gaps.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["gone", "from", "to", "cells", "way", "error"])
        for gone, rows in gaps.items():
            for row in rows:
                table.writerows([gone, *row.lengths, row.cells, way, error] for way, error in row.errors.items())
    write_report(folder / "report.html", f"{settings.name} {settings.version}", metrics, epochs, gaps)
