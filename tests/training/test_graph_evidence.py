"""Evidence: the solve is a solve, the covariance is the covariance, and a distance is 1 in the mean."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from training.graph.bank import FEATURES
from training.graph.evidence import Covariance, Normal, conjugate_gradients, rate_of
from training.graph.joint import Joint
from training.graph.layout import Layout
from training.graph.own import OwnEvidence

K, RIDGE, STEPS = 16, 0.03, 8


def correlated(samples: int, features: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian features (T, K) of variance 1, and their correlation (K, K)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(features) + 0.4 * torch.randn(features, features, generator=generator) / features**0.5
    mixing = mixing / mixing.norm(dim=1, keepdim=True)
    return torch.randn(samples, features, generator=generator) @ mixing.T, mixing @ mixing.T


def test_conjugate_gradients_solve() -> None:
    """On matrices of moderate condition eight steps give what torch.linalg.solve gives; two do not."""
    _, matrices = zip(*(correlated(1, K, seed) for seed in range(50)), strict=True)
    matrix = torch.stack(matrices)
    right = torch.randn(50, K, generator=torch.Generator().manual_seed(1))
    exact = torch.linalg.solve(matrix + RIDGE * torch.eye(K), right)
    scale = exact.norm(dim=-1)
    said = conjugate_gradients(matrix, right, RIDGE, STEPS)
    assert ((said.solution - exact).norm(dim=-1) < 0.02 * scale).all()
    assert torch.allclose(said.q.squeeze(-1), (right * said.solution).sum(dim=-1), rtol=1e-4)
    early = (conjugate_gradients(matrix, right, RIDGE, 2).solution - exact).norm(dim=-1)
    assert early.median() > 0.05 * scale.median()


@pytest.mark.parametrize("matrix", [0.0, 1e-30, 1.0, 1e6], ids="matrix {:g}".format)
@pytest.mark.parametrize("right", [0.0, 1e-30, 1.0, 8.0], ids="vector {:g}".format)
def test_conjugate_gradients_never_leave_the_numbers(matrix: float, right: float) -> None:
    """Zeros, all but zeros and matrices of rank one give finite solutions; nothing is solved by nothing."""
    given = torch.full((K,), right)
    for system in (matrix * torch.eye(K), torch.full((K, K), matrix)):
        said = conjugate_gradients(system, given, RIDGE, STEPS)
        assert said.solution.isfinite().all()
        assert said.q.isfinite().all()
        assert right or not said.solution.any()


def test_a_covariance_is_learnt() -> None:
    """From 4,000 samples of known correlation the matrix is that correlation, symmetric to the last bit."""
    z, truth = correlated(4000, K)
    covariance = Covariance("covariance", K)
    flat = Layout("channel", [covariance.field]).initial()[None]
    assert (covariance.unfold(flat)[0] - truth).abs().max() > 0.2  # it does not start there
    for t, sample in enumerate(z):
        _, flat = covariance(sample[None], rate_of(torch.full((1, 1), float(t))), covariance.unfold(flat))
    learnt = covariance.unfold(flat)[0]
    assert (learnt - truth).abs().max() < 0.1
    assert torch.equal(learnt, learnt.T)


def test_what_was_never_learnt_from_is_not_known() -> None:
    """A matrix that learns from other samples than it measures is theirs."""
    z, truth = correlated(2000, K)
    covariance = Covariance("covariance", K)
    flat = Layout("channel", [covariance.field]).initial()[None]
    generator = torch.Generator().manual_seed(9)
    for t, sample in enumerate(z):
        other = torch.randn(1, K, generator=generator)
        rate = rate_of(torch.full((1, 1), float(t)))
        _, flat = covariance(sample[None], rate, covariance.unfold(flat), other)
    assert (covariance.unfold(flat)[0] - torch.eye(K)).abs().max() < 0.15
    assert (truth - torch.eye(K)).abs().max() > 0.2


@pytest.fixture(scope="module")
def measured() -> tuple[Tensor, Tensor]:
    """Distances of the last 1,000 of 5,000 Gaussian samples, and of the same with one correlation broken."""
    z, _ = correlated(5000, K)
    z[:, 1] = 0.98 * z[:, 0] + 0.2 * z[:, 1]
    features = 3 * z + 5
    normal, covariance = Normal(K), Covariance("covariance", K)
    layout = Layout("channel", [*normal.fields, covariance.field])
    fields, usual, broken = layout.split(layout.initial()[None]), [], []
    for t, sample in enumerate(features):
        rate, matrix = rate_of(torch.full((1, 1), float(t))), covariance.unfold(fields["covariance"])
        strange = sample.clone()
        strange[1] = 10 - strange[1]  # mirrored at its mean: as usual by itself as before
        unlike, _ = covariance(normal(strange[None], rate, fields)[0], rate, matrix)
        standard, statistics = normal(sample[None], rate, fields)
        distance, flat = covariance(standard, rate, matrix)
        fields = statistics | {"covariance": flat}
        usual.append(distance.q)
        broken.append(unlike.q)
    return torch.cat(usual[4000:]).flatten(), torch.cat(broken[4000:]).flatten()


def test_a_distance_is_one_in_the_mean(measured: tuple[Tensor, Tensor]) -> None:
    """On Gaussian features of any mean and spread q is 1 in the mean, but for what the ridge takes away."""
    usual, _ = measured
    assert float(usual.mean()) == pytest.approx(1, abs=0.15)


def test_a_broken_correlation_is_far(measured: tuple[Tensor, Tensor]) -> None:
    """Features that are each as usual, but not together, are beyond nearly all that was usual."""
    usual, broken = measured
    assert (broken > usual.quantile(0.99)).float().mean() > 0.5


def test_widths_are_what_the_runtime_adds_up_alike() -> None:
    """Along rows of a multiple of 8 the sums of ONNX Runtime do not depend on the wave; proofs.py finds others."""
    own, together = OwnEvidence().covariance.width, Joint().covariance.width
    assert [width % 8 for width in (FEATURES["light"], own, together)] == [0, 0, 0]
