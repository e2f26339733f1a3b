"""Tail: how improbable is so much strangeness, for this stream?

The score in nines is read off the stream's own distribution of x = ln u. Five levels of it are kept, which u reaches
once in 2, 10, 100, 1,000 and 10,000 samples: the median and four *gaps* above it. Between levels nines are linear in
x, and go on beyond the last as a power law, at the steepness of the last gap. From 6 nines on, which no stream can
vouch for, they rise ever more slowly towards 15 and never stop, so that the stranger sample always has more.

Strangeness is 1 where a stream does what its covariance expects, so that no stream, however constant, may be surprised
by much less: 1 is at most 2 nines, and the limit goes with the square.

**Learning.** Each level follows the rule of Robbins and Monro (1951): up by r where u reaches it, down by r p at every
sample, with p the share that it promises. Whatever the stream does, independent or not, such a level is reached as
often as promised in the long run: every time too many raises it (Gibbs and Candes 2021 on the same argument). Steps are
in the level's own e-folds, hence factors of its gap, so the order of levels is safe, and a level that moves takes those
above along: rare levels are found from common ones long before they have been reached. r is one part in the number of
times the level should have been reached so far, down to a floor: the rarer a level, the longer its memory.

**Excursions.** What is strange stays so for a while, and must not count as so many independent tellings. The n-th
sample in a row above 2 nines counts w = 1 / (1 + n / 8), and its mean over what reaches the level is divided out, so
that realised and promised shares still agree. Once the stream is calibrated, no excursion makes a gap wider than
three times what it was, and one of 512 samples is taken for an anomaly: the gaps are put back to what they were at its
beginning and rest until it is over. (A new normal does end: u is measured by statistics that follow the stream, and
the median follows u.) How soon a stream recovers: docs/contract.md, "Decide".
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.graph.layout import SAFE_LOG, Field

CALIBRATED_AFTER = 20_000  # samples; from here on a level is within a factor of 2 of what it promises
SCORE_MAX = 15.0  # nines; never reached
LEAST = 1e-3  # standard deviations; less strangeness than this is none
LEVELS = (-math.log10(0.5), 1.0, 2.0, 3.0, 4.0)  # nines of the median and of the level above each gap

_PROMISED = tuple(10.0**-nines for nines in LEVELS)
_SPANS = tuple(high - low for low, high in pairwise(LEVELS))  # nines of each gap
_MOST_SCORES = (*_SPANS[:-1], 1e9)  # nines that each gap may add: the last has no end

_MEDIAN_REACHED, _MEDIAN_PRIOR = 10_000.0, 250.0
_MEDIAN_HASTE = 8_000.0  # samples; so long u still rises, while the spread of its features is found
_MEDIAN_STEP_MAX = 0.06  # e-folds
_REACHED = (2_000.0, 100.0, 50.0, 25.0)  # times that a level remembers being reached
_PRIOR = (250.0, 1_000.0, 3_000.0, 20_000.0)  # samples that its calibrated start counts for
_STEP_MAX = 0.3  # e-folds; what being reached once counts for at first
_WEIGHT_STEP_MAX = 0.01  # of the mean weight: slow enough that one anomaly does not tell what is usual
_WEIGHT_MIN = 0.02
_USUAL = 128.0  # samples of an excursion that the mean weight is learnt from
_FADE = 8.0  # samples of an excursion after which one counts half
_ANOMALY = 512.0  # samples of an excursion that is nothing usual
_WIDENING = 3.0  # times; how much wider a single excursion may make a gap

_GAP_MIN, _GAP_MAX = 0.01, 2.0  # ln u
_MODEST = 6.0  # nines that can be known; beyond they are compressed
_MOST_AT_ONE = 2.0  # nines of u = 1, and as its square elsewhere: what is less than usual is never a surprise


class Tail(nn.Module):
    """Turns strangeness into nines."""

    FIELDS = (
        Field("median", initial=-0.23, version=2),
        Field("gaps", 4, (0.24, 0.2, 0.15, 0.12)),
        Field("gaps_before", 4, (0.24, 0.2, 0.15, 0.12)),
        Field("weight", 4, (0.9, 0.6, 0.5, 0.5)),
        Field("excursion"),
    )
    promised: Tensor
    spans: Tensor
    most: Tensor
    efolds: Tensor
    prior: Tensor
    floor: Tensor
    below: Tensor
    ones: Tensor
    safe: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._constant("promised", _PROMISED[1:])
        self._constant("spans", _SPANS)
        self._constant("most", _MOST_SCORES)
        self._constant("efolds", [span * math.log(10) for span in _SPANS])
        self._constant("prior", _PRIOR)
        self._constant("floor", [1 / reached for reached in _REACHED])
        self._constant("below", [[float(row <= column) for column in range(4)] for row in range(4)])
        self._constant("ones", [[1.0]] * 4)
        self._constant("safe", [[1.0] * SAFE_LOG])

    def _constant(self, name: str, value: object) -> None:
        self.register_buffer(name, torch.tensor(value), persistent=False)

    def forward(
        self, u: Tensor, live: Tensor, age: Tensor, old: dict[str, Tensor], learning: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score one sample, and learn from it.

        Args:
            u: Strangeness, positive, in standard deviations (..., 1).
            live: 1 once the warm-up is over, else 0: nothing is scored and nothing learnt.
            age: Samples since the warm-up.
            old: The fields before this sample.
            learning: 0 where the stream's learning is frozen; 1 if not given.

        Returns:
            The score in nines, and the fields after this sample.
        """
        learning = live if learning is None else live * learning
        x = (u.clamp(min=LEAST) @ self.safe).log()[..., :1]
        gaps = old["gaps"]
        levels = old["median"] + gaps @ self.below
        score = live * torch.minimum(self._score(x, levels, gaps, old["median"]), _MOST_AT_ONE * u * u)
        reached = (x >= levels).float()
        return score, self._learn(x, reached, learning, age, old)

    def _score(self, x: Tensor, levels: Tensor, gaps: Tensor, median: Tensor) -> Tensor:
        """Nines at x."""
        body = LEVELS[0] * (x - median).clamp(max=0.0).exp()
        above = ((x - levels) / gaps + 1.0).clamp(min=0.0) * self.spans
        nines = body + torch.minimum(above, self.most) @ self.ones
        over = (nines - _MODEST).clamp(min=0.0)
        room = SCORE_MAX - _MODEST
        return nines.clamp(max=_MODEST) + room * over / (room + over)

    def _learn(
        self, x: Tensor, reached: Tensor, learning: Tensor, age: Tensor, old: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The fields after a sample that reached what it reached."""
        gaps, weight, excursion = old["gaps"], old["weight"], old["excursion"]
        rate = torch.maximum(1 / ((age + self.prior) * self.promised), self.floor).clamp(max=_STEP_MAX)

        # Every gap and mean weight by its own step, and by those below.
        counts = 1 / (1 + excursion / _FADE)
        step = learning * rate * (reached * (counts / weight) - self.promised) / self.efolds
        together = (step @ self.below).clamp(max=1.0)
        learnt = gaps + gaps * (together / (1 - together / 2))  # exp(together) to second order, exact where tiny
        usual = learning * (excursion < _USUAL).float()
        taught = usual * reached * rate.clamp(max=_WEIGHT_STEP_MAX) * (counts / weight - 1)
        weight = (weight * (1 + taught @ self.below)).clamp(_WEIGHT_MIN, 1.0)

        # In an excursion that is an anomaly the gaps are those from before it.
        longer = (excursion + learning * (2 * reached[..., 1:2] - 1)).clamp(0.0, 2 * _ANOMALY)
        before = torch.where(learning * (excursion <= 0) > 0, gaps, old["gaps_before"])
        calibrated = (age >= CALIBRATED_AFTER).float()
        learnt = torch.minimum(learnt, _WIDENING * before + (1 - calibrated) * _GAP_MAX).clamp(_GAP_MIN, _GAP_MAX)
        is_anomaly = learning * calibrated * (longer >= _ANOMALY) > 0

        youth = 1 / (age + _MEDIAN_PRIOR)
        pace = (2 * youth * (1 + _MEDIAN_HASTE * youth)).clamp(1 / _MEDIAN_REACHED, _MEDIAN_STEP_MAX)
        side = (x >= old["median"]).float() - 0.5
        return {
            "median": old["median"] + learning * pace * side * gaps[..., :1] / (_SPANS[0] * math.log(10)),
            "gaps": torch.where(is_anomaly, before, learnt),
            "gaps_before": before,
            "weight": weight,
            "excursion": longer,
        }
