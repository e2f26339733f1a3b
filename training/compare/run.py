"""A comparison from beginning to end, and the folder that it leaves.

    runs/compare-pumps-20261121-131500/
      report.html         the recommendation with its reason, for people
      results.csv, .json  the same for programs
      recommended.yaml    the configuration to train in earnest: `train -c` takes it
      config.yaml         the configuration that was varied
      compare.yaml        what was asked for
      plan.json           how the budget was spent
      candidates/         per candidate its finding and its bundle

Until it is whole the folder is called *.partial, or *.broken where it was interrupted; `--resume` goes on with either
and trains nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import yaml
from pydantic import ValidationError

from detector.errors import InputError, TidewardenError
from training.compare.candidate import Pace, Task
from training.compare.choose import best_of, choose, leading
from training.compare.costs import measure_costs
from training.compare.finding import Finding, Role, bundle_path, recall
from training.compare.output import write
from training.compare.over import Values, apply, combine
from training.compare.plan import Plan, make_plan, minutes
from training.compare.processes import spread
from training.compare.result import Result
from training.compare.search import Search
from training.compare.truth import Truth, find_truth, without_labels
from training.compare.words import line, recommendation
from training.data.load import History, load_history
from training.data.series import sha256
from training.folder import CONFIG, reopened, run_folder
from training.progress import Progress
from training.settings import TrainSettings, dump, load
from training.settings.compare import CompareSettings

_ASKED = "compare.yaml"
_FLOOR, _AGAIN = 0, 1001  # numbers: of the floor, and of the first training of the best again


def compare(settings: TrainSettings, asked: CompareSettings, progress: Progress) -> Path:
    """Compare candidates.

    Args:
        settings: The configuration that is varied.
        asked: By what, for how long, and so on.
        progress: Told of each candidate as it ends.

    Returns:
        The finished folder.

    Raises:
        ConfigurationError: there is nothing to compare, or too little time for it.
        InputError: the data cannot be used.
    """
    settings = without_labels(settings, asked.labels)
    combine(settings, asked.over)  # what is wrong with it is said before a folder is made
    with run_folder(asked.output, f"compare-{settings.name}") as folder:
        (folder / CONFIG).write_text(dump(settings), encoding="utf-8")
        asked_yaml = yaml.safe_dump(asked.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        (folder / _ASKED).write_text(asked_yaml, encoding="utf-8")
        (folder / "candidates").mkdir()
        _Comparison(folder, settings, asked, progress).run()
    return folder.with_suffix("")


def resume(folder: Path, progress: Progress) -> Path:
    """Go on with a comparison that was interrupted; what was found stays.

    Raises:
        InputError: the folder is none, is whole, or the data are others now.
    """
    if not (folder / _ASKED).exists() or folder.suffix not in (".partial", ".broken"):
        expected = "a folder *.partial or *.broken that `tidewarden compare` left"
        raise InputError(folder, "there is nothing to go on with", expected=expected)
    settings, asked = load(folder / CONFIG), _read(folder / _ASKED)
    with reopened(folder, settings) as partial:
        _Comparison(partial, settings, asked, progress).run()
    return partial.with_suffix("")


def _read(path: Path) -> CompareSettings:
    try:
        return CompareSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise InputError(path, "cannot be read", expected="what `tidewarden compare` wrote", got=error) from error


class _Comparison:
    """The steps of a comparison; they share its folder."""

    def __init__(self, folder: Path, settings: TrainSettings, asked: CompareSettings, progress: Progress) -> None:
        self._folder, self._settings, self._asked, self._progress = folder, settings, asked, progress
        self._findings, self._grid = folder / "candidates", combine(settings, asked.over)
        self._search: Search | None = None
        self._advance: Callable[[int], None] = lambda _: None
        self._told: dict[int, int] = {}  # seconds of the processor that the bar knows of, by candidate

    def run(self) -> None:
        """All of them, in order."""
        broken = self._folder.with_suffix(".broken")
        self._progress.says(f"after an interruption: tidewarden compare --resume {broken}")
        # 1. Read, so that what is wrong with the data is said first.
        history = load_history(self._settings, self._progress.over("reading"))
        truth = find_truth(self._settings, history, self._asked.labels, self._asked.seed)
        # 2. The floor: the configuration as it is, without training. It tells what a candidate takes beside training.
        floor = self._floor(history)
        # 3. Share the budget out.
        plan = self._plan(floor)
        # 4. The candidates, and the best of them again from other seeds.
        candidates = self._candidates(plan)
        done = [one for one in candidates if one.state == "done"]
        if not done:
            raise TidewardenError("compare", "no candidate could be measured", got=candidates[0].reason)
        again = self._again(plan, best_of(done, leading(done)))
        # 5. What they cost, and which to take.
        result = self._result(history, truth, plan, floor, candidates, again)
        # 6. Tell.
        write(self._folder, result)
        recommended = dump(apply(self._settings, result.choice.taken.values))
        (self._folder / "recommended.yaml").write_text(recommended, encoding="utf-8")
        for sentence in recommendation(result):
            self._progress.says(sentence)

    def _floor(self, history: History) -> Finding:
        known = self._known(_FLOOR)
        if known is None:
            self._progress.says("the floor: calibrating, exporting and scoring it without training")
            (known,) = spread(iter([self._task(_FLOOR, "floor", {}, 0.0)]), 1, self._judge)
        if known.state != "done":
            raise TidewardenError("compare", "the configuration as it is cannot be measured", got=known.reason)
        if known.data_sha256 != sha256(history.series):
            raise InputError(self._folder, "the data have changed since", expected="those that it began with")
        return known

    def _plan(self, floor: Finding) -> Plan:
        """As it was made when the comparison began."""
        path, count = self._folder / "plan.json", len(self._grid.candidates)
        if path.exists():
            return msgspec.json.decode(path.read_bytes(), type=Plan)
        plan = make_plan(self._asked.budget_s, self._asked.jobs, count, self._asked.again, floor)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(plan)))
        way = "each is tried" if plan.way == "grid" else f"about {plan.tries} of them are searched"
        self._progress.says(f"{count} combinations, {way}; {minutes(plan.fit_s)} of training for each")
        return plan

    def _candidates(self, plan: Plan) -> list[Finding]:
        known = self._earlier()
        self._advance = self._progress.bar("comparing, seconds of the processor", int(plan.total_s))
        for one in known:
            self._tell(one.number, one.spent_s)
        if plan.way == "search":
            self._search = Search(self._asked.over, self._grid.candidates, self._asked.seed, known)
        tasks = self._proposed(plan, known) if self._search else self._all(plan, {one.number for one in known})
        return sorted([*known, *self._examined(tasks)], key=lambda one: one.number)

    def _earlier(self) -> list[Finding]:
        """What an interrupted comparison left; candidates that failed are tried again."""
        known = (recall(self._findings, int(path.stem)) for path in sorted(self._findings.glob("[0-9]*.json")))
        return [one for one in known if one is not None and one.role == "candidate" and one.state != "failed"]

    def _all(self, plan: Plan, known: set[int]) -> Iterator[Task]:
        for number, values in enumerate(self._grid.candidates, 1):
            if number not in known:
                yield self._task(number, "candidate", values, plan.fit_s)

    def _proposed(self, plan: Plan, known: Sequence[Finding]) -> Iterator[Task]:
        """What the search proposes, while there is time for one more and for the best again."""
        assert self._search is not None
        number = max((one.number for one in known), default=0)
        while self._booked(plan, number) + (1 + plan.again) * plan.each_s <= plan.total_s:
            number += 1
            values = self._search.propose(number)
            if values is None:
                return
            yield self._task(number, "candidate", values, plan.fit_s)

    def _booked(self, plan: Plan, last: int) -> float:
        """Seconds that candidates took, or will take."""
        found = (recall(self._findings, number) for number in range(1, last + 1))
        return sum(plan.each_s if one is None else one.spent_s for one in found)

    def _again(self, plan: Plan, best: Finding) -> list[Finding]:
        """The best candidate from other seeds; one that fails tells nothing of chance."""
        numbers = range(_AGAIN, _AGAIN + plan.again)
        known = [one for one in map(self._known, numbers) if one and one.values == best.values and one.state == "done"]
        missing = [number for number in numbers if number not in {one.number for one in known}]
        tasks = (self._task(number, "again", best.values, plan.fit_s, 1 + number - _AGAIN) for number in missing)
        return [one for one in [*known, *self._examined(tasks)] if one.state == "done"]

    def _examined(self, tasks: Iterator[Task]) -> Iterator[Finding]:
        """Findings as they come, each told."""
        for finding in spread(tasks, self._asked.jobs, self._judge):
            self._tell(finding.number, finding.spent_s)
            if self._search and finding.role == "candidate":
                self._search.learn(finding)
            self._progress.says(line(finding))
            yield finding

    def _judge(self, task: Task, pace: Pace) -> bool:
        """Move the bar on; in a search, give up what has no hope."""
        self._tell(task.number, pace.spent_s)
        return bool(
            self._search and task.role == "candidate" and self._search.is_hopeless(task.number, pace.share, pace.loss)
        )

    def _tell(self, number: int, spent_s: float) -> None:
        self._advance(int(spent_s) - self._told.get(number, 0))
        self._told[number] = int(spent_s)

    def _known(self, number: int) -> Finding | None:
        found = recall(self._findings, number)
        return found if found is not None and found.state != "failed" else None

    def _task(self, number: int, role: Role, values: Values, fit_s: float, seed_added: int = 0) -> Task:
        asked = self._asked
        return Task(number, role, self._settings, self._findings, fit_s, asked.seed, asked.labels, values, seed_added)

    def _result(
        self,
        history: History,
        truth: Truth,
        plan: Plan,
        floor: Finding,
        candidates: list[Finding],
        again: list[Finding],
    ) -> Result:
        done = [one for one in candidates if one.state == "done"]
        self._progress.says("timing all of them in turn, in ONNX Runtime")
        bundles = {one.number: bundle_path(self._findings, one.number) for one in (floor, *done)}
        costs = measure_costs(bundles, floor.channels)
        return Result(
            settings=self._settings,
            asked=self._asked,
            plan=plan,
            left_out=self._grid.left_out,
            combinations=len(self._grid.candidates),
            streams=len(history.series),
            samples=history.samples,
            channels=history.channels,
            truth=truth.origin,
            floor=floor,
            candidates=candidates,
            again=again,
            costs=costs,
            choice=choose(done, again, costs),
        )
