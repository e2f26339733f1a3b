"""Each stream's own readout finds what least squares would find, and nothing that is sent to it can hurt it."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from training.graph.readout import Readout

T, M, F = 1500, 3, 8


@pytest.fixture
def readout() -> Readout:
    torch.manual_seed(0)
    return Readout(4, F).eval()


def task(readout: Readout, noise: float = 0.1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (M, T, F), targets that follow from them, sigma and rate (M, T, 1)."""
    torch.manual_seed(1)
    heard = torch.randn(M, T, 4)
    heard = heard + 0.95 * heard.roll(1, dims=1)
    phi = readout.phi(heard).detach()
    target = phi @ torch.randn(M, F, 1) + noise * torch.randn(M, T, 1)
    rate = (1 / torch.arange(1.0, T + 1)).expand(M, T).unsqueeze(-1)
    return phi, target, torch.ones(M, T, 1), rate


def test_following_is_least_squares(readout: Readout) -> None:
    """After some hundred samples the followed weights are nearly as good as the exact ones; the first are not."""
    phi, target, sigma, rate = task(readout)
    weights, _ = readout.unroll(phi, target, sigma, rate, torch.zeros(M, readout.state_width))
    exact = torch.linalg.lstsq(phi[:, :1000], target[:, :1000]).solution

    def error(w: Tensor) -> Tensor:
        return (target - (phi * w).sum(dim=-1, keepdim=True))[:, 1000:].square().mean().sqrt()

    best = error(exact.transpose(1, 2))
    assert error(weights[:, :-1]) < 1.2 * best
    assert error(weights[:, :1]) > 3 * best


def test_rehearsing_is_nearly_following(readout: Readout) -> None:
    """The weights that training uses are those of the step, one chunk late."""
    phi, target, sigma, rate = task(readout)
    start = torch.zeros(M, readout.state_width)
    followed, _ = readout.unroll(phi, target, sigma, rate, start)
    rehearsed, _ = readout.train().unroll(phi, target, sigma, rate, start)
    late = (followed - rehearsed)[:, 1000:].abs().max()
    assert late < 0.05 < (followed[:, 1000:] - followed[:, :1]).abs().max()


def test_one_outlier_moves_little(readout: Readout) -> None:
    """A sample that is a million sigma off counts for four."""
    phi, target, sigma, rate = task(readout)
    start = torch.zeros(M, readout.state_width)
    clean, _ = readout.unroll(phi, target, sigma, rate, start)
    spoilt = target.clone()
    spoilt[:, 1200] += 1e5
    moved, _ = readout.unroll(phi, spoilt, sigma, rate, start)
    assert (moved - clean)[:, 1201:].abs().max() < 0.05


@pytest.mark.parametrize("sigma", [0.0, 1.0, 400.0])
@pytest.mark.parametrize("target", [0.0, 1.0, 100.0, -100.0])
def test_nothing_hurts_it(readout: Readout, sigma: float, target: float) -> None:
    """Constant features, targets at their limits, widths of 0: every number stays finite and forecasts stay sane."""
    phi = readout.phi(torch.full((M, 400, 4), 50.0)).detach()
    given = torch.full((M, 400, 1), target) * torch.ones(400).cumsum(0).remainder(2).mul(2).sub(1)[:, None]
    rate = (1 / torch.arange(1.0, 401.0)).expand(M, 400).unsqueeze(-1)
    weights, state = readout.unroll(
        phi, given, torch.full((M, 400, 1), sigma), rate, torch.zeros(M, readout.state_width)
    )
    assert state.isfinite().all()
    assert (phi * weights[:, :-1]).sum(dim=-1).abs().max() <= 2 * max(abs(target), 1.0)


def test_what_is_not_observed_is_not_learnt(readout: Readout) -> None:
    """A rate of 0 leaves weights and state as they are, to the bit."""
    phi, target, sigma, rate = task(readout)
    half, state = readout.unroll(phi[:, :99], target[:, :99], sigma[:, :99], rate[:, :99], torch.zeros(M, F * (F + 3)))
    after, same = readout.unroll(phi[:, 99:150], target[:, 99:150], sigma[:, 99:150], 0 * rate[:, 99:150], state)
    assert torch.equal(state, same)
    assert torch.equal(after, half[:, -1:].expand_as(after))
