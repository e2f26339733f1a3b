"""A real comparison, small: from the command to the recommendation; and what happens when something goes wrong."""

from __future__ import annotations

import io
import json
import multiprocessing
import shutil
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch")

from rich.console import Console
from typer.testing import CliRunner

from detector.cli import app
from detector.errors import InputError
from detector.model.bundle import read_bundle
from tests.training.comparisons import finding
from training.compare.candidate import Pace, Task
from training.compare.finding import Finding, bundle_path, recall, save
from training.compare.plan import Plan
from training.compare.processes import spread
from training.compare.run import resume
from training.data.load import load_history
from training.data.series import sha256
from training.progress import Progress
from training.settings import TrainSettings, dump, load

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny-any.onnx"
LEFT = {"report.html", "results.csv", "results.json", "recommended.yaml", "config.yaml", "compare.yaml", "plan.json"}

SETTINGS = TrainSettings.model_validate(
    {
        "name": "small",
        "data": {"plant": {"streams": 3, "hours": 2}},
        "model": {"profile": "light", "hidden": 4, "warm_up": 32},
        "fit": {"epochs": 2, "chunk": 32},
    }
)


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves of GRU against LSTM."""
    path = tmp_path_factory.mktemp("compare")
    (path / "small.yaml").write_text(dump(SETTINGS))
    words = ["-c", str(path / "small.yaml"), "--over", "cell=gru,lstm", "--budget", "1h", "--jobs", "2", "--again", "0"]
    called = CliRunner().invoke(app, ["compare", *words, "-o", str(path / "runs")])
    assert called.exit_code == 0, called.output
    return Path(called.stdout.strip().splitlines()[-1]).parent


@pytest.mark.timeout(900)
def test_gru_against_lstm_ends_with_a_recommendation(folder: Path) -> None:
    """Both are trained, exported and scored; one of them is taken, and what is needed to train it is there."""
    assert {path.name for path in folder.iterdir()} == {*LEFT, "candidates"}
    document = json.loads((folder / "results.json").read_text())
    floor, *candidates = document["candidates"]
    assert [one["state"] for one in candidates] == ["done", "done"]
    assert {one["label"] for one in candidates} == {"gru", "lstm"}
    for one in candidates:
        assert one["forecast loss"] < floor["forecast loss"]
        assert (one["epochs"], floor["epochs"]) == (2, 0)
        assert one["us/sample"] > 0
        assert one["bytes/stream"] > 0
    assert document["recommended"]["model.cell"] in ("gru", "lstm")
    assert load(folder / "recommended.yaml").model.cell == document["recommended"]["model.cell"]
    assert "Recommendation" in (folder / "report.html").read_text()


def test_every_candidate_leaves_a_bundle_that_was_proved(folder: Path) -> None:
    """And its finding, which says what it is."""
    for number, weights in ((0, None), (1, "gru"), (2, "lstm")):
        found = recall(folder / "candidates", number)
        assert found is not None
        assert found.values == ({"model.cell": weights} if weights else {})
        assert 4 * read_bundle(bundle_path(folder / "candidates", number)).row_floats(5) == found.bytes_per_stream


# What an interrupted comparison goes on from


def interrupted(folder: Path, *known: Finding, name: str = "compare-small.broken") -> Path:
    """A folder as Ctrl-C leaves it, with some findings made up."""
    broken = folder / name
    (broken / "candidates").mkdir(parents=True)
    (broken / "config.yaml").write_text(dump(SETTINGS))
    (broken / "compare.yaml").write_text("over: {model.cell: [gru, lstm]}\nbudget_s: 600\njobs: 1\nagain: 1\n")
    (broken / "plan.json").write_bytes(msgspec.json.encode(Plan("grid", 20.0, 60.0, 300.0, 1)))
    (broken / "error.txt").write_text("KeyboardInterrupt")
    for one in known:
        save(broken / "candidates", one)
        shutil.copy(GOLDEN, bundle_path(broken / "candidates", one.number))
    return broken


def known(number: int, cell: str | None, role: str = "candidate") -> Finding:
    return finding(
        number, {"model.cell": cell} if cell else {}, role=role, data_sha256=sha256(load_history(SETTINGS).series)
    )


def test_a_resumed_comparison_trains_nothing_twice(tmp_path: Path) -> None:
    """With all of it found it only has to choose; it ends whole, under its plain name."""
    broken = interrupted(
        tmp_path, known(0, None, "floor"), known(1, "gru"), known(2, "lstm"), known(1001, "gru", "again")
    )
    before = {path.name: path.stat().st_mtime_ns for path in (broken / "candidates").iterdir()}
    whole = resume(broken, quiet())
    assert [path.name for path in tmp_path.iterdir()] == [whole.name] == ["compare-small"]
    assert {path.name for path in whole.iterdir()} == {*LEFT, "candidates"}
    assert {path.name: path.stat().st_mtime_ns for path in (whole / "candidates").iterdir()} == before


def test_other_data_are_not_mixed_in(tmp_path: Path) -> None:
    """What was found on other data is no rival; the folder stays as it was."""
    broken = interrupted(tmp_path, finding(0, {}, role="floor"))
    with pytest.raises(InputError, match="data have changed"):
        resume(broken, quiet())
    assert [path.name for path in tmp_path.iterdir()] == [broken.name]


@pytest.mark.parametrize("name", ["compare-small", "nothing.broken"])
def test_only_what_was_interrupted_is_resumed(tmp_path: Path, name: str) -> None:
    """A folder that is whole, or none of ours, is refused."""
    interrupted(tmp_path, name="compare-small")
    with pytest.raises(InputError, match="nothing to go on with"):
        resume(tmp_path / name, quiet())


def test_a_finding_is_whole_or_absent(tmp_path: Path) -> None:
    """It comes back as it was; one that was cut off counts as none."""
    one = known(3, "gru")
    path = save(tmp_path, one)
    assert recall(tmp_path, 3) == one
    path.write_bytes(path.read_bytes()[:-50])
    assert recall(tmp_path, 3) is None
    assert recall(tmp_path, 4) is None


# Candidates that come to nothing


def task(number: int, folder: Path, **data: object) -> Task:
    settings = SETTINGS.model_copy(update={"data": SETTINGS.data.model_copy(update=data)}) if data else SETTINGS
    return Task(number, "candidate", settings, folder, 60.0, 7, None, {"model.cell": "gru"})


@pytest.mark.timeout(600)
def test_what_fails_is_told_and_costs_no_other(tmp_path: Path) -> None:
    """One finds no file, one is killed, one is given up: each is a finding, and the next one has its turn."""

    def judge(one: Task, pace: Pace) -> bool:
        if one.number == 2:
            for process in multiprocessing.active_children():
                process.kill()
        return one.number == 3

    tasks = iter([task(1, tmp_path, paths=["nowhere.csv"]), task(2, tmp_path), task(3, tmp_path)])
    found = {one.number: one for one in spread(tasks, 1, judge)}
    assert {number: one.state for number, one in found.items()} == {1: "failed", 2: "failed", 3: "pruned"}
    assert "nowhere.csv: no such file" in found[1].reason
    assert "its process died: signal 9" in found[2].reason
    assert "given up after" in found[3].reason
    assert all(recall(tmp_path, number) == one for number, one in found.items())
    assert not multiprocessing.active_children()
