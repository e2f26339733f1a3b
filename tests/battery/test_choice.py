"""What a configuration may ask for: names that exist, keys that mean something, weights that start as told."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from detector.errors import ConfigurationError
from tests.battery.networks import GAPS, HIDDEN, INPUTS, NETWORKS
from training.cells.initialise import INITIALS
from training.graph import Detector, DetectorShape
from training.settings import TrainSettings, dump, load
from training.settings.model import ModelSettings
from training.shapes import SHAPES, Architecture, build

REFUSED = {
    "cell: foo": ["cell", "one of", "slstm", "got foo"],
    "shape: stak": ["shape", "one of", "hierarchical", "got stak"],
    "initial: [orthogonal, foo]": ["initial", "chrono", "got foo"],
    "{shape: transformer, cell: lstm}": ["cell gru", "shape transformer does not use it", "hybrid", "got lstm"],
    "every: 4": ["every 8", "shape stack does not use it", "hierarchical", "got 4"],
    "{shape: window, zoneout: 0.1}": ["zoneout", "shape window does not use it"],
    "{shape: conv, decay: true}": ["decay", "shape conv does not use it"],
    "residual: true": ["residual", "two layers"],
    "{layers: 2, variational: true}": ["variational", "dropout above 0"],
    "{shape: transformer, heads: 3}": ["heads", "divisor of hidden, 32", "got 3"],
    "layer: 2": ["layer", "layers"],
}


@pytest.mark.parametrize("model", REFUSED)
def test_what_does_not_go_together_is_refused(model: str, tmp_path: Path) -> None:
    """The message names the key, what was expected, and what came, before any data is read."""
    path = tmp_path / "train.yaml"
    path.write_text(f"name: a\ndata: {{synthetic: {{}}}}\nmodel: {model if model[0] == '{' else '{' + model + '}'}\n")
    with pytest.raises(ConfigurationError) as error:
        load(path)
    assert all(word in str(error.value) for word in ["train.yaml:3", *REFUSED[model]])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_choice_survives_being_written_down(name: str, tmp_path: Path) -> None:
    """A resolved configuration, with every default in it, is taken again and asks for the same network."""
    asked = NETWORKS[name]
    keys = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(asked).items()}
    settings = TrainSettings.model_validate({"name": "a", "data": {"synthetic": {}}, "model": keys})
    path = tmp_path / "config.yaml"
    path.write_text(dump(settings))
    assert load(path) == settings
    assert Architecture(**load(path).model.network()) == asked


def test_the_keys_of_the_settings_are_those_of_the_network() -> None:
    """With the same defaults: what a configuration leaves out is what a saved network left out."""
    assert Architecture(**ModelSettings().network()) == Architecture()


@pytest.mark.parametrize("shape", SHAPES)
def test_joint_forecasters_take_every_shape(shape: str) -> None:
    """In a bundle of fixed channels the network remembers in the joint block, and takes all channels at once."""
    detector = Detector(DetectorShape(mode="fixed", channels=("a", "b"), shape=shape, hidden=HIDDEN)).eval()
    row = detector.initial_row(2)[None]
    said = detector.step(torch.ones(1, 2).double(), torch.ones(1, 2), torch.ones(1, 1), torch.zeros(1, 4), row)
    assert said.next_state.shape == row.shape
    assert said.next_state.isfinite().all()


@pytest.mark.parametrize("initial", INITIALS)
def test_weights_start_as_they_were_told(initial: str) -> None:
    """Each way does to every cell what its paper says, and leaves shapes of weights alone."""
    torch.manual_seed(0)
    network = build(Architecture(cell="lstm", hidden=HIDDEN, initial=(initial,)), INPUTS, GAPS)
    kernel, eye = network.kernel, torch.eye(HIDDEN)
    recurrent = kernel.weight_hh_l0.split(HIDDEN)
    forget = (kernel.bias_ih_l0 + kernel.bias_hh_l0)[HIDDEN : 2 * HIDDEN]
    limits = {"xavier": (6 / (INPUTS + HIDDEN)) ** 0.5, "he": (6 / INPUTS) ** 0.5}
    match initial:
        case "xavier" | "he":
            assert 0.8 * limits[initial] < kernel.weight_ih_l0.abs().max() <= limits[initial]
        case "orthogonal":
            assert all(torch.allclose(u @ u.T, eye, atol=1e-5) for u in recurrent)
        case "identity":
            assert all(torch.equal(u, eye) for u in recurrent)
            assert not kernel.bias_ih_l0.any()
        case "forget":
            assert torch.equal(forget, torch.ones(HIDDEN))
        case "chrono":
            spans = 1 + forget.exp()
            assert 2 <= spans.min() < 30 < spans.max() <= 100
            assert torch.equal((kernel.bias_ih_l0 + kernel.bias_hh_l0)[:HIDDEN], -forget)
        case _:
            pytest.fail(f"what does {initial} do?")
