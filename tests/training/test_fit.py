"""Truncated back-propagation through time: memory goes on across chunks, the best weights win, a seed is a seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from tests.waves import SETTINGS, detector, trained, waves
from training.fit import Epoch, bptt, fit
from training.fit.bptt import Bptt
from training.fit.loss import Usual, persistence_loss, pinball
from training.fit.processes import ALONE
from training.fit.records import DivergedError
from training.fit.state import Training
from training.progress import Progress
from training.spans import Span, batches, side_by_side, standardise


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize(("mode", "cell", "layers"), [("any", "gru", 1), ("any", "lstm", 2), ("fixed", "gru", 3)])
def test_memory_goes_on_across_chunks(mode: str, cell: str, layers: int, missing: float) -> None:
    """Forecasts chunk by chunk are those of the whole stretch at once; without the hidden state they are not."""
    made = detector(cell, mode, 3, layers).eval()
    torch.nn.init.normal_(made.forecaster.head.weight, std=0.3)
    train, _ = standardise(made, waves(channels=3, missing=missing), "UTC", SETTINGS)
    batch = side_by_side(train)
    start = made.forecaster.initial_hidden(*batch.target[:, 0].shape)
    whole, _ = made.forecaster.unroll(batch.inputs, batch.query, batch.observed, start)
    hidden, parts, forgetful = start, [], []
    for chunk in batch.chunks(16):
        part, hidden = made.forecaster.unroll(chunk.inputs, chunk.query, chunk.observed, hidden)
        parts.append(part)
        forgetful.append(made.forecaster.unroll(chunk.inputs, chunk.query, chunk.observed, start)[0])
    counted = batch.counted
    torch.testing.assert_close(torch.cat(parts, dim=1)[counted], whole[counted], rtol=3e-3, atol=3e-3)
    assert not torch.allclose(torch.cat(forgetful, dim=1)[counted], whole[counted], rtol=1e-2, atol=1e-2)


def test_the_gradient_is_cut_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is carried from chunk to chunk has values but no history."""
    seen: list[tuple[bool, float]] = []
    made = detector()
    unroll = made.forecaster.unroll

    def watched(inputs, query, mask, hidden):
        if inputs.shape[1] > 1:  # one sample after the other is how `reach` looks
            seen.append((hidden.requires_grad, float(hidden.abs().sum())))
        return unroll(inputs, query, mask, hidden)

    monkeypatch.setattr(made.forecaster, "unroll", watched)
    fit(made, waves(), "UTC", SETTINGS.model_copy(update={"epochs": 1}), Progress.silent())
    assert not any(has_history for has_history, _ in seen)
    assert sum(size > 0 for _, size in seen) > len(seen) / 2


def test_the_same_seed_gives_the_same_weights() -> None:
    """Training is a function of data, configuration and seed; another seed gives other weights."""
    first, second = (trained()[0].state_dict() for _ in range(2))
    other = trained(SETTINGS.model_copy(update={"seed": 4}))[0].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_whoever_watches_may_end_training() -> None:
    """Training ends with the epoch at which it is asked to, and with the best weights so far."""
    told: list[int] = []

    def enough(epoch: Epoch) -> bool:
        told.append(epoch.epoch)
        return epoch.epoch == 1

    made = detector()
    fitted = fit(made, waves(), "UTC", SETTINGS, Progress.silent(), watch=enough)
    assert told == [epoch.epoch for epoch in fitted.epochs] == [0, 1]
    assert fitted.best.validation_loss == min(epoch.validation_loss for epoch in fitted.epochs)


def test_training_beats_persistence() -> None:
    """On waves, what was learnt is far better than the last value."""
    _, fitted = trained(SETTINGS.model_copy(update={"epochs": 15, "learning_rate": 1e-2}))
    assert fitted.best.validation_loss < 0.5 * fitted.persistence_loss


def test_the_best_weights_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training stops after `patience` epochs without gain, and ends with the weights of the best one."""
    losses = iter([9.0, 9.0, 3.0, 1.0, 2.0, 1.5, 0.1])  # of the start on both spans, then of each epoch
    kept: list[dict[str, torch.Tensor]] = []

    def told(passes: Bptt, *_: object) -> float:
        kept.append({name: tensor.clone() for name, tensor in passes._training.forecaster.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(Bptt, "validate", told)
    made, fitted = trained(SETTINGS.model_copy(update={"epochs": 9, "patience": 2}))
    assert [epoch.epoch for epoch in fitted.epochs] == [0, 1, 2, 3, 4]
    assert fitted.best.epoch == 2
    assert all(torch.equal(kept[3][name], tensor) for name, tensor in made.forecaster.state_dict().items())


def test_validation_is_later_and_never_trained_on() -> None:
    """No target of the training spans lies after the cut, none of the validation spans before it."""
    streams = waves()
    train, validation = standardise(detector(), streams, "UTC", SETTINGS)
    later = sum(int((~np.isnan(one.values[one.cut :])).sum()) for one in streams)
    assert sum(len(span.target) for span in train) == sum(one.cut for one in streams)
    assert sum(int(span.counted.sum()) for span in validation) == later


def test_missing_and_padding_do_not_count() -> None:
    """Whatever stands in a cell that does not count, the loss is the same."""
    span = Span(*(torch.zeros(2, 5, 1, 1),) * 2, torch.randn(2, 5, 1), *(torch.rand(2, 5, 1) > 0.4,) * 2)
    other = Span(span.inputs, span.query, torch.where(span.counted, span.target, 1e6), span.observed, span.counted)
    quantiles, levels = torch.randn(2, 5, 1, 3), torch.tensor([0.1, 0.5, 0.9])
    assert torch.equal(pinball(quantiles, span, levels), pinball(quantiles, other, levels))
    assert pinball(quantiles, span, levels).sum() > 0


def test_pinball_is_least_at_the_quantiles() -> None:
    """The loss is smallest where the forecast is the distribution's own quantiles."""
    y = torch.randn(4000, 1)
    levels = torch.tensor([0.1, 0.5, 0.9])
    everything = Span(*(torch.zeros(4000, 1, 1),) * 2, y, *(torch.ones(4000, 1, dtype=torch.bool),) * 2)
    quantiles = torch.quantile(y.flatten(), levels)
    best = pinball(quantiles.expand(4000, 1, 3), everything, levels).sum()
    for shift in ([0.2, 0, 0], [0, -0.2, 0], [0, 0, 0.2], [-0.2, 0, 0]):
        assert pinball((quantiles + torch.tensor(shift)).expand(4000, 1, 3), everything, levels).sum() > best


def test_batches_hold_every_span_once() -> None:
    """Shuffled or not, each span is in exactly one batch, with spans of the same number of channels."""
    made = detector()
    train, _ = standardise(made, waves() + waves(channels=2), "UTC", SETTINGS)
    for rng in (None, np.random.default_rng(0)):
        found = batches(train, 4, rng)
        assert sorted(id(span) for batch in found for span in batch) == sorted(map(id, train))
        assert all(len({span.target.shape[1] for span in batch}) == 1 and len(batch) <= 4 for batch in found)


def test_a_long_stream_is_trained_in_segments() -> None:
    """One long stream becomes segments side by side, which together are the whole of its training span."""
    (one,) = waves(streams=1, samples=3000)
    train, _ = standardise(detector(), [one], "UTC", SETTINGS)
    assert [len(span.target) for span in train] == [1024, 1024, 352]


def test_losses_are_comparable() -> None:
    """An untrained forecaster is about as good as persistence: both losses are in the same units."""
    made = detector()
    levels = torch.tensor(made.shape.quantile_levels)
    train, validation = standardise(made, waves(), "UTC", SETTINGS)
    floor = persistence_loss(levels, train, validation)
    passes = Bptt(Training(made.forecaster, SETTINGS), levels, SETTINGS, ALONE)
    assert floor == pytest.approx(passes.validate(validation), rel=0.3)


def test_a_start_that_cannot_be_bettered_is_kept() -> None:
    """Where training only harms, the weights at the end are those of the start; so they are after no epoch at all."""
    for changes in ({"learning_rate": 3.0, "clip_norm": 1e3}, {"epochs": 0}):
        made = detector()
        before = {name: tensor.clone() for name, tensor in made.forecaster.state_dict().items()}
        fitted = fit(made, waves(), "UTC", SETTINGS.model_copy(update=changes), Progress.silent())
        assert fitted.best.epoch == 0
        assert all(torch.equal(before[name], tensor) for name, tensor in made.forecaster.state_dict().items())


def test_small_losses_count_as_much_as_large_ones() -> None:
    """Gradients of two streams, one of which is foretold a hundred times better, are of like size."""
    scale = torch.tensor([[1.0], [0.01]], requires_grad=True)
    usual = Usual()
    losses = (scale * torch.ones(2, 1)) * 50  # sums over 50 samples
    (losses / usual.of(losses.detach(), torch.full((2, 1), 50))).sum().backward()
    relative = (scale.grad * scale.detach()).flatten()
    assert relative[1] == pytest.approx(relative[0], rel=0.5)
    assert scale.grad[1] > 50 * scale.grad[0]


def test_a_loss_that_never_is_finite_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training that diverges says where, and of which streams, instead of shipping what is left."""
    monkeypatch.setattr(bptt, "pinball", lambda quantiles, *_: quantiles[..., 0] * float("nan"))
    with pytest.raises(
        DivergedError, match=r"epoch 0, validation: the loss is no longer finite, got batch 1: 4 streams, s"
    ):
        trained()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
