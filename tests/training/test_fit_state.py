"""Between two epochs: a fall back when a loss stops being finite, and a training that goes on after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import pytest

pytest.importorskip("torch")

import torch

from detector.errors import ConfigurationError, InputError
from tests.waves import changed, detector, trained, waves
from training import run
from training.fit import Epoch, bptt, fit, state
from training.fit.logs import Board
from training.fit.records import DivergedError
from training.folder import reopened, run_folder
from training.graph import Detector
from training.progress import Progress
from training.settings import TrainSettings, dump

VARIED = {
    "default": {},
    "sgd, automatic clipping, a plateau": {
        "optimiser": "sgd",
        "momentum": 0.9,
        "clip": "auto",
        "schedule": "plateau",
        "cycle": 1,
        "learning_rate": 0.05,
    },
    "a warm-up, a curriculum": {"schedule": "one_cycle", "warm_up": 1.5, "curriculum": 3, "padding": 0.1},
}


class PowerCutError(Exception):
    """What a power cut is here."""


def power_cut(after: int) -> object:
    def watch(epoch: Epoch) -> bool:
        if epoch.epoch == after:
            raise PowerCutError
        return False

    return watch


def same(one: Detector, other: Detector) -> bool:
    weights = other.state_dict()
    return all(torch.equal(tensor, weights[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("name", VARIED)
def test_a_training_that_was_interrupted_ends_the_same(tmp_path: Path, name: str) -> None:
    """PowerCutError twice and taken up by another process's detector, weights end as without, to the bit."""
    settings = changed(epochs=4, patience=9, **VARIED[name])
    whole, fitted = trained(settings, streams=3)
    for after in (0, 2):
        with pytest.raises(PowerCutError):
            fit(detector(), waves(3), "UTC", settings, Progress.silent(), folder=tmp_path, watch=power_cut(after))
    torch.manual_seed(99)  # another process begins with other random numbers
    again = detector()
    torch.nn.init.normal_(again.forecaster.head.weight)  # and whatever weights: they come from the folder
    ended = fit(again, waves(3), "UTC", settings, Progress.silent(), folder=tmp_path)
    assert same(again, whole)
    assert [epoch.validation_loss for epoch in ended.epochs] == [epoch.validation_loss for epoch in fitted.epochs]
    assert ended.reach == fitted.reach


def test_a_crash_while_saving_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written half does not take the place of what was whole."""
    with pytest.raises(PowerCutError):
        fit(detector(), waves(2), "UTC", changed(), Progress.silent(), folder=tmp_path, watch=power_cut(1))
    whole = (tmp_path / state.FILE).read_bytes()

    def half(_: object, file: IO[bytes]) -> None:
        file.write(whole[:100])
        raise PowerCutError

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(PowerCutError):
        fit(detector(), waves(2), "UTC", changed(), Progress.silent(), folder=tmp_path)
    assert (tmp_path / state.FILE).read_bytes() == whole


def test_a_run_goes_on_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` with `resume` ends in the folder of the broken run, with the weights of one that was not interrupted."""
    weights = []
    monkeypatch.setattr(run, "_finish", lambda _, made, *__: weights.append(made.state_dict()))
    data, fitted = {"synthetic": {"streams": 2, "samples": 300, "channels": 1}}, {"epochs": 3, "chunk": 16}
    settings = TrainSettings.model_validate(
        {"name": "a", "data": data, "fit": fitted, "model": {"hidden": 4}, "output": str(tmp_path)}
    )
    whole = run.train(settings, Progress.silent())
    with monkeypatch.context() as patched:
        patched.setattr(Board, "__call__", lambda _, epoch: power_cut(2)(epoch))
        with pytest.raises(PowerCutError):
            run.train(settings, Progress.silent())
    (broken,) = tmp_path.glob("*.broken")
    ended = run.train(settings, Progress.silent(), resume=broken)
    assert (ended.name, ended.is_dir(), broken.exists()) == (broken.stem, True, False)
    assert ended != whole
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_what_is_random_goes_on_too(tmp_path: Path) -> None:
    """Dropout draws from torch's generator: it is part of what goes on."""
    settings = changed(epochs=2, patience=9)

    def made() -> Detector:
        return detector(layers=2, dropout=0.5)

    whole = made()
    fit(whole, waves(2), "UTC", settings, Progress.silent())
    with pytest.raises(PowerCutError):
        fit(made(), waves(2), "UTC", settings, Progress.silent(), folder=tmp_path, watch=power_cut(1))
    again = made()
    fit(again, waves(2), "UTC", settings, Progress.silent(), folder=tmp_path)
    assert same(again, whole)


def test_other_data_are_refused(tmp_path: Path) -> None:
    """What was interrupted on some streams does not go on with others; a damaged file is named."""
    with pytest.raises(PowerCutError):
        fit(detector(), waves(2), "UTC", changed(), Progress.silent(), folder=tmp_path, watch=power_cut(1))
    with pytest.raises(InputError, match="is of other data"):
        fit(detector(), waves(3), "UTC", changed(), Progress.silent(), folder=tmp_path)
    (tmp_path / state.FILE).write_bytes(b"half")
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read"):
        fit(detector(), waves(2), "UTC", changed(), Progress.silent(), folder=tmp_path)


def diverging(monkeypatch: pytest.MonkeyPatch, times: int) -> list[float]:
    """Let the loss of the fourth step be no number, so many times; gives the rates of all steps."""
    step, rates = bptt.Bptt._step, []
    left = [times]

    def watched(passes: bptt.Bptt, loss: torch.Tensor, share: float) -> tuple[torch.Tensor, bool]:
        if len(rates) >= 3 and left[0]:
            left[0] -= 1
            loss = loss * float("nan")
        found = step(passes, loss, share)
        rates.append(passes._training.optimiser.param_groups[0]["lr"])
        return found

    monkeypatch.setattr(bptt.Bptt, "_step", watched)
    return rates


def test_training_survives_a_loss_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes back to the last good weights and on at half the rate; nothing of the accident is left in them."""
    rates = diverging(monkeypatch, times=1)
    made, fitted = trained(changed(epochs=2), streams=3)
    assert rates[4] == pytest.approx(rates[0] / 2)
    assert all(tensor.isfinite().all() for tensor in made.state_dict().values())
    assert fitted.best.validation_loss < fitted.epochs[0].validation_loss


def test_a_loss_that_stays_infinite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """After three falls training ends, with an error that names epoch, step, batch and streams."""
    diverging(monkeypatch, times=99)
    with pytest.raises(DivergedError, match=r"epoch 1, step \d+: .* no longer finite, got batch 1: 3 streams, s"):
        trained(changed(epochs=2), streams=3)


def asked(**fitted: object) -> TrainSettings:
    return TrainSettings.model_validate({"name": "a", "data": {"plant": {}}, "fit": fitted})


def interrupted_run(output: Path) -> Path:
    def cut(folder: Path) -> None:
        (folder / "config.yaml").write_text(dump(asked(epochs=3)))
        raise PowerCutError

    with pytest.raises(PowerCutError), run_folder(output, "a") as folder:
        cut(folder)
    (broken,) = output.iterdir()
    return broken


@pytest.mark.parametrize("suffix", ["", ".broken", ".partial"])
def test_a_broken_run_is_taken_up_and_ends_whole(tmp_path: Path, suffix: str) -> None:
    """However the run is named, its folder is opened again, and has its plain name when it is complete."""
    broken = interrupted_run(tmp_path)
    assert (broken.suffix, (broken / "error.txt").exists()) == (".broken", True)
    with reopened(broken.with_suffix(suffix), asked(epochs=3)) as folder:
        assert (folder.suffix, [path.name for path in folder.iterdir()]) == (".partial", ["config.yaml"])
    assert [path.name for path in tmp_path.iterdir()] == [broken.stem]


def test_a_run_goes_on_as_it_began(tmp_path: Path) -> None:
    """Another setting, a complete run and one that is not there are refused by name; the folder stays as it was."""
    broken = interrupted_run(tmp_path)
    with (
        pytest.raises(ConfigurationError, match=r"config\.yaml: fit\.epochs: expected 3, got 4"),
        reopened(broken, asked(epochs=4)),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [broken.name]
    whole = broken.rename(broken.with_suffix(""))
    for named, words in ((whole, "is complete"), (tmp_path / "none", "no such folder")):
        with pytest.raises(InputError, match=words), reopened(named, asked(epochs=3)):
            pass
