"""How far back gradients reach, which learning rate to take, and what TensorBoard is given."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from detector.errors import InputError
from tests.waves import SETTINGS, changed, detector, trained, waves
from training.fit.logs import Board
from training.fit.range_test import Sweep, sweep, write_page
from training.fit.reach import reach
from training.graph import Detector
from training.progress import Progress
from training.spans import standardise


def measured(made: Detector) -> list[float]:
    train, _ = standardise(made, waves(), "UTC", SETTINGS)
    return reach(made.forecaster, train, torch.tensor(made.shape.quantile_levels))


def test_a_vanilla_rnn_vanishes_where_an_lstm_does_not() -> None:
    """Sixty samples back nothing is left of a plain RNN's gradient; an LSTM that keeps has a good part of it."""
    plain, gated = measured(detector("rnn", hidden=16)), measured(detector("lstm", hidden=16, initial=("chrono",)))
    assert plain[59] < 1e-8 * plain[0]
    assert gated[59] > 1e-3 * gated[0]


def test_an_exploding_gradient_is_seen() -> None:
    """A recurrence that makes everything larger has a curve that rises."""
    made = detector("rnn-relu", hidden=16)
    with torch.no_grad():
        for name, one in made.forecaster.cell.named_parameters():
            if "weight_hh" in name:
                one.copy_(1.02 * torch.eye(16))
    found = measured(made)
    assert found[59] > 2 * found[0]


def test_measuring_leaves_no_trace() -> None:
    """Weights and their gradients are what they were before."""
    made = detector()
    before = [one.clone() for one in made.forecaster.parameters()]
    assert len(measured(made)) == 64
    assert all(torch.equal(one, other) for one, other in zip(before, made.forecaster.parameters(), strict=True))
    assert all(one.grad is None for one in made.forecaster.parameters())


def test_a_training_tells_its_reach() -> None:
    """What training did to the memory is part of what it tells; streams that are too short have none."""
    _, fitted = trained(changed(epochs=1), streams=2)
    assert [len(norms) for norms in fitted.reach.values()] == [64, 64]
    train, _ = standardise(detector(), waves(2, samples=60), "UTC", SETTINGS)
    assert reach(detector().forecaster, train, torch.tensor(detector().shape.quantile_levels)) == []


def test_the_range_test_proposes_a_rate_that_learns(tmp_path: Path) -> None:
    """A rate far too low does nothing, one far too high harms; what is proposed lies between, and nothing changes."""
    made = detector()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    found = sweep(made, waves(3), "UTC", changed(), Progress.silent())
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
    assert found.losses[0] == pytest.approx(1, abs=0.01)
    assert found.losses[-1] > 1.2 * min(found.losses)
    assert 1e-4 < found.proposed < 3e-2
    _, fitted = trained(changed(epochs=3, learning_rate=found.proposed), streams=3)
    assert fitted.best.validation_loss < 0.8 * fitted.epochs[0].validation_loss
    write_page(tmp_path / "runs" / "rates.html", "rates", found)
    assert "proposed" in (tmp_path / "runs" / "rates.html").read_text(encoding="utf-8")


def test_a_rate_is_proposed_below_the_lowest_loss() -> None:
    """A fifth of the rate with the lowest loss, to two digits."""
    assert Sweep([0.01, 0.1, 1.0], [1.0, 0.5, 0.9]).proposed == 0.02


def test_where_nothing_is_learnt_no_rate_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that never falls is an error with advice."""
    monkeypatch.setattr("training.fit.range_test._losses", lambda *_: [1.0, 1.0, 1.0])
    with pytest.raises(InputError, match="nothing was learnt at any rate"):
        sweep(detector(), waves(2), "UTC", SETTINGS, Progress.silent())


def test_tensorboard_has_the_figures_of_each_epoch(tmp_path: Path) -> None:
    """What is logged of an epoch can be read back by TensorBoard's own reader."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, fitted = trained(changed(epochs=1), streams=2)
    with Board(tmp_path) as board:
        assert [board(epoch) for epoch in fitted.epochs] == [False, False]
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    logged = [event.value for event in read.Scalars("loss/validation")]
    assert logged == pytest.approx([epoch.validation_loss for epoch in fitted.epochs])
    assert {"gradient/clipped_ratio", "gradient/norm_max", "fit/learning_rate"} <= set(read.Tags()["scalars"])
