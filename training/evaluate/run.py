"""One evaluation: load, score, train what is compared, measure, and make the lines of the table.

    results = evaluate(Options(suites=("tsb-ad-u",), data=Path("data")), progress)

Under `output/scores` lies one file per case and method, named by what it follows from: bundle, case and settings. A
further run, also after one that was interrupted, takes them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from detector import __version__
from detector.errors import BundleError, ConfigurationError, InputError
from detector.model.bundle import Bundle
from detector.model.further import ROLE
from detector.model.session import Session
from detector.scoring import open_bundle
from detector.settings import DecideSettings
from detector.stages.decide import Policy
from training.evaluate import tasks
from training.evaluate.measured import Measured, Told
from training.evaluate.nab_table import NabTable, nab_table
from training.evaluate.notes import notes
from training.evaluate.results import OURS, CaseResult, Refusal, SuiteResult
from training.evaluate.suites import SUITES, Case, Split, Suite, tsb_ad
from training.evaluate.tables import LEAD, rows_of
from training.evaluate.tasks import MeasureTask, Place, ScoreTask
from training.evaluate.verdict import Stored, Verdict, recall, stored_path
from training.evaluate.workers import Crew
from training.progress import Progress

WINDOWED_LSTM, OWN_TRAINING = "windowed-lstm", "own-training"
_SUBSET_CASES, _SUBSET_ROWS = 12, 20_000  # of a suite: what the windowed LSTM, minutes per series, is run on


@dataclass(frozen=True, slots=True)
class Options:
    """What to evaluate, and how."""

    suites: tuple[str, ...]
    data: Path
    bundle: str = "default"
    windowed_lstm: bool = False
    """Whether to train a windowed LSTM per case beside ours, on a subset."""
    own_training: bool = False
    """Whether to train ours on each case's own training part besides, where it has one."""
    output: Path = Path("evaluation")
    jobs: int = 1
    split: Split | None = None
    """None: both sides."""
    only: str = "*"
    """Pattern of the cases' names."""
    budget_per_day: float | None = None
    """Alarms per stream-day; None: the bundle's own."""
    roles: Literal["auto", "declared"] = "auto"
    """Whether the graph is told which channel the labels speak of, where a suite declares it."""
    fresh: bool = False
    """Whether to compute again what an earlier run left."""


def evaluate(options: Options, progress: Progress) -> list[SuiteResult]:
    """Evaluate suites one after the other.

    Raises:
        InputError: A suite is not in the folder.
        BundleError: The bundle cannot be used.
        ConfigurationError: Roles are to be declared to a bundle that has no use for them.
    """
    bundle = open_bundle(options.bundle)
    if options.roles == "declared" and ROLE not in bundle.inputs:
        raise ConfigurationError("--roles", "declared", expected=f"a bundle with the input {ROLE!r}", got=bundle.label)
    Session(bundle)  # fails here rather than in every process
    return [_Evaluation(options, bundle, SUITES[name], progress).run() for name in options.suites]


class _Evaluation:
    """One suite; its steps share what was asked for."""

    def __init__(self, options: Options, bundle: Bundle, suite: Suite, progress: Progress) -> None:
        self._options, self._bundle, self._suite, self._progress = options, bundle, suite, progress
        self._policy = Policy.of(DecideSettings(budget_per_day=options.budget_per_day), bundle)
        self._refusals: list[Refusal] = []

    def run(self) -> SuiteResult:
        """The steps, in order."""
        suite, options = self._suite, self._options
        # 1. Load; what the bundle does not take is refused.
        found, refused = suite.load(options.data, options.only, options.split)
        self._refusals += [Refusal(name, str(error)) for name, error in refused]
        cases = [case for case in found if self._fits(case)]
        if not cases:
            self._refusals.append(Refusal(options.only, "no case is left to evaluate"))
        # 2. Score, and train what is compared.
        verdicts = self._verdicts(cases)
        trained: dict[str, dict[str, Told]] = {}
        if options.windowed_lstm:
            trained[WINDOWED_LSTM] = self._windowed(cases)
        if options.own_training:
            trained[OWN_TRAINING] = self._own_training(cases)
        # 3. Measure every method on every case.
        others = [{method: told[case.name] for method, told in trained.items() if case.name in told} for case in cases]
        measured = self._measured(cases, verdicts, others)
        # 4. Make the table.
        return self._told(cases, verdicts, measured, others)

    def _fits(self, case: Case) -> bool:
        """Whether the bundle takes a case; refuses it otherwise."""
        try:
            self._bundle.row_floats(len(case.channels))
        except BundleError as error:
            self._refusals.append(Refusal(case.name, str(error)))
            return False
        return True

    def _verdicts(self, cases: Sequence[Case]) -> list[Verdict]:
        """Ours on every case, from files where they are there."""
        settings = (self._bundle.sha256, self._policy, self._options.roles)
        places = [self._place(case, *settings) for case in cases]
        missing = self._missing(places, Verdict)
        group = partial(ScoreTask, self._bundle.path, self._policy, self._options.roles == "declared")
        self._spread("score", tasks.score, [group(own) for own in tasks.deal(missing, self._options.jobs)], missing)
        return [_recalled(place, Verdict) for place in places]

    def _windowed(self, cases: Sequence[Case]) -> dict[str, Told]:
        """The windowed LSTM on the subset, from files where they are there."""
        from training.evaluate.windowed_lstm import REDUCED, WindowedResult

        places = [self._place(case, WINDOWED_LSTM, REDUCED) for case in _subset(cases)]
        missing = self._missing(places, WindowedResult)
        self._spread(WINDOWED_LSTM, tasks.train_windowed, missing, missing)
        found = [_recalled(place, WindowedResult) for place in places]
        return {
            place.case.name: Told(one.scores, one.anomaly, one.microseconds_per_event)
            for place, one in zip(places, found, strict=True)
        }

    def _own_training(self, cases: Sequence[Case]) -> dict[str, Told]:
        """Ours, trained on each case's own part, from files where they are there."""
        from training.evaluate.own_training import SETTINGS, is_eligible

        options = self._options
        settings = (self._bundle.sha256, self._policy, options.roles, OWN_TRAINING, SETTINGS.fit.model_dump_json())
        places = [self._place(case, *settings) for case in cases if is_eligible(case)]
        missing = sorted(self._missing(places, Verdict), key=lambda place: -len(place.case))
        work = [
            tasks.OwnTask(self._bundle.path, options.budget_per_day, options.roles == "declared", place)
            for place in missing
        ]
        refused = [refusal for refusal in self._spread(OWN_TRAINING, tasks.train_own, work, missing) if refusal]
        self._refusals += refused
        left_out = {refusal.case for refusal in refused}
        found = {place.case.name: _recalled(place, Verdict) for place in places if place.case.name not in left_out}
        return {name: Told(one.score, one.anomaly) for name, one in found.items()}

    def _measured(
        self, cases: Sequence[Case], verdicts: Sequence[Verdict], others: Sequence[dict[str, Told]]
    ) -> list[Measured]:
        """All methods on every case, in the order of the cases."""
        work = [
            MeasureTask(case, self._ours(verdict), other, self._suite.pooled)
            for case, verdict, other in zip(cases, verdicts, others, strict=True)
        ]
        work.sort(key=lambda task: -len(task.case))
        found = {one.name: one for one in self._spread("measure", tasks.measured, work, work)}
        for one in found.values():
            self._refusals += [Refusal(one.name, reason) for reason in one.reasons]
        return [found[case.name] for case in cases]

    def _ours(self, verdict: Verdict) -> Told:
        seconds = verdict.seconds / len(verdict.score)
        return Told(verdict.score, verdict.anomaly, 1e6 * seconds if self._options.windowed_lstm else None)

    def _place(self, case: Case, *settings: object) -> Place:
        """A case and where what follows from it and these settings lies."""
        folder = self._options.output / "scores"
        return Place(case, stored_path(folder, __version__, case.sha256, case.train, case.target, *settings))

    def _missing(self, places: Sequence[Place], kind: type[Any]) -> list[Place]:
        fresh = self._options.fresh
        return [place for place in places if fresh or recall(place.path, kind) is None]

    def _spread(self, what: str, function: Any, work: Sequence[Any], over: Sequence[Any]) -> list[Any]:
        """Call a function with each piece of work in as many processes as are allowed, under a bar."""
        if not work:
            return []
        bar = self._progress.bar(f"{self._suite.name}: {what}", sum(len(each.case) for each in over))
        with Crew(min(self._options.jobs, len(work)), bar) as crew:
            return list(crew.map(function, work))

    def _told(
        self,
        cases: Sequence[Case],
        verdicts: Sequence[Verdict],
        measured: Sequence[Measured],
        others: Sequence[Mapping[str, Told]],
    ) -> SuiteResult:
        """The table over all cases, with what is published of them."""
        suite, budget_per_day = self._suite, self._policy.budget_per_day
        folder = suite.folder(self._options.data)
        published = tsb_ad.published(folder, suite.name)
        found = [
            CaseResult(
                case,
                verdict,
                one.measures[OURS],
                {method: values for method, values in one.measures.items() if method != OURS},
                {method: values[case.name] for method, values in published.items() if case.name in values},
            )
            for case, verdict, one in zip(cases, verdicts, measured, strict=True)
        ]
        nab = nab_table(found, others, folder) if suite.pooled == "nab" and found else NabTable(found)
        race = [line for bundle in self._racers() for line in _race(bundle)] if self._options.windowed_lstm else []
        return SuiteResult(
            suite=suite.name,
            lead=LEAD[suite.pooled],
            is_higher_better=True,
            cases=tuple(nab.cases),
            rows=tuple(rows_of(suite, nab.cases, budget_per_day, nab.figures, nab.published)),
            notes=(*notes(suite.name, nab.cases, budget_per_day, self._options.roles), *race),
            refusals=tuple(self._refusals),
        )

    def _racers(self) -> list[Bundle]:
        """The bundle under test, and the cheapest in the box where that is another."""
        cheapest = open_bundle("light")
        return [self._bundle] if cheapest.sha256 == self._bundle.sha256 else [self._bundle, cheapest]


def _race(bundle: Bundle) -> list[str]:
    """Time per event, a bundle against the windowed LSTM, turn by turn in this process."""
    from training.evaluate.race import race

    return [
        f"{one.wave} streams side by side: {bundle.label} {one.ours_us.median:.1f} us an event, windowed LSTM "
        f"{one.windowed_us.median:.1f} us, {one.times_faster.median:.0f} times "
        f"({one.times_faster.lower:.0f} to {one.times_faster.upper:.0f})"
        for one in race(Session(bundle))
    ]


def _recalled(place: Place, kind: type[Stored]) -> Stored:
    """What was stored a moment ago. Raises InputError where the folder lost it meanwhile."""
    found = recall(place.path, kind)
    if found is None:
        raise InputError(place.path, "is gone", expected="what was just written", hint="is the disk full?")
    return found


def _subset(cases: Sequence[Case]) -> list[Case]:
    """What the windowed LSTM is run on: cases that are not too long, evenly chosen in their order."""
    short = [case for case in cases if len(case) <= _SUBSET_ROWS]
    return short[:: max(1, -(-len(short) // _SUBSET_CASES))]
