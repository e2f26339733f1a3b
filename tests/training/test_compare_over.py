"""What is compared: keys and values as they are written, and messages for what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from detector.errors import ConfigurationError
from training.cells import CELLS
from training.compare.cli import seconds
from training.compare.over import apply, combine, parse, told
from training.settings import TrainSettings

SETTINGS = TrainSettings.model_validate({"name": "a", "data": {"plant": {}}})


def test_keys_come_with_values_or_get_theirs() -> None:
    """A short name is of the model; words are all tried, numbers come from the table; `--over` may come twice."""
    over = parse(["cell,layers=1,2,hidden=16", "fit.learning_rate", "fit.bptt,residual"])
    assert over["model.cell"] == list(CELLS)
    assert (over["model.layers"], over["model.hidden"]) == ([1, 2], [16])
    assert over["fit.learning_rate"] == [1e-3, 3e-3, 1e-2]
    assert (over["fit.bptt"], over["model.residual"]) == (["truncated", "full"], [False, True])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hiden=3"], "hiden: expected a key .* got 'hiden' .did you mean model.hidden"),
        (["learning_rate"], "did you mean fit.learning_rate"),
        (["data.time=a"], "data.time: expected a key of model or fit"),
        (["fit.validation_share=0.2,0.5"], "expected a key of model or fit"),
        (["hidden=8", "model.hidden=16"], "model.hidden: expected each key once"),
        (["hidden=8,8"], "model.hidden: expected each value once"),
        (["start"], "model.start: expected its values"),
        ([""], "nothing to compare"),
    ],
)
def test_a_wrong_key_is_named(words: list[str], message: str) -> None:
    """The message says what was expected, what was got, and the nearest key that is known."""
    with pytest.raises(ConfigurationError, match=message):
        parse(words)


def test_what_cannot_be_built_is_left_out_with_its_reason() -> None:
    """A combination that the configuration refuses costs no other; a shape that has no cell is tried once."""
    grid = combine(SETTINGS, parse(["shape=stack,window", "cell=gru,lstm"]))
    assert [told(values) for values in grid.candidates] == ["stack, gru", "stack, lstm", "window"]
    (left_out,) = grid.left_out
    assert left_out.values == {"model.shape": "window", "model.cell": "lstm"}
    assert "shape window does not use it" in left_out.reason


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cell=gruu,gru"], "model.cell=gruu: .*one of gru"),
        (["fit.bptt", "fit.back=128"], "fit.bptt=full: .*got both"),
        (["hidden=0,8"], "model.hidden=0: .*greater than or equal to 1"),
        (["cell=gru"], "two candidates at least"),
    ],
)
def test_values_that_never_go_are_refused(words: list[str], message: str) -> None:
    """A value that no combination takes, keys that exclude each other, and a single candidate are errors."""
    with pytest.raises(ConfigurationError, match=message):
        combine(SETTINGS, parse(words))


def test_a_candidate_is_the_configuration_with_its_values() -> None:
    """Everything else stays as it was."""
    made = apply(SETTINGS, {"model.cell": "lstm", "fit.chunk": 32})
    assert (made.model.cell, made.fit.chunk) == ("lstm", 32)
    assert made.model_copy(update={"model": SETTINGS.model, "fit": SETTINGS.fit}) == SETTINGS


def test_a_budget_is_a_duration() -> None:
    """Seconds, minutes, hours; anything else is refused."""
    assert [seconds(text) for text in ("90s", "30m", "1.5h", "2min")] == [90, 1800, 5400, 120]
    for text in ("30", "soon", "0s", "-3m"):
        with pytest.raises(ConfigurationError, match="--budget"):
            seconds(text)


def test_no_example_is_needed_to_see_what_is_wrong(tmp_path: Path) -> None:
    """The command says what it needs, and leaves nothing behind."""
    from typer.testing import CliRunner

    from detector.cli import app

    config = tmp_path / "a.yaml"
    config.write_text("name: a\ndata: {plant: {}}\n")
    for words in (["--over", "cell"], ["-c", str(config)], ["-c", str(config), "--resume", str(tmp_path)]):
        called = CliRunner().invoke(app, ["compare", *words, "--output", str(tmp_path)])
        assert called.exit_code != 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]
