"""Optuna's search among combinations that are too many to try them all (Akiba et al. 2019).

The tree-structured Parzen estimator proposes candidates (Bergstra et al. 2011); one is given up early when its loss is
worse than the median of the others after the same share of their time. What is known lies in the findings; a resumed
comparison tells it to a new study.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

from training.compare.finding import Finding
from training.compare.over import Values

_SHARES = 10  # looks at a candidate while it trains
_FREE_LOOKS = 3  # of them before anything is given up
_FREE_TRIALS = 4  # candidates that are never given up: there is nothing to hold them against
_PROPOSALS = 50  # to the sampler, before chance takes one that was not tried


class Search:
    """A study, and which of its trials is which candidate.

    Args:
        over: Values by key.
        grid: The combinations that can be built.
        seed: Of the proposals.
        known: What came of candidates before.
    """

    def __init__(
        self, over: Mapping[str, Sequence[Any]], grid: Sequence[Values], seed: int, known: Iterable[Finding] = ()
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._spaces: dict[str, BaseDistribution] = {
            key: CategoricalDistribution(list(values)) for key, values in over.items()
        }
        self._left, self._rng = list(grid), np.random.default_rng(seed)
        self._study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_FREE_TRIALS, n_warmup_steps=_FREE_LOOKS),
        )
        self._trials: dict[int, optuna.Trial] = {}
        for finding in known:
            self._left.remove(finding.values)
            trial = self._take_up(finding.values)
            for one in finding.epochs:
                _report(trial, one.spent_s / max(finding.fit_s, 1e-9), one.validation_loss)
            self._close(trial, finding)

    def propose(self, number: int) -> Values | None:
        """What candidate `number` is to be; None when all combinations have been tried."""
        if not self._left:
            return None
        for _ in range(_PROPOSALS):
            trial = self._study.ask(self._spaces)
            if trial.params in self._left:
                break
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            trial = self._take_up(self._left[self._rng.integers(len(self._left))])
        self._left.remove(trial.params)
        self._trials[number] = trial
        return trial.params

    def _take_up(self, values: Values) -> optuna.Trial:
        self._study.enqueue_trial(values)
        return self._study.ask(self._spaces)

    def is_hopeless(self, number: int, share: float, loss: float) -> bool:
        """Tell how good a candidate is after a share of its time; whether to give it up."""
        trial = self._trials[number]
        _report(trial, share, loss)
        return trial.should_prune()

    def learn(self, finding: Finding) -> None:
        """Tell what became of a candidate."""
        self._close(self._trials.pop(finding.number), finding)

    def _close(self, trial: optuna.Trial, finding: Finding) -> None:
        if finding.state == "done":
            self._study.tell(trial, finding.loss)
        else:
            self._study.tell(trial, state=TrialState.PRUNED if finding.state == "pruned" else TrialState.FAIL)


def _report(trial: optuna.Trial, share: float, loss: float) -> None:
    """Note a loss for every look up to a share of the time; an epoch may outlast several."""
    noted = trial.study.trials[trial.number].intermediate_values
    for look in range(1, min(int(share * _SHARES), _SHARES) + 1):
        if look not in noted:
            trial.report(loss, look)
