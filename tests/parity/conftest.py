"""Untrained detectors of each kind, exported once for all tests here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from detector.model.bundle import Bundle, read_bundle
from detector.model.session import Session
from training.export import export
from training.graph import Detector, DetectorShape

SHAPES = {
    "any-gru": DetectorShape(mode="any", profile="full", cell="gru", layers=1, hidden=8),
    "fixed-lstm": DetectorShape(
        mode="fixed", channels=("flow", "pressure", "current"), profile="light", cell="lstm", layers=2, hidden=8
    ),
}


@dataclass(frozen=True)
class Exported:
    """A detector in torch and in ONNX Runtime."""

    detector: Detector
    bundle: Bundle
    session: Session


@pytest.fixture(scope="session")
def any_gru(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export("any-gru", tmp_path_factory.mktemp("any"))


@pytest.fixture(scope="session")
def fixed_lstm(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export("fixed-lstm", tmp_path_factory.mktemp("fixed"))


@pytest.fixture(scope="session", params=["any_gru", "fixed_lstm"])
def exported(request: pytest.FixtureRequest) -> Exported:
    """One of each kind."""
    value: Exported = request.getfixturevalue(request.param)
    return value


def _export(name: str, folder: Path) -> Exported:
    torch.manual_seed(11)
    detector = Detector(SHAPES[name])
    bundle = read_bundle(export(detector, folder / f"{name}.onnx", name=name, version="1"))
    return Exported(detector, bundle, Session(bundle, "cpu"))
