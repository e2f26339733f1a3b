"""Tail: how improbable is so much strangeness, for this stream?

Strangeness is measured in the stream's own terms already (its mean square is about 1 wherever nothing happens), so its
logarithm x = ln u needs no scale of the stream's own: streams differ in how fast its tail falls. How often x has
reached each of nine fixed levels is counted, which is all that is remembered. Between levels nines are linear in x,
and go on beyond the last; from 6 nines on, which no stream can vouch for, they rise ever more slowly towards 15 and
never stop, so that the stranger sample always has more.

**Learning.** Of the samples that reached a level, a share h reaches the next; -log10 h is the nines between the two.

    h = (m g + reached next) / (m + reached)

g is what is usual among streams, and m for how many samples it counts (Hjort 1990: the Beta process, Bayes' rule for
hazards). Hence each level has a clock of its own: where nobody has been yet, everything is as usual, and a map that
has been learnt hardly moves. That matters: nines are compared over weeks, and a map that moves reorders them. From the
second level up g itself is steeper by as much as the mean excess of x over 0 is smaller than usual, which is known
after a few hundred samples and speaks of levels that take 100,000 to be reached.

**Excursions.** What is strange stays so for a while, and must not count as so many independent tellings. The n-th
sample in a row above 2 nines counts 1 / (1 + (n / 16)^2), so that an anomaly counts for about 25 samples however long
it lasts, and from the 128th on one in 65, by which a new normal is learnt in the end. Usual excursions lose some of
their weight by that too, for which what reaches the upper levels counts a little more. How soon a stream recovers:
docs/contract.md, "Decide".

Strangeness is 1 where a stream does what its covariance expects: no stream, however constant, may be surprised by
much less. 1 is at most 3 nines, and the limit goes with the square.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.graph.layout import SAFE_LOG, Field

CALIBRATED_AFTER = 20_000  # samples; from here on nines come as often as they say, within a factor of 2
SCORE_MAX = 15.0  # nines; never reached
LEAST = 1e-3  # standard deviations; less strangeness than this is none

LEVELS = (-0.3, 0.0, 0.15, 0.3, 0.5, 0.75, 1.0, 1.4, 1.9)  # ln u; fine where narrow tails end
USUAL = (0.28, 0.97, 1.3, 1.6, 1.95, 2.8, 3.45, 4.2, 5.0)  # nines at each of generated streams: tests/benchmarks/usual
_WORTH = (2_000.0, 1_000.0, 30.0, 30.0, 20.0, 15.0, 10.0, 8.0, 8.0)  # m: samples that reached the level below
_ALIKE = 2  # levels at which all streams are much alike, however steep
_STEADY = (1.0, 1.0, 0.9, *[0.8] * 7)  # mean weight of usual samples, all of them and those that reach each level
EXCESS = 0.25  # ln u; usual mean of what is over 0, at which generated streams get the nines that they should
_EXCESS_WORTH = 50.0  # samples over 0
_EXCESS_MOST = 3.0  # times the mean excess; more counts as this much
_STEEPEST, _FLATTEST = 8.0, 0.2  # times as steep as usual
_MEMORY = 1e5  # samples
_FADE = 16.0  # samples of an excursion after which one counts half
_LONGEST = 128.0  # samples of an excursion; later ones count as this one
_STRANGE = 2.0  # nines; a sample above is part of an excursion

_STEP_MIN = 0.01  # nines between levels
_MODEST = 6.0  # nines that can be known; beyond they are compressed
_MOST_AT_ONE = 3.0  # nines of u = 1, and as its square elsewhere: what is less than usual is never a surprise

_COUNT = len(LEVELS)


class Tail(nn.Module):
    """Turns strangeness into nines."""

    FIELDS = (Field("reached", 1 + _COUNT), Field("excess"), Field("excursion"))
    """Samples so far, by weight: all of them and those that reached each level; their excess over 0, summed; and how
    long the present excursion is."""
    below: Tensor
    widths: Tensor
    most: Tensor
    levels: Tensor
    fixed: Tensor
    steep: Tensor
    worth: Tensor
    steady: Tensor
    ones: Tensor
    shares_first: Tensor
    u_last: Tensor

    def __init__(self) -> None:
        super().__init__()
        usual = [math.log(10) * (high - low) for low, high in pairwise((0.0, *USUAL))]
        # From below the first level it is no way up: whoever is there has all of its nines, but for `body`.
        self._constant("below", [-2e9, *LEVELS[:-1]])
        self._constant("widths", [1.0, *(high - low for low, high in pairwise(LEVELS))])
        self._constant("most", [*[1.0] * (_COUNT - 1), 1e9])
        self._constant("levels", [-1e9, *LEVELS])
        self._constant("fixed", [-nats if place < _ALIKE else 0.0 for place, nats in enumerate(usual)])
        self._constant("steep", [-nats if place >= _ALIKE else 0.0 for place, nats in enumerate(usual)])
        self._constant("worth", _WORTH)
        self._constant("steady", [1 / weight for weight in _STEADY])
        self._constant("ones", [[1.0]] * _COUNT)
        # One logarithm for the shares and for u, of a width that is safe.
        self._constant("shares_first", torch.eye(_COUNT, SAFE_LOG).tolist())
        self._constant("u_last", [[0.0] * _COUNT + [1.0] * (SAFE_LOG - _COUNT)])

    def _constant(self, name: str, value: object) -> None:
        self.register_buffer(name, torch.tensor(value), persistent=False)

    def forward(
        self, u: Tensor, live: Tensor, old: dict[str, Tensor], learning: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score one sample, and learn from it.

        Args:
            u: Strangeness, positive, in standard deviations (..., 1).
            live: 1 once the warm-up is over, else 0: nothing is scored and nothing learnt.
            old: The fields before this sample.
            learning: 0 where the stream's learning is frozen; 1 if not given.

        Returns:
            The score in nines, and the fields after this sample.
        """
        learning = live if learning is None else live * learning
        excess = (old["excess"] + _EXCESS_WORTH * EXCESS) / (old["reached"][..., 2:3] + _EXCESS_WORTH)
        logs = (self._shares(old["reached"], excess) @ self.shares_first + u.clamp(min=LEAST) @ self.u_last).log()
        x, steps = logs[..., -1:], (logs[..., :_COUNT] / -math.log(10)).clamp(min=_STEP_MIN)
        score = torch.minimum(self._score(x, steps), _MOST_AT_ONE * u * u)
        return live * score, self._learn(x, score, excess, learning, old)

    def _shares(self, reached: Tensor, excess: Tensor) -> Tensor:
        """Of what reached the level below, how much reaches each level (..., 9)."""
        steepness = (EXCESS / excess).clamp(_FLATTEST, _STEEPEST)
        usual = (self.fixed + steepness @ self.steep.unsqueeze(0)).exp()
        return (self.worth * usual + reached[..., 1:]) / (self.worth + reached[..., :-1])

    def _score(self, x: Tensor, steps: Tensor) -> Tensor:
        """Nines at x, by those from level to level (..., 9)."""
        body = (x - LEVELS[0]).clamp(max=0.0).exp()
        climbed = torch.minimum(((x - self.below) / self.widths).clamp(min=0.0), self.most)
        nines = body * ((climbed * steps) @ self.ones)
        over = (nines - _MODEST).clamp(min=0.0)
        room = SCORE_MAX - _MODEST
        return nines.clamp(max=_MODEST) + room * over / (room + over)

    def _learn(
        self, x: Tensor, score: Tensor, excess: Tensor, learning: Tensor, old: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The fields after a sample at x, of this score."""
        lasted = old["excursion"] / _FADE
        counts = learning / (1 + lasted * lasted)
        kept = 1 - learning / _MEMORY
        told = (x >= self.levels).float() * self.steady
        over = torch.minimum(x.clamp(min=0.0), _EXCESS_MOST * excess)
        longer = old["excursion"] + learning * (2 * (score >= _STRANGE).float() - 1)
        return {
            "reached": kept * old["reached"] + counts * told,
            "excess": kept * old["excess"] + counts / _STEADY[2] * over,
            "excursion": longer.clamp(0.0, _LONGEST),
        }
