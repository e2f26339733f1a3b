"""A whole evaluation: no bad series costs another, findings are taken again, and the folder is always valid."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from detector.cli import app
from detector.errors import ConfigurationError, InputError, TidewardenError
from tests.evaluate import made_up
from training.evaluate import tasks
from training.evaluate.baselines import FLOORS
from training.evaluate.results import OURS, SuiteResult
from training.evaluate.run import Options, evaluate
from training.evaluate.verdict import Verdict, recall
from training.evaluate.workers import Crew, advance
from training.synthetic.stationary import KINDS

pytest.importorskip("onnxruntime")


def options(data: Path, output: Path, *suites: str) -> Options:
    return Options(
        suites=suites or ("tsb-ad-u",), data=data, bundle=str(made_up.ANY), output=output, budget_per_day=200.0
    )


def run(asked: Options) -> SuiteResult:
    (result,) = evaluate(asked, made_up.quiet())
    return result


def figures(result: SuiteResult) -> dict[str, float]:
    return {row.method: row.figures[result.lead].mean for row in result.rows}


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases that are really scored, in order."""
    names: list[str] = []
    judge = tasks.judge

    def listening(*args: object, **options: object) -> Iterator[tuple[int, Verdict]]:
        cases = args[2]
        assert isinstance(cases, list)
        for place, verdict in judge(*args, **options):  # type: ignore[arg-type]  # passed on as they come
            names.append(cases[place].name)
            yield place, verdict

    monkeypatch.setattr(tasks, "judge", listening)
    return names


def test_every_method_is_measured_on_the_same_series(tmp_path: Path) -> None:
    """Ours, floors and published stand in one table, each a mean over the same three series."""
    result = run(options(made_up.tsb_ad(tmp_path / "U"), tmp_path / "out"))
    assert figures(result).keys() == {OURS, *FLOORS, "Sub-KNN"}
    assert figures(result)["Sub-KNN"] == pytest.approx(0.2)  # of 0.1, 0.2 and 0.3
    assert {row.figures["VUS-PR"].number for row in result.rows} == {3}
    assert figures(result)["|z|"] > 0.9 > figures(result)["random"]
    assert set(result.rows[0].families) == {"UCR", "WSD"}
    order = [row.figures["VUS-PR"].mean for row in result.rows]
    assert order == sorted(order, reverse=True)
    assert not result.refusals


def hostile() -> dict[str, np.ndarray]:
    """What no benchmark would have, and users do."""
    gaps, spike, wide = made_up.wave(), made_up.wave(), made_up.wave(channels=64)
    gaps[50:90] = np.nan
    spike[310] = 1e30
    return {
        "short": made_up.wave()[295:325],
        "constant": np.full((400, 1), 7.0),
        "gaps": gaps,
        "spike": spike,
        "missing": np.full((400, 1), np.nan),
        "wide": wide,
    }


def test_a_hostile_series_costs_no_other(tmp_path: Path) -> None:
    """Short, constant, gappy, spiky, missing and wide series are scored, or refused with the reason."""
    folder = made_up.tsb_ad(tmp_path / "M", ("001_SMD_id_1_Facility_tr_150_1st_300",), channels=2)
    alone = run(options(folder, tmp_path / "alone", "tsb-ad-m"))
    for number, (kind, values) in enumerate(hostile().items(), 2):
        told = made_up.labels()[295:325] if kind == "short" else made_up.labels()
        np.savez(folder / f"00{number}_Bad_id_1_{kind}_tr_150_1st_300.npz", X=values, y=told)
    np.savez(folder / "010_Bad_id_1_unlabelled_tr_9_1st_9.npz", X=made_up.wave(), y=np.zeros(400))
    np.savez(folder / "011_Bad_id_1_text_tr_9_1st_9.npz", X=np.array([["a"]] * 400), y=made_up.labels())
    (folder / "012_Bad_id_1_torn_tr_9_1st_9.npz").write_bytes(b"PK\x03\x04")
    result = run(options(folder, tmp_path / "out", "tsb-ad-m"))
    reasons = {refusal.case.split("_")[4]: refusal.reason for refusal in result.refusals}
    assert reasons.keys() == {"unlabelled", "text", "torn"}
    assert "array 'X': expected numbers" in reasons["text"]
    cases = {each.case.name: each for each in result.cases}
    assert len(cases) == 8
    assert all(np.isfinite(each.verdict.score).all() for each in cases.values())
    assert all(math.isfinite(each.measures["VUS-PR"]) for name, each in cases.items() if "unlabelled" not in name)
    (good,) = alone.cases
    np.testing.assert_array_equal(cases[good.case.name].verdict.score, good.verdict.score)


def test_nothing_left_is_told_and_no_fault(tmp_path: Path) -> None:
    """A pattern that nothing fits gives an empty table that says so; a suite that is not there is an error."""
    folder = made_up.tsb_ad(tmp_path / "U")
    result = run(replace(options(folder, tmp_path / "out"), only="nothing*"))
    assert not result.cases
    assert [refusal.reason for refusal in result.refusals] == ["no case is left to evaluate"]
    with pytest.raises(InputError, match="no series of smd"):
        run(options(folder, tmp_path / "out", "smd"))


def test_a_rerun_takes_what_is_there(tmp_path: Path, scored: list[str]) -> None:
    """A second run scores nothing; a changed series, another budget and `fresh` are computed again, the rest is not."""
    folder = made_up.tsb_ad(tmp_path / "U")
    asked = options(folder, tmp_path / "out")
    first = run(asked)
    assert sorted(scored) == sorted(made_up.TSB_NAMES)
    scored.clear()
    assert figures(run(asked)) == figures(first)
    assert not scored
    np.savez(folder / f"{made_up.TSB_NAMES[1]}.npz", X=made_up.wave(seed=99), y=made_up.labels())
    run(asked)
    assert scored == [made_up.TSB_NAMES[1]]
    scored.clear()
    run(replace(asked, budget_per_day=2.0))
    run(replace(asked, fresh=True))
    assert len(scored) == 6


def test_a_damaged_file_counts_as_absent(tmp_path: Path, scored: list[str]) -> None:
    """What cannot be read back is computed again."""
    asked = options(made_up.tsb_ad(tmp_path / "U"), tmp_path / "out")
    run(asked)
    path = min((tmp_path / "out" / "scores").glob("*.npz"))
    path.write_bytes(path.read_bytes()[:100])
    assert recall(path, Verdict) is None
    scored.clear()
    run(asked)
    assert len(scored) == 1


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scored: list[str]) -> None:
    """Ctrl-C leaves whole files alone; the next run computes the rest, and finds what an undisturbed one finds."""
    folder = made_up.tsb_ad(tmp_path / "U")
    undisturbed = run(options(folder, tmp_path / "other"))
    store = tasks.store

    def interrupted(path: Path, found: object) -> None:
        if len(list(path.parent.glob("*.npz"))) == 2:
            raise KeyboardInterrupt
        store(path, found)

    asked = options(folder, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "store", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(asked)
    files = list((tmp_path / "out").rglob("*"))
    assert sorted(path.suffix for path in files if path.is_file()) == [".npz", ".npz"]
    scored.clear()
    assert figures(run(asked)) == figures(undisturbed)
    assert len(scored) == 1


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    """The result does not depend on how many processes share the work, and none is left behind."""
    folder = made_up.tsb_ad(tmp_path / "U")
    one = run(options(folder, tmp_path / "one"))
    two = run(replace(options(folder, tmp_path / "two"), jobs=2))
    assert figures(one) == figures(two)
    for here, there in zip(one.cases, two.cases, strict=True):
        np.testing.assert_array_equal(here.verdict.score, there.verdict.score)
        np.testing.assert_array_equal(here.verdict.opened, there.verdict.opened)
    assert not multiprocessing.active_children()


def _fails(task: int) -> int:
    advance(task)
    if task == 3:
        raise InputError("here", "broken")
    return task


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_fault_in_a_process_comes_out(jobs: int) -> None:
    """An exception in a worker is raised where the results are read, and ends the crew."""
    told: list[int] = []
    with pytest.raises(InputError, match="here: broken"), Crew(jobs, told.append) as crew:
        list(crew.map(_fails, [1, 2, 3]))
    assert not multiprocessing.active_children()
    with Crew(jobs, told.append) as crew:
        told.clear()
        assert sorted(crew.map(_fails, [1, 2])) == [1, 2]
    assert sum(told) == 3


def _dies(_: int) -> None:
    os._exit(9)


def test_a_process_that_dies_is_told_of() -> None:
    """A worker that the system ends gives an error that says what to do, not a wait without end."""
    with pytest.raises(TidewardenError, match=r"a process died .*fewer --jobs"), Crew(2) as crew:
        list(crew.map(_dies, [1]))
    assert not multiprocessing.active_children()


def test_work_is_dealt_evenly(tmp_path: Path) -> None:
    """Groups have alike channels; the longest cases go to different processes."""
    cases = [
        made_up.case(str(rows), made_up.wave(rows, channels))
        for rows, channels in ((9_000, 1), (8_000, 1), (500, 1), (400, 1), (300, 3))
    ]
    groups = tasks.deal([tasks.Place(case, tmp_path) for case in cases], jobs=2)
    names = [[place.case.name for place in group] for group in groups]
    assert names == [["9000"], ["8000", "500", "400"], ["300"]] or names == [["9000", "400"], ["8000", "500"], ["300"]]


# Suites with measures of their own


def test_nab_has_its_profiles_and_a_threshold_that_was_not_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three profiles, every row for itself, and the halves at each other's threshold; the constant alarm has none."""
    from training.evaluate.suites import numenta

    monkeypatch.setattr(numenta, "split_of", lambda _, name: "dev" if "f1" in name else "validation")
    result = run(options(made_up.numenta(tmp_path / "nab"), tmp_path / "out", "nab"))
    ours = next(row for row in result.rows if row.method == OURS)
    assert {"NAB", "NAB low FP", "NAB low FN", "NAB every row", "NAB frozen"} <= set(ours.figures)
    assert ours.figures["NAB"].low <= ours.figures["NAB"].mean
    assert figures(result)["|z|"] > 50
    assert figures(result)["constant"] <= 0
    assert "ARTime" in figures(result)


def test_ucr_counts_hits(tmp_path: Path) -> None:
    """A floor that peaks at the bump hits both series; a constant hits none."""
    result = run(options(made_up.ucr(tmp_path / "ucr"), tmp_path / "out", "ucr"))
    assert figures(result)["|z|"] == 1.0
    assert figures(result)["constant"] == 0.0
    assert all({"hit rate", "by single rows"} <= row.figures.keys() for row in result.rows if row.kind != "published")


def test_skab_pools_rows_and_everything_is_not_enough(tmp_path: Path) -> None:
    """F1 comes with both rates, by each method's own rule and by one for all; the constant alarm has 2/3 at 100 %."""
    result = run(options(made_up.skab(tmp_path / "skab"), tmp_path / "out", "skab"))
    constant = next(row for row in result.rows if row.method == "constant").figures
    assert constant["F1"].mean == pytest.approx(2 / 3)
    assert (constant["FAR %"].mean, constant["MAR %"].mean) == (100.0, 0.0)
    assert all({"trained F1", "trained FAR %"} <= row.figures.keys() for row in result.rows if row.kind != "published")


def test_smap_counts_events(tmp_path: Path) -> None:
    """An alarm that touches an event finds it; the constant alarm finds all."""
    result = run(options(made_up.smap(tmp_path / "smap"), tmp_path / "out", "smap"))
    constant = next(row for row in result.rows if row.method == "constant").figures
    assert (constant["event precision"].mean, constant["event recall"].mean) == (1.0, 1.0)
    assert constant["FAR %"].mean == 100.0


def test_roles_need_a_bundle_that_takes_them(tmp_path: Path) -> None:
    """Declaring roles to a bundle without that input is refused before anything is scored."""
    with pytest.raises(ConfigurationError, match="--roles: declared: expected a bundle with the input 'role'"):
        run(replace(options(made_up.smap(tmp_path / "smap"), tmp_path / "out", "smap"), roles="declared"))


# The command


def call(*arguments: object) -> object:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def test_the_command_leaves_table_summary_and_report(tmp_path: Path) -> None:
    """One command: the table on the terminal; results.csv, summary.json and report.html in the folder."""
    pytest.importorskip("plotly")
    out = tmp_path / "out"
    made_up.tsb_ad(tmp_path / "tsb_ad" / "U")
    made_up.ucr(tmp_path / "ucr")
    said = call(
        "--suite", "all", "--data", tmp_path, "--bundle", made_up.ANY, "--output", out, "--jobs", 1
    )  # all that are there
    assert said.exit_code == 0  # type: ignore[attr-defined]  # of typer's result
    assert OURS in said.stdout  # type: ignore[attr-defined]
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["suite"] for row in rows} == {"tsb-ad-u", "ucr"}
    assert len(rows) == 3 * (1 + len(FLOORS) + 1) + 2 * (1 + len(FLOORS))
    summary = json.loads((out / "summary.json").read_text())
    assert {"date", "command", "bundle", "graph_sha256", "commit", "split"} <= summary.keys()
    assert [suite["suite"] for suite in summary["suites"]] == ["tsb-ad-u", "ucr"]
    assert "001_UCR_id_1_Medical" in (out / "report.html").read_text()
    assert not list(out.glob("*.partial"))


def test_promises_need_no_data(tmp_path: Path) -> None:
    """`--suite calibration` draws its own streams: every kind and promise in the table and in calibration.csv."""
    pytest.importorskip("plotly")
    arguments = ("--bundle", made_up.ANY, "--output", tmp_path, "--jobs", 1, "--samples", 200)
    said = call("--suite", "calibration", *arguments)
    assert said.exit_code == 0  # type: ignore[attr-defined]
    with (tmp_path / "calibration.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["kind"] for row in rows} == set(KINDS)
    assert {"2 nines, early", "1 a day at 10 s"} <= {row["promise"] for row in rows}
    assert f"of {len(rows)} promises kept" in said.stdout  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "nobs"), "--suite: unknown: expected one of .*nab.*, got nobs"),
        (
            ("--suite", "nab", "--with", "prophet"),
            "--with: unknown: expected one of windowed-lstm, own-training, got prophet",
        ),
        (("--suite", "nab"), "--data: is needed"),
        (("--suite", "nab", "--split", "test"), "--split: unknown: expected one of dev, validation, got test"),
    ],
)
def test_a_wrong_word_is_refused_with_those_that_are_known(arguments: tuple[str, ...], message: str) -> None:
    """Wrong usage names what there is."""
    pytest.importorskip("plotly")
    with pytest.raises(ConfigurationError, match=message):
        call(*arguments)
