"""Back-propagation through time: how far it goes, at what cost, over which stretches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from detector.errors import ConfigurationError
from tests.waves import SETTINGS, changed, detector, trained, waves
from training.fit.bptt import Bptt
from training.fit.curriculum import stretches
from training.fit.processes import ALONE
from training.fit.state import Training
from training.settings import FitSettings
from training.spans import Span, batches, side_by_side, standardise


def batch_of_waves(samples: int = 96) -> Span:
    """Four streams side by side."""
    train, _ = standardise(detector(), waves(streams=4), "UTC", SETTINGS)
    return side_by_side([span.part(slice(100, 100 + samples)) for span in train])


def gradients(settings: FitSettings, batch: Span) -> list[Tensor]:
    """Of the sum of all quantiles of each chunk, as training walks over a batch."""
    made = detector().forecaster
    torch.nn.init.normal_(made.head.weight, std=0.3)
    passes = Bptt(Training(made, settings), torch.zeros(5), settings, ALONE)
    sum(quantiles.sum() for _, quantiles in passes._walk(batch)).backward()
    return [one.grad for one in made.parameters()]


def reached(settings: FitSettings, batch: Span) -> list[int]:
    """Of each chunk, the first sample whose input has a gradient from the chunk's last quantiles."""
    passes = Bptt(Training(detector().forecaster, settings), torch.zeros(5), settings, ALONE)
    first = []
    batch.inputs.requires_grad_()
    for _, quantiles in passes._walk(batch):
        (gradient,) = torch.autograd.grad(quantiles[:, -1].square().sum(), batch.inputs, retain_graph=True)
        first.append(int(gradient.abs().sum(dim=(0, 2, 3)).nonzero()[0]))
    return first


def test_truncated_gradients_go_back_k2_samples() -> None:
    """Steps are k1 samples apart; a gradient goes back to the start of its chunk, k2 samples, or to the beginning."""
    assert reached(changed(chunk=16), batch_of_waves()) == [0, 16, 32, 48, 64, 80]
    assert reached(changed(chunk=16, back=48), batch_of_waves()) == [0, 0, 0, 16, 32, 48]
    assert reached(changed(chunk=16, bptt="full"), batch_of_waves()) == [0]


def test_the_state_is_carried_whatever_k2_is() -> None:
    """Forecasts of a longer k2 are those of the plain walk: only gradients differ."""
    batch, found = batch_of_waves(), []
    for settings in (changed(chunk=16), changed(chunk=16, back=64), changed(bptt="full")):
        passes = Bptt(Training(detector().forecaster, settings), torch.zeros(5), settings, ALONE)
        found.append(torch.cat([quantiles for _, quantiles in passes._walk(batch)], dim=1))
    for one, other in pairwise(found):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_k2_that_covers_all_is_full() -> None:
    """With k2 as long as the stretch, gradients are those of full back-propagation; with k2 = k1 they are not."""
    batch = batch_of_waves(64)
    full, long, short = (gradients(changed(chunk=16, **more), batch) for more in ({"bptt": "full"}, {"back": 64}, {}))
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in zip(full, long, strict=True))
    assert not all(torch.allclose(one, other, rtol=1e-2, atol=1e-3) for one, other in zip(full, short, strict=True))


def test_recomputing_changes_memory_and_nothing_else() -> None:
    """With `recompute` gradients stay the same to rounding, and far less is kept for the way back."""
    batch, kept, found = batch_of_waves(), [], []
    for settings in (changed(bptt="full"), changed(bptt="full", recompute=12)):
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        made = detector(hidden=32).forecaster
        passes = Bptt(Training(made, settings), torch.zeros(5), settings, ALONE)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            ((_, quantiles),) = passes._walk(batch)
        kept.append(sum(sizes.values()))
        quantiles.sum().backward()
        found.append([one.grad for one in made.parameters()])
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in zip(*found, strict=True))
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("more", [{"bptt": "full"}, {"back": 48}, {"recompute": 5}, {"curriculum": 2}])
def test_every_way_learns(more: dict[str, object]) -> None:
    """Whichever way a gradient goes back, training makes the loss smaller."""
    _, fitted = trained(changed(epochs=3, learning_rate=1e-2, **more), streams=4)
    assert fitted.best.validation_loss < 0.8 * fitted.epochs[0].validation_loss


def test_stretches_grow_from_short_to_whole() -> None:
    """The first epoch sees stretches of a chunk, later ones longer ones, the last whole spans; none leaves one out."""
    train, _ = standardise(detector(), waves(samples=1300), "UTC", SETTINGS)
    settings = changed(curriculum=4)
    seen = [stretches(train, epoch, settings) for epoch in range(1, 7)]
    longest = [max(len(span.target) for span in spans) for spans in seen]
    assert longest[0] == settings.chunk
    assert longest[:5] == sorted(set(longest[:5]))
    assert all(one is other for one, other in zip(seen[-1], train, strict=True))
    assert {sum(len(span.target) for span in spans) for spans in seen} == {sum(len(span.target) for span in train)}


def lengths_of_all_kinds() -> list[Span]:
    """300 spans of 40 to 4,000 samples, and their lengths evenly spread over the factors between."""
    lengths = np.exp(np.random.default_rng(0).uniform(np.log(40), np.log(4000), 300)).astype(int)
    return [Span(*(torch.zeros(length, 1, 1),) * 2, *(torch.ones(length, 1),) * 3) for length in lengths]


@pytest.mark.parametrize(("padding", "least", "most"), [(0.1, 0.0, 0.1), (0.5, 0.1, 0.5)])
def test_padding_is_held_below_its_share(padding: float, least: float, most: float) -> None:
    """With `padding: 0.1` less than a tenth of all steps is padding; with 0.5 more is, and each span is there once."""
    spans = lengths_of_all_kinds()
    found = batches(spans, 8, np.random.default_rng(1), padding)
    assert sorted(id(span) for batch in found for span in batch) == sorted(map(id, spans))
    steps = sum(len(batch) * max(len(span.target) for span in batch) for batch in found)
    wasted = 1 - sum(len(span.target) for span in spans) / steps
    assert least <= wasted < most
    for batch in found:
        assert min(len(span.target) for span in batch) >= (1 - padding) * max(len(span.target) for span in batch)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    """`device: cuda` on a machine without one says so, before anything is trained."""
    with pytest.raises(ConfigurationError, match="fit: device: expected cpu, for torch finds no GPU here, got cuda"):
        trained(changed(device="cuda"), streams=2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_trains_in_half_precision() -> None:
    """On a GPU, in bfloat16 too, training makes the loss smaller, and the weights come back to the CPU."""
    for precision in ("float32", "bfloat16"):
        made, fitted = trained(changed(device="cuda", precision=precision, epochs=3, learning_rate=1e-2), streams=3)
        assert fitted.best.validation_loss < 0.8 * fitted.epochs[0].validation_loss
        assert {tensor.device.type for tensor in made.state_dict().values()} == {"cpu"}
