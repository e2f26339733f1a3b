"""The tail: nines come as often as they say, and no anomaly silences the stream for long."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from training.graph.layout import Layout
from training.graph.tail import SCORE_MAX, Tail

LAYOUT = Layout("joint", list(Tail.FIELDS))


class Line:
    """Streams side by side, their tails from the start on."""

    def __init__(self, streams: int, age: int = 0) -> None:
        self.tail, self.age = Tail(), age
        self.fields = LAYOUT.split(LAYOUT.initial().repeat(streams, 1, 1))

    @torch.no_grad()
    def say(self, u: Iterable[Tensor], learning: float = 1.0) -> Tensor:
        """Score samples (T, streams); so are the scores."""
        scores = []
        for now in u:
            one, age = torch.tensor(1.0), torch.tensor(float(self.age))
            score, self.fields = self.tail(now[:, None, None], one, age, self.fields, torch.tensor(learning))
            scores.append(score.flatten())
            self.age += 1
        return torch.stack(scores)

    def nines(self, u: float) -> Tensor:
        """What so much would be told as now, (streams,)."""
        before, age = self.fields, self.age
        (score,) = self.say(torch.full((1, len(self.fields["median"])), u), learning=0.0)
        self.fields, self.age = before, age
        return score


def lasting(samples: int, streams: int, seed: int = 0) -> Tensor:
    """Strangeness as it is: positive, skewed, and lasting for some samples."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.exponential(1.0, (samples + 8, streams)).astype(np.float32))
    return 0.5 + torch.stack([noise[k : samples + k] for k in range(8)]).amax(dim=0) / 4


def test_nines_mean_what_they_say() -> None:
    """On skewed strangeness that lasts, unlike the prior, 2 nines come once in 100 samples and 3 once in 1,000."""
    scores = Line(256).say(lasting(6_000, 256))
    for nines, bound in ((2, 1.5), (3, 2.5)):
        assert 1 / bound < float((scores[2_000:] >= nines).float().mean()) * 10**nines < bound


def test_a_tail_that_does_not_learn_is_wrong() -> None:
    """The same streams, frozen: what the test above sees is learning, not a lucky prior."""
    scores = Line(512).say(lasting(1_500, 512), learning=0.0)
    assert not 1 / 2.5 < float((scores[1_000:] >= 3).float().mean()) * 10**3 < 2.5


def test_frozen_streams_keep_their_tail_and_go_on_scoring() -> None:
    """Without learning every field stays as it is, to the bit, and there are scores."""
    line = Line(4)
    line.say(lasting(300, 4))
    before = dict(line.fields)
    scores = line.say(lasting(300, 4, seed=1), learning=0.0)
    assert all(torch.equal(before[name], line.fields[name]) for name in before)
    assert float(scores.max()) > 0.5


def test_nothing_is_said_or_learnt_in_the_warm_up() -> None:
    """Not live: the score is 0 and the fields stay."""
    fields = LAYOUT.split(LAYOUT.initial().repeat(1, 1, 1))
    score, after = Tail()(torch.full((1, 1, 1), 9.0), torch.tensor(0.0), torch.tensor(0.0), fields)
    assert float(score) == 0.0
    assert all(torch.equal(fields[name], after[name]) for name in fields)


def test_the_stranger_always_has_more() -> None:
    """Nines rise strictly with strangeness, however far out, and never reach their limit: ranking survives."""
    u = torch.logspace(-1, 4, 2_000)
    (scores,) = Line(2_000, age=50_000).say(u[None])
    assert bool((scores.diff() > 0).all())
    assert float(scores[-1]) < SCORE_MAX


def test_a_single_sample_moves_next_to_nothing() -> None:
    """One absurd sample: what had 3 nines before it has nearly as many after it."""
    line = Line(1, age=30_000)
    line.say(lasting(5_000, 1))
    u = next(u for u in np.arange(0.5, 9.0, 0.01) if line.nines(float(u)) >= 3)
    line.say(torch.full((1, 1), 1e3))
    assert abs(float(line.nines(float(u))) - 3) < 0.1


def test_an_anomaly_does_not_buy_silence() -> None:
    """Against twins without it: 2 nines are back within 0.3 at once and 3 within 0.5, or 1 after a short anomaly."""
    lengths, end = (0, 100, 1_000, 2_000), 22_500
    line, u = Line(16), lasting(end + 3_000, 4).repeat(1, 4)
    line.say(u[: end - lengths[-1]])
    levels = [next(u for u in np.arange(0.5, 9.0, 0.01) if line.nines(float(u)).median() >= n) for n in (2, 3)]
    for group, length in enumerate(lengths):
        u[end - length : end, 4 * group : 4 * group + 4] = 12.0
    line.say(u[end - lengths[-1] : end])
    for rest in (0, 3_000):
        line.say(u[end : end + rest] if rest else u[end : end + 1])
        two, three = (line.nines(float(level)).unflatten(0, (4, 4)).mean(dim=1) for level in levels)
        assert bool(((two - two[0]).abs() < 0.3).all())
        assert bool(((three - three[0]).abs() < torch.tensor([0.1, 1.0, 0.5, 0.5])).all())
        assert float(line.nines(12.0).min()) > 3.5


def test_a_long_excursion_leaves_the_gaps_as_they_were() -> None:
    """From its 512th sample on an excursion has taught a calibrated stream nothing; a young one learns from it."""
    for age, is_put_back in ((30_000, True), (1_000, False)):
        line = Line(1, age=age)
        before = line.fields["gaps"]
        line.say(torch.full((600, 1), 8.0))
        assert torch.equal(line.fields["gaps"], before) == is_put_back
