"""Ours, trained on each series' own training part, as `tidewarden train` with `model.start: default` does.

The forecaster goes on learning from the weights of the bundle under test, the whole detector is calibrated on what
follows the cut, and the series is scored by the outcome: `fit` and `calibrate` are training's own, with the same few
settings for all series. The graph is the bundle's, with other weights and another initial row in their places: an
export takes half a minute, so this is put in its stead, and what the export would prove of the weights, that torch and
ONNX Runtime agree on them, is checked here too. Calibration walks through the graph, which for a single stream takes a
tenth of torch's time.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from rich.console import Console
from torch import Tensor

from detector.errors import BundleError
from detector.model.bundle import METADATA_KEY, Bundle, read_bundle
from detector.model.session import Session
from training.calibrate import calibrate
from training.data.series import Series, accept, cut
from training.evaluate.suites import Case
from training.fit import fit
from training.graph.detector import Detector, DetectorShape
from training.progress import Progress
from training.proofs import check_parity
from training.rollout import Step
from training.settings import TrainSettings
from training.settings.data import DataSettings
from training.settings.fit import FitSettings

ROWS_MOST = 20_000
"""Longer series are left out: each has weights of its own, so it cannot share a wave and costs 25 times as much."""
ROWS_MIN = 320
"""Of the training part; a shorter one leaves less than half a warm-up to calibrate on."""

_PROOF_STEPS = 200  # samples that torch and ONNX Runtime are compared on; the graph itself had its proof as it was made

_CANNOT, _OF_THIS_VERSION = "training cannot start from it", "a bundle that this version's `train` wrote"

SETTINGS = TrainSettings(
    name="own",
    data=DataSettings(paths=["the training part"]),
    fit=FitSettings(epochs=8, chunk=128, learning_rate=1e-3, patience=3),
)
"""The same for every series."""


def is_eligible(case: Case) -> bool:
    """Whether a case has enough of a training part, and is not too long."""
    return case.train >= ROWS_MIN and len(case) <= ROWS_MOST


def trained(bundle: Bundle, case: Case, folder: Path) -> Bundle:
    """Train on the training part of a case.

    Args:
        bundle: What it starts from, and whose graph it keeps.
        case: One that is eligible.
        folder: Where the trained bundle is written.

    Raises:
        BundleError: The bundle does not tell its weights, or the trained one fails its proof.
        TidewardenError: Training failed.
    """
    model = onnx.load_from_string(bundle.model_bytes)
    detector = _detector(bundle, model)
    quiet = Progress(Console(quiet=True))
    history = _history(case)
    torch.set_num_threads(1)
    fit(detector, history, SETTINGS.data.time_zone, SETTINGS.fit, quiet)
    session = Session(_written(bundle, model, detector, bundle.metadata["decide"], folder / "trained.onnx"))
    check_parity(detector, session, len(case.channels), _PROOF_STEPS)
    calibration = calibrate(detector, history, SETTINGS, quiet, _step(session))
    decide = {**bundle.metadata["decide"], "exceedances_per_alarm": calibration.exceedances_per_alarm}
    return _written(bundle, model, detector, decide, folder / "own.onnx")


def _step(session: Session) -> Step:
    """A session's `step`, from torch's tensors to torch's tensors."""

    def step(values: Tensor, observed: Tensor, elapsed: Tensor, clock: Tensor, rows: Tensor) -> list[Tensor]:
        score, *others = session.step(values.numpy(), observed.numpy(), elapsed.numpy(), clock.numpy(), rows.numpy())
        return [torch.from_numpy(part) for part in (score[:, None], *others)]

    return step


def _history(case: Case) -> list[Series]:
    """The training part as `train` takes it."""
    part = slice(0, case.train)
    whole = accept(case.name, case.channels, case.time_ns[part], case.values[part], Counter())
    return cut([whole] if whole else [], SETTINGS.fit.validation_share)


def _detector(bundle: Bundle, model: onnx.ModelProto) -> Detector:
    """A bundle's detector: the weights in its graph, and what its new streams start from."""
    constants = _constants(model)
    known = {field.name for field in fields(DetectorShape)}  # what is new has its default, what is gone was unused
    try:
        detector = Detector(DetectorShape(**{k: v for k, v in bundle.metadata["shape"].items() if k in known}))
        found = {name: numpy_helper.to_array(constants[name]) for name, _ in detector.named_parameters()}
    except (KeyError, TypeError) as error:
        raise BundleError(bundle.path, _CANNOT, expected=_OF_THIS_VERSION, got=error) from error
    widths, own = (bundle.joint, bundle.per_channel), (detector.joint_width, detector.channel_width)
    if widths != own:
        raise BundleError(bundle.path, _CANNOT, expected=_OF_THIS_VERSION, got=f"rows of {widths} floats for {own}")
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            parameter.copy_(torch.from_numpy(found[name].copy()))
        start = torch.from_numpy(bundle.initial_row(len(detector.initial_channel)))
        detector.initial_joint.copy_(start[: bundle.joint])
        detector.initial_channel.copy_(start[bundle.joint :].view_as(detector.initial_channel))
    return detector


def _written(
    bundle: Bundle, model: onnx.ModelProto, detector: Detector, decide: Mapping[str, Any], path: Path
) -> Bundle:
    """The bundle with the detector's weights and initial row, and what `decide` goes by, in the places of its own."""
    constants = _constants(model)
    for name, parameter in detector.named_parameters():
        constants[name].CopyFrom(numpy_helper.from_array(parameter.detach().numpy(), name))
    document = {
        **bundle.metadata,
        "initial": {"joint": _text(detector.initial_joint), "per_channel": _text(detector.initial_channel)},
        "decide": dict(decide),
        "graph_sha256": hashlib.sha256(model.graph.SerializeToString()).hexdigest(),
    }
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(document, sort_keys=True)})
    path.write_bytes(model.SerializeToString())
    return read_bundle(path)


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {constant.name: constant for constant in model.graph.initializer}


def _text(row: Tensor) -> str:
    return base64.b64encode(row.numpy().astype("<f4").tobytes()).decode()
