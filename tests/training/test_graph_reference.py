"""The reference: what lasts stays strange, what has never come back is not."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from training.graph.evidence import rate_of
from training.graph.layout import Layout
from training.graph.reference import Reference

STREAMS, T, FROM = 16, 7000, 4000


def nats(levels: Tensor, learning: Tensor | None = None) -> Tensor:
    """Evidence (T, M) of levels (T, M)."""
    reference = Reference()
    layout = Layout("channel", list(reference.fields))
    fields, seen = layout.split(layout.initial().repeat(levels.shape[1], 1)), []
    for t, level in enumerate(levels):
        count = torch.full((len(level), 1), float(t))
        rate = rate_of(count) * (1.0 if learning is None else learning[t])
        evidence, fields = reference(level[:, None], count, rate, fields)
        seen.append(evidence)
    return torch.cat(seen, dim=1).T


@pytest.fixture(scope="module")
def steady() -> Tensor:
    """Levels (T, M) of noise averaged over 16 samples, which come back every few dozen."""
    generator = torch.Generator().manual_seed(0)
    noise, level = torch.randn(T, STREAMS, generator=generator), torch.zeros(STREAMS)
    levels = []
    for sample in noise:
        level = level + (sample - level) / 23
        levels.append(level)
    return torch.stack(levels)


def shifted(steady: Tensor, by: float) -> Tensor:
    """The same levels, so many of their deviations higher from FROM on."""
    levels = steady.clone()
    levels[FROM:] += by * steady.std()
    return levels


def test_what_lasts_stays_strange(steady: Tensor) -> None:
    """For thousands of samples a shift by five deviations of its level is mostly worth three nats and more."""
    said = nats(shifted(steady, 5))
    assert said[FROM - 2000 : FROM].quantile(0.99) < 3.5
    assert (said[FROM + 50 : FROM + 2500].quantile(0.3, dim=0) > 3).all()


def test_what_never_came_back_is_not_strange(steady: Tensor) -> None:
    """A drift away from where it was is worth less than half of a shift by as much: it was never seen to come back."""
    drift = nats(steady * 0.01 + torch.linspace(0, 8 * float(steady.std()), T)[:, None])
    shift = nats(shifted(steady, 8))
    assert drift.max() < 6
    assert shift[FROM + 20 : FROM + 200].median() > 2 * drift.max()


def test_a_young_channel_says_nothing(steady: Tensor) -> None:
    """For a hundred samples there is no usual level to be away from."""
    wild = steady.clone()
    wild[50:100] += 100
    said = nats(wild)
    assert not said[:100].any()
    assert said[100:].any()


def test_what_is_frozen_stays_as_strange(steady: Tensor) -> None:
    """While nothing is learnt the same level is worth the same to the bit; while it is learnt, ever less."""
    levels = steady[: FROM + 500].clone()
    levels[FROM:] = 3 * steady.std()
    learning = torch.ones(len(levels))
    learning[FROM:] = 0
    frozen, learnt = nats(levels, learning), nats(levels)
    assert torch.equal(frozen[FROM], frozen[-1])
    assert (learnt[-1] < learnt[FROM]).all()
