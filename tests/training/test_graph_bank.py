"""The bank: memories hold what they promise, and features stand where a matrix of fixed width expects them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from numpy.polynomial import legendre
from torch import Tensor

from training.graph.bank import FEATURES, Bank, Heard, Profile
from training.graph.layout import Layout

WINDOWS = {8: 4, 32: 4, 128: 8}  # samples: coefficients, in the order of the features


def walk(profile: Profile, z: Tensor) -> Tensor:
    """Let a bank hear levels (T,), all else quiet; gives back its features (T, K)."""
    bank = Bank(profile)
    layout = Layout("channel", list(bank.fields))
    fields, seen = layout.split(layout.initial().view(1, 1, -1)), []
    one, nothing = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    for t, level in enumerate(z):
        heard = Heard(level * one, nothing, nothing, nothing, one, t * one)
        features, fields = bank(heard, fields)
        seen.append(features.flatten())
    return torch.stack(seen)


@pytest.fixture(scope="module")
def smooth() -> Tensor:
    """A stretch that 4 and 8 polynomials can follow: slow against every window."""
    t = torch.arange(600.0)
    return 2 * torch.sin(t / 90) + torch.cos(t / 140)


@pytest.mark.parametrize("window", WINDOWS)
def test_memories_reconstruct_the_window(smooth: Tensor, window: int) -> None:
    """Shifted Legendre polynomials weighted by a memory are the last `window` samples; read backwards they are not."""
    begin = FEATURES["full"] - sum(WINDOWS.values())
    for width, order in WINDOWS.items():
        if width == window:
            break
        begin += order
    coefficients = walk("full", smooth)[-1, begin : begin + order].double().numpy()
    age = np.arange(window)  # samples ago
    held = legendre.legval(2 * (age + 0.5) / window - 1, coefficients)
    past = smooth.flip(0)[:window].double().numpy()
    assert np.abs(held - past).max() < 0.1
    if window > 8:  # the shortest hardly moves
        assert np.abs(held[::-1] - past).max() > 0.3


@pytest.mark.parametrize("profile", FEATURES)
def test_a_profile_has_the_features_that_it_promises(profile: Profile) -> None:
    """16 are light, 42 are full; all are finite."""
    features = walk(profile, torch.randn(50, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (50, {"light": 16, "full": 42}[profile])
    assert features.isfinite().all()


def test_averages_forget_at_their_half_lives() -> None:
    """A step of the level has reached half its height after the half-life of each average, and nearly all after ten."""
    before, height = 4000, 4.0
    z = torch.cat([torch.zeros(before), torch.full((2600,), height)])
    features = walk("light", z)[before:]
    level = features[:, 9:13]  # after nine positive ones
    level = level.sign() * (level.abs().exp() - 1)
    for column, half_life in enumerate((4, 16, 64, 256)):
        assert float(level[half_life - 1, column]) == pytest.approx(height / 2, rel=0.1)
        assert float(level[10 * half_life, column]) == pytest.approx(height, rel=0.01)
