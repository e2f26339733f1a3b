"""History that nothing can be learnt from is refused with file, what was expected, what was found and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, sin
from pathlib import Path

import pytest

pytest.importorskip("torch")

from detector.errors import ConfigurationError, InputError
from tests.waves import detector
from training.data.load import History, load_history
from training.fit import fit
from training.progress import Progress
from training.settings import TrainSettings, load

WAVES = [f"{t},{sin(t / 5):.3f},{cos(t / 7):.3f}" for t in range(200)]


def history(folder: Path, rows: Sequence[str], mode: str = "any", **data: object) -> History:
    """What is read of one file."""
    path = folder / "pumps.csv"
    path.write_text("\n".join(["time,a,b", *rows, ""]), encoding="utf-8")
    asked = {"paths": [str(path)], "time_unit": "s", "channels": ["a", "b"]} | data
    return load_history(TrainSettings.model_validate({"name": "x", "data": asked, "model": {"mode": mode}}))


TOO_LITTLE = ["too little to train on", "expected a stream with 32 samples", "more history"]
UNUSABLE = {
    "3 samples": (WAVES[:3], ["1 streams, the longest of 3 samples; left out: too_short 1"]),
    "all missing": ([f"{t},," for t in range(200)], ["0 streams", "nothing_observed 200"]),
    "one time for all": ([f"5,{t},1" for t in range(200)], ["duplicate 199", "is data.time the right column"]),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_too_little_is_told_with_what_was_left_out(tmp_path: Path, name: str) -> None:
    """The message names the file, how much there is, why the rest was left out, and what to look at."""
    rows, words = UNUSABLE[name]
    with pytest.raises(InputError) as caught:
        history(tmp_path, rows)
    assert [word for word in ["pumps.csv", *TOO_LITTLE, *words] if word not in str(caught.value)] == []


def test_a_channel_that_is_never_there_is_refused(tmp_path: Path) -> None:
    """A fixed bundle would judge a channel of which nothing is known; one for any channels learns from the others."""
    rows = [row.rpartition(",")[0] + "," for row in WAVES]
    with pytest.raises(InputError, match=r"channel b: expected a value in some stream, got none \(leave it out"):
        history(tmp_path, rows, mode="fixed")
    assert len(history(tmp_path, rows).series) == 1


@pytest.mark.parametrize(("key", "value"), [("channels", ["a", "z"]), ("time", "when"), ("stream", "pump")])
def test_a_column_that_is_not_there_is_named(tmp_path: Path, key: str, value: object) -> None:
    """The message names the file, the column, and the columns that there are."""
    with pytest.raises(InputError, match=r"pumps\.csv: column '\w+' is missing: expected one of time, a, b"):
        history(tmp_path, WAVES, **{key: value})


@pytest.mark.parametrize("mode", ["any", "fixed"])
@pytest.mark.parametrize("rows", [WAVES, [f"{t},5,5" for t in range(200)]], ids=["one stream", "constant"])
def test_what_is_dull_is_trained_on(tmp_path: Path, rows: Sequence[str], mode: str) -> None:
    """One stream alone is enough, and one on which nothing ever happens is no trouble: losses stay finite."""
    found = history(tmp_path, rows, mode)
    made = detector(mode=mode, channels=2)
    settings = TrainSettings.model_validate({"name": "x", "data": {"plant": {}}, "fit": {"epochs": 1}}).fit
    fitted = fit(made, found.series, "UTC", settings, Progress.silent())
    assert 0 <= fitted.best.validation_loss < 10


EXCLUSIVE = {
    "{bptt: full, back: 128}": "expected back or bptt: full, got both (back: 128); leave one out",
    "{back: 100}": "expected back to be a multiple of chunk (64), got 100",
    "{optimiser: sgd, weight_decay: 0.1}": "expected weight_decay with adamw alone, got it with sgd; use l2 instead",
    "{momentum: 0.9}": "expected momentum with sgd or rmsprop, got it with adamw, which has its own",
    "{precision: bfloat16}": "expected precision: bfloat16 with device: cuda, got it with cpu; leave precision out",
    "{schedul: step}": "fit.schedul: expected a known key, got 'schedul' (did you mean schedule?)",
}


@pytest.mark.parametrize("fit_section", EXCLUSIVE)
def test_keys_that_exclude_each_other_are_refused(tmp_path: Path, fit_section: str) -> None:
    """Before any data is read, with file and line, both keys, and which to leave out."""
    path = tmp_path / "train.yaml"
    path.write_text(f"name: a\ndata: {{plant: {{}}}}\nfit: {fit_section}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert "train.yaml:3: fit" in str(caught.value)
    assert EXCLUSIVE[fit_section] in str(caught.value)
