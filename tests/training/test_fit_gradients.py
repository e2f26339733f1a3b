"""Gradients: how they are followed, how long they may be, and what weights cost."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from tests.waves import changed, trained
from training.fit.clipping import Clip
from training.fit.optimisers import OPTIMISERS, optimiser
from training.fit.regularise import penalty


def parameter(*gradient: float) -> nn.Parameter:
    made = nn.Parameter(torch.zeros(len(gradient)))
    made.grad = torch.tensor(gradient)
    return made


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_learns(name: str) -> None:
    """A few epochs on waves make the loss far smaller than it was before, with any of them."""
    high = {"sgd": 0.1, "rmsprop": 3e-3}.get(name, 1e-2)
    asked = {"optimiser": name, "epochs": 5, "learning_rate": high, "momentum": 0.9 if name == "sgd" else 0.0}
    _, fitted = trained(changed(**asked), streams=3)
    assert fitted.best.validation_loss < 0.8 * fitted.epochs[0].validation_loss


def test_weight_decay_is_apart_from_the_gradient() -> None:
    """AdamW takes the same share of every weight, whatever its gradient; Adam and L2 do not."""
    shrunk = {}
    for name, more in {"adamw": {"weight_decay": 0.1}, "adam": {"l2": 0.05}}.items():
        weights = nn.Parameter(torch.ones(2, 1))
        settings = changed(optimiser=name, learning_rate=0.1, **more)
        followed = optimiser([weights], settings)
        loss = (weights.flatten() * torch.tensor([0.0, 1.0])).sum() + penalty([weights], settings)
        loss.backward()
        followed.step()
        shrunk[name] = 1 - weights.detach().flatten()
    assert shrunk["adamw"][0] == pytest.approx(0.01, rel=1e-3)  # rate times decay, without any gradient
    assert shrunk["adam"][0] == pytest.approx(0.1, rel=1e-3)  # a whole step of Adam


def test_penalties_are_what_they_say() -> None:
    """L1 is the sum of sizes, L2 of squares; biases cost nothing, and without a price there is no penalty."""
    weights, bias = (nn.Parameter(torch.tensor(one), requires_grad=False) for one in ([[3.0, -4.0]], [9.0]))
    assert float(penalty([weights, bias], changed(l1=0.1))) == pytest.approx(0.7)
    assert float(penalty([weights, bias], changed(l2=0.1))) == pytest.approx(2.5)
    assert penalty([weights, bias], changed()) == 0.0


def test_a_price_on_weights_makes_them_smaller() -> None:
    """A training with L1 or L2 ends with smaller weights than one without."""
    norms = {}
    for key in ("none", "l1", "l2"):
        price = {} if key == "none" else {key: 0.05}
        made, _ = trained(changed(epochs=2, learning_rate=1e-2, **price), streams=3)
        norms[key] = sum(one.square().sum().item() for one in made.forecaster.parameters() if one.ndim > 1)
    assert max(norms["l1"], norms["l2"]) < 0.9 * norms["none"]


def test_clipping_by_norm_keeps_the_direction() -> None:
    """A gradient that is too long is scaled down to `clip_norm`; a short one stays as it is."""
    for length, cut in ((10.0, True), (0.5, False)):
        one = parameter(0.6 * length, 0.8 * length)
        norm, clipped = Clip(changed(clip="norm", clip_norm=1.0))([one])
        assert (float(norm), clipped) == (pytest.approx(length), cut)
        assert one.grad.tolist() == pytest.approx([0.6 * min(length, 1), 0.8 * min(length, 1)], rel=1e-4)


def test_clipping_by_value_holds_each_number() -> None:
    """Each number ends within `clip_value`; the norm that is told is the one before."""
    one = parameter(3.0, -0.05, 4.0)
    norm, clipped = Clip(changed(clip="value", clip_value=0.1))([one])
    assert (float(norm), clipped) == (pytest.approx(5.0, rel=1e-3), True)
    assert one.grad.tolist() == pytest.approx([0.1, -0.05, 0.1])


def test_automatic_clipping_follows_the_running_norm() -> None:
    """What is usual passes at any scale; a gradient a hundred times as long is cut to `clip_usual` of them."""
    for scale in (1e-3, 1.0, 1e3):
        clip = Clip(changed(clip="auto", clip_usual=2.0))
        usual = [clip([parameter(scale)])[1] for _ in range(20)]
        wild = parameter(100 * scale)
        assert (any(usual), clip([wild])[1]) == (False, True)
        assert float(wild.grad) == pytest.approx(2 * scale, rel=1e-3)
        assert clip.running < 1.05 * scale  # the wild one has not become usual


def test_without_clipping_nothing_is_cut() -> None:
    """`clip: none` tells the norm and leaves the gradient alone."""
    one = parameter(3e6, 4e6)
    norm, clipped = Clip(changed(clip="none"))([one])
    assert (float(norm), clipped, one.grad.tolist()) == (pytest.approx(5e6), False, [3e6, 4e6])


def test_the_clipped_share_is_logged() -> None:
    """A limit that no gradient keeps is reported as all of them, one that all keep as none."""
    for limit, share in ((1e-9, 1.0), (1e9, 0.0)):
        _, fitted = trained(changed(epochs=1, clip_norm=limit), streams=2)
        assert fitted.epochs[1].clipped_ratio == share
