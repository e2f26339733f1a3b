"""One training from configuration to bundle, and the folder that it leaves.

    runs/pumps-20261121-131500/
      config.yaml     the resolved configuration; `train -c` takes it again
      epochs.csv      what fit logged of each epoch
      metrics.json    data, fit, calibration, bundle, versions
      report.html     the same for people
      tensorboard/    the figures of each epoch, for TensorBoard
      weights.pt      the detector as torch saved it; `export` makes the bundle from it again
      bundle.onnx     what the daemon runs
      attention.csv   what forecasts looked back on, where the network attends to its past

Until it is whole there is a checkpoint.pt too, which `train --resume` goes on from (`folder`, `fit.state`).
"""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
import subprocess
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from detector import bundles
from detector.errors import ConfigurationError, InputError
from detector.model.bundle import read_bundle
from detector.model.offline import check_streams
from training.attention import look_back, write_csv
from training.calibrate import Calibration, calibrate
from training.data.load import History, load_history
from training.data.look import Finding, look
from training.data.series import sha256
from training.export import export
from training.findings import NOTHING, as_advice, as_table
from training.fit import Epoch, Fitted, fit
from training.fit.logs import Board
from training.fit.loop import device_of
from training.fit.processes import Team, team
from training.fit.range_test import Sweep, sweep, write_page
from training.fit.state import FILE as CHECKPOINT
from training.folder import CONFIG, reopened, run_folder
from training.graph.detector import Detector, DetectorShape
from training.progress import Progress
from training.report import stretches, write_report
from training.settings import TrainSettings, dump
from training.shapes import Architecture

UNIVERSAL = Path(bundles.__file__).parent / "default.pt"
"""The weights of the universal bundle, beside it: what `start: default` starts from."""

_FREE = {"dropout", "variational", "initial"}  # keys of a network that two forecasters need not have in common
_BUILD = ("mode", *(field.name for field in fields(Architecture) if field.name not in _FREE))


def train(settings: TrainSettings, progress: Progress, resume: Path | None = None) -> Path:
    """Train, calibrate, export and report; of several processes that train together, the first does all but train.

    Args:
        settings: What is to be done.
        progress: Told how far it is.
        resume: A run folder that is not complete, to go on in; None makes a new one.

    Returns:
        The finished run folder.
    """
    torch.set_num_threads(settings.fit.threads)
    with team() as mates, _folder(settings, resume, mates) as folder, Board(folder) as board:
        progress = Progress.silent() if mates.rank else progress
        history, detector = _prepared(settings, progress)
        findings = [] if mates.rank else look_at(history, progress)
        kept = {"folder": folder, "team": mates} | ({} if mates.rank else {"watch": board})
        fitted = fit(detector, history.series, settings.data.time_zone, settings.fit, progress, **kept)
        if not mates.rank:
            _finish(folder, detector, settings, history, fitted, findings, progress)
    return folder.with_suffix("")


@contextmanager
def _folder(settings: TrainSettings, resume: Path | None, mates: Team) -> Iterator[Path]:
    if mates.rank:
        yield mates.told(None)
        return
    with reopened(resume, settings) if resume else run_folder(settings.output, settings.name) as folder:
        (folder / CONFIG).write_text(dump(settings), encoding="utf-8")
        yield mates.told(folder)


def read_history(settings: TrainSettings, progress: Progress) -> History:
    """Read all history, and tell how much there is of it."""
    history = load_history(settings, progress.over("reading"))
    told = f"{len(history.series)} streams, {history.samples:,} samples, left out: {history.rejects or 'none'}"
    on_disk = sum(one.is_stored for one in history.series)
    progress.says(f"{told}; {on_disk} streams lie on disk, beyond data.memory_mb" if on_disk else told)
    return history


def look_at(history: History, progress: Progress) -> list[Finding]:
    """Tell what is worth knowing of the data before anything is learnt from it."""
    findings = look(history.series, progress.over("looking"))
    if findings:
        progress.shows(as_table(findings, len(history.series)))
    for line in as_advice(findings) or [f"looked for what may be wrong with the data, and found {NOTHING}"]:
        progress.says(line)
    return findings


def _prepared(settings: TrainSettings, progress: Progress) -> tuple[History, Detector]:
    device_of(settings.fit)  # that it is missing is to be said before hours of reading
    history = read_history(settings, progress)
    torch.manual_seed(settings.fit.seed)
    detector = Detector(shape_of(settings, history))
    if settings.model.start:
        start_from(detector, settings.model.start)
    return history, detector


def _finish(
    folder: Path,
    detector: Detector,
    settings: TrainSettings,
    history: History,
    fitted: Fitted,
    findings: Sequence[Finding],
    progress: Progress,
) -> None:
    calibration = calibrate(detector, history.series, settings, progress)
    metadata = describe(settings, history, calibration)
    _save(folder / "weights.pt", detector, settings, metadata)
    progress.says("exporting, and proving that the bundle computes what torch does")
    export_weights(folder / "weights.pt", folder / "bundle.onnx")
    metrics = _metrics(metadata, history, fitted, folder / "bundle.onnx")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    _write_epochs(folder / "epochs.csv", fitted.epochs)
    drawn = stretches(calibration.runs)
    looked = look_back(detector, drawn, history.series, settings.data.time_zone)
    if looked:
        write_csv(folder / "attention.csv", looked)
    title = f"{settings.name} {settings.version}"
    write_report(folder / "report.html", title, metrics, fitted, calibration, drawn, looked, findings)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def find_learning_rate(settings: TrainSettings, progress: Progress) -> tuple[Sweep, Path]:
    """Try learning rates, from far too low to far too high; what was found, and the page that shows it."""
    torch.set_num_threads(settings.fit.threads)
    history, detector = _prepared(settings, progress)
    found = sweep(detector, history.series, settings.data.time_zone, settings.fit, progress)
    path = settings.output / f"{settings.name}-learning-rate.html"
    write_page(path, f"{settings.name}: which learning rate", found)
    return found, path


def shape_of(settings: TrainSettings, history: History) -> DetectorShape:
    """The detector that a configuration and its history ask for. Raises ConfigurationError where there is none."""
    if settings.model.direction == "both":
        hint = "what reads history from both ends is no detector; only train, impute and label know it"
        raise ConfigurationError("model", "direction", expected="forward", got="both", hint=hint)
    fixed = settings.model.mode == "fixed"
    channels = history.channels if fixed else None
    units = [settings.data.units.get(channel, "") for channel in channels] if fixed and settings.data.units else None
    return DetectorShape(
        channels=channels,
        units=tuple(units) if units else None,
        period_s=history.period_s,
        **settings.model.model_dump(exclude={"start", "direction"}),
    )


def start_from(detector: Detector, start: str) -> None:
    """Give the detector the forecaster of another run, and what its streams begin with.

    Args:
        detector: Its forecaster ends with the weights found.
        start: `default` or the path of a weights.pt.

    Raises:
        ConfigurationError: the two forecasters are not built alike.
        InputError: the file is not what `train` writes.
    """
    saved = _saved(UNIVERSAL if start == "default" else Path(start))
    theirs, own = asdict(Architecture()) | saved["shape"], detector.shape.as_dict()
    for key in _BUILD:
        if theirs.get(key) != own[key]:
            built = f"{key} {theirs.get(key)}, as the start has it"
            raise ConfigurationError("model", key, expected=built, got=own[key], hint="or leave model.start out")
    prefix = "forecaster."
    weights = {name.removeprefix(prefix): w for name, w in saved["weights"].items() if name.startswith(prefix)}
    try:
        detector.forecaster.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigurationError("model", "start", expected="a forecaster built like this one", got=error) from error
    _begin_as(detector, saved["weights"])


def _begin_as(detector: Detector, weights: Mapping[str, torch.Tensor]) -> None:
    """Let streams begin with the features of the start's, which calibration on few samples hardly moves.

    A start of another profile has a row of other parts; then its forecaster alone is taken.
    """
    row = torch.cat([weights["initial_joint"], weights["initial_channel"].flatten()])
    if row.shape == detector.initial_row(len(detector.shape.channels or ("any",))).shape:
        known = detector.fields(row[None])
        learnt = [*detector.own.learnt, *(detector.together.learnt if detector.together else ())]
        detector.set_priors({name: known[name].squeeze(0) for name in learnt})


def describe(settings: TrainSettings, history: History, calibration: Calibration) -> dict[str, Any]:
    """What the bundle's metadata say beyond the detector itself."""
    return {
        "description": settings.description,
        "data": {
            "from": _iso(min(int(one.time_ns[0]) for one in history.series)),
            "to": _iso(max(int(one.time_ns[-1]) for one in history.series)),
            "sha256": sha256(history.series),
            "streams": len(history.series),
            "samples": history.samples,
        },
        "decide": {
            "budget_per_day": settings.decide.budget_per_day,
            "exceedances_per_alarm": calibration.exceedances_per_alarm,
            "threshold_nines": None,
        },
        "calibration": calibration.figures(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The git commit of this code, with a mark when it was changed since; None where it is no checkout of ours."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changed")
    except (OSError, subprocess.CalledProcessError):
        return None


def export_weights(weights: Path, bundle: Path) -> Path:
    """Make a bundle from what `train` saved.

    Raises:
        InputError: the file is not what `train` writes.
    """
    saved = _saved(weights)
    return export(
        _built(saved, weights), bundle, name=saved["name"], version=saved["version"], metadata=saved["metadata"]
    )


def detector_of(weights: Path) -> Detector:
    """The detector that `train` saved. Raises InputError."""
    return _built(_saved(weights), weights)


def _built(saved: dict[str, Any], weights: Path) -> Detector:
    try:
        detector = Detector(DetectorShape(**saved["shape"]))
        detector.load_state_dict(saved["weights"])
    except (RuntimeError, TypeError) as error:
        raise InputError(weights, "cannot be read", expected="weights.pt of a run", got=error) from error
    return detector


def _saved(weights: Path) -> dict[str, Any]:
    check_streams(weights)
    if not weights.exists():
        raise InputError(weights, "no such file", expected="weights.pt of a run")
    if not zipfile.is_zipfile(weights):  # torch raises whatever comes to its mind
        raise InputError(weights, "cannot be read", expected="weights.pt of a run")
    try:
        saved: dict[str, Any] = torch.load(weights, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(weights, "cannot be read", expected="weights.pt of a run", got=error) from error
    if missing := {"name", "version", "metadata", "shape", "weights"} - set(saved):
        raise InputError(weights, "cannot be read", expected="weights.pt of a run", got=f"no {sorted(missing)}")
    return saved


def _save(path: Path, detector: Detector, settings: TrainSettings, metadata: dict[str, Any]) -> None:
    saved = {"name": settings.name, "version": settings.version, "metadata": metadata}
    torch.save({**saved, "shape": asdict(detector.shape), "weights": detector.state_dict()}, path)


def _metrics(metadata: dict[str, Any], history: History, fitted: Fitted, bundle: Path) -> dict[str, Any]:
    return {
        "data": {**metadata["data"], "period_s": history.period_s, "rejects": history.rejects},
        "fit": {
            "epochs": len(fitted.epochs),
            "best_epoch": fitted.best.epoch,
            "train_loss": fitted.best.train_loss,
            "validation_loss": fitted.best.validation_loss,
            "persistence_loss": fitted.persistence_loss,
            "seconds": sum(epoch.seconds for epoch in fitted.epochs),
        },
        "calibration": metadata["calibration"],
        "decide": metadata["decide"],
        "bundle": {"bytes": bundle.stat().st_size, "sha256": hashlib.sha256(bundle.read_bytes()).hexdigest()},
        "versions": read_bundle(bundle).metadata["versions"],
    }


def _write_epochs(path: Path, epochs: Sequence[Epoch]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(map(asdict, epochs))


def _iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
