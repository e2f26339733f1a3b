"""Fine-tuning: a run may start from another's forecaster, if the two are built alike, and says so if they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from detector.bundles import locate
from detector.errors import ConfigurationError, InputError
from detector.model.bundle import read_bundle
from training import run as running
from training.graph import Detector, DetectorShape
from training.run import start_from
from training.settings import TrainSettings, load

SETTINGS = TrainSettings.model_validate({"name": "a", "data": {"synthetic": {}}})


def made(seed: int, **shape: object) -> Detector:
    torch.manual_seed(seed)
    return Detector(DetectorShape(**{"hidden": 8} | shape))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """What a run of a small forecaster has saved."""
    running._save(tmp_path / "weights.pt", made(0), SETTINGS, {})
    return tmp_path / "weights.pt"


def test_training_starts_from_the_weights_of_another_run(weights: Path) -> None:
    """All of the forecaster is the other's afterwards, nothing else is, and before it was not."""
    detector, theirs = made(1, warm_up=64, band_level=0.9), made(0).forecaster.state_dict()
    own = detector.forecaster.state_dict()
    assert not all(torch.equal(own[name], theirs[name]) for name in theirs)
    start_from(detector, str(weights))
    own = detector.forecaster.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in theirs)
    assert detector.shape.warm_up == 64


def test_streams_begin_as_those_of_the_start(tmp_path: Path) -> None:
    """What the start's streams had learnt of their features is the prior; one of another profile has none to give."""
    start = made(0)
    names = [*start.own.learnt, *start.together.learnt]
    blank = start.fields(start.initial_row(1)[None])
    start.set_priors({name: blank[name].squeeze(0) + 0.25 for name in names})
    running._save(tmp_path / "weights.pt", start, SETTINGS, {})
    theirs = start.fields(start.initial_row(1)[None])
    for profile, same in (("full", True), ("light", False)):
        detector = made(1, profile=profile)
        start_from(detector, str(tmp_path / "weights.pt"))
        own = detector.fields(detector.initial_row(1)[None])
        assert all(torch.equal(own[name], theirs[name]) == same for name in detector.own.learnt)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ({"hidden": 16}, ["model hidden", "8", "16"]),
        ({"cell": "lstm"}, ["model cell", "gru", "lstm"]),
        ({"mode": "fixed", "channels": ("a",)}, ["model mode", "any", "fixed"]),
    ],
)
def test_another_build_is_refused(weights: Path, shape: dict[str, object], told: list[str]) -> None:
    """What differs is named, with what the start has and what the configuration asks for."""
    with pytest.raises(ConfigurationError) as error:
        start_from(made(1, **shape), str(weights))
    assert all(word in str(error.value).replace(":", "") for word in told)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    """A file of another kind, and none at all, are refused by name."""
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    for path in (tmp_path / "weights.pt", tmp_path / "absent.pt"):
        with pytest.raises(InputError, match=path.name):
            start_from(made(1), str(path))


def test_start_is_read_from_the_configuration(tmp_path: Path) -> None:
    """`model.start` is a key like any other; left out, training starts from chance."""
    path = tmp_path / "train.yaml"
    path.write_text("name: a\ndata: {synthetic: {}}\n", encoding="utf-8")
    assert load(path).model.start is None
    assert load(path, ["model.start=default", "fit.epochs=0"]).model.start == "default"


def test_the_weights_in_the_box_are_those_of_the_bundle_in_the_box() -> None:
    """Fine-tuning goes on from what is shipped: the same forecaster, and streams that begin alike; another's differ."""
    bundle = read_bundle(locate("default"))
    shipped = {each.name: numpy_helper.to_array(each) for each in onnx.load(bundle.path).graph.initializer}
    detector, stranger = running.detector_of(running.UNIVERSAL), Detector(DetectorShape())
    for theirs, same in ((detector, True), (stranger, False)):
        alike = [np.array_equal(value.detach(), shipped.get(name)) for name, value in theirs.named_parameters()]
        assert all(alike) == same
        assert np.array_equal(theirs.initial_row(2), bundle.initial_row(2)) == same
