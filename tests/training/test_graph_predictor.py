"""The predictor: a channel's own linear forecast is found while it runs, and only from the samples it belongs to."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from training.graph.evidence import rate_of
from training.graph.layout import Layout
from training.graph.predictor import FORETOLD, HORIZON, Predictor

K, T, STREAMS = 16, 3000, 8


@pytest.fixture(scope="module")
def recurrence() -> tuple[Tensor, Tensor]:
    """Features (T, M, K) of which many say the same, and what follows from them four samples on (T, M, 3)."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.eye(K) + torch.randn(K, K, generator=generator) / K**0.5
    features = torch.randn(T, STREAMS, K, generator=generator) @ (mixing / mixing.norm(dim=1, keepdim=True)).T
    weights = torch.randn(STREAMS, FORETOLD, K, generator=generator) / K**0.5
    follows = torch.einsum("tmk,mjk->tmj", features, weights).roll(HORIZON, dims=0)
    return features, follows + 0.05 * torch.randn(T, STREAMS, FORETOLD, generator=generator)


def share_left(recurrence: tuple[Tensor, Tensor], matrix_from: Tensor, late: int = 0) -> float:
    """Energy of the errors of the last 500 samples in energies of what was foretold, with a given covariance's samples.

    `late` shifts what the forecast is made of.
    """
    features, foretold = recurrence
    predictor = Predictor(K)
    layout = Layout("channel", [*predictor.fields, *predictor.wide])
    fields = layout.split(layout.initial().repeat(STREAMS, 1))
    matrix = torch.eye(K).repeat(STREAMS, 1, 1)
    left, whole = 0.0, 0.0
    for t in range(HORIZON + late, T):
        before, seen = features[t - HORIZON - late], matrix_from[t - HORIZON]
        if t >= T - 500:
            said = (fields["weights"].unflatten(-1, (FORETOLD, K)) @ before.unsqueeze(-1)).squeeze(-1)
            left += float((foretold[t] - said).square().sum())
            whole += float(foretold[t].square().sum())
        count = torch.full((STREAMS, 1), float(t))
        rate = rate_of(count)
        _, fields = predictor(foretold[t], before, matrix, rate, count, fields)
        matrix = matrix + rate.unsqueeze(-1) * (seen.unsqueeze(-1) * seen.unsqueeze(-2) - matrix)
    return left / whole


def test_a_linear_recurrence_is_found(recurrence: tuple[Tensor, Tensor]) -> None:
    """After some thousand samples errors have less than a tenth of the energy of what is foretold."""
    assert share_left(recurrence, recurrence[0]) < 0.1


def test_the_covariance_is_that_of_the_same_samples(recurrence: tuple[Tensor, Tensor]) -> None:
    """Negative control: with the covariance of other samples than those of the cross term it is not found."""
    features, _ = recurrence
    others = torch.randn(features.shape, generator=torch.Generator().manual_seed(5))
    assert share_left(recurrence, others) > 0.1


def test_what_does_not_follow_is_not_found(recurrence: tuple[Tensor, Tensor]) -> None:
    """Negative control: from features one sample older, which have nothing to do with it, nothing is foretold."""
    assert share_left(recurrence, recurrence[0], late=1) > 0.9
