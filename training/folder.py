"""The folder that a run leaves: whole, or under a name that says that it is not.

    runs/pumps-20261121-131500.partial    while it is made
    runs/pumps-20261121-131500.broken     when it could not be finished; error.txt tells why
    runs/pumps-20261121-131500            when it is complete

One that is not complete can be taken up again: `train --resume`.
"""

from __future__ import annotations

import glob
import itertools
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from detector.errors import ConfigurationError, InputError
from training.settings import TrainSettings, load

CONFIG = "config.yaml"
_ERROR = "error.txt"
_OPEN = (".partial", ".broken")


@contextmanager
def run_folder(output: Path, name: str) -> Iterator[Path]:
    """Make a folder that carries its plain name only once it is complete."""
    path = _unused(output, f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    partial = path.with_name(path.name + ".partial")
    partial.mkdir(parents=True)
    with _guarded(partial, path):
        yield partial


@contextmanager
def reopened(run: Path, settings: TrainSettings) -> Iterator[Path]:
    """Take up a folder that is not complete.

    Args:
        run: The folder, with or without what its name says of its state.
        settings: What is asked for now; the same as when the run began, but for `output`.

    Raises:
        InputError: there is no such folder, or it is complete.
        ConfigurationError: another setting differs.
    """
    found = _incomplete(run)
    _check_same(found / CONFIG, settings)
    path = found.with_suffix("")
    partial = found.rename(path.with_name(path.name + ".partial"))
    (partial / _ERROR).unlink(missing_ok=True)
    with _guarded(partial, path):
        yield partial


@contextmanager
def _guarded(partial: Path, path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:  # also Ctrl-C: whatever ended it, the folder says so
        (partial / _ERROR).write_text(traceback.format_exc(), encoding="utf-8")
        partial.rename(path.with_name(path.name + ".broken"))
        raise
    partial.rename(path)


def _unused(output: Path, name: str) -> Path:
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(output / one for one in names if not any(output.glob(f"{glob.escape(one)}*")))


def _incomplete(run: Path) -> Path:
    plain = run.with_suffix("") if run.suffix in _OPEN else run
    for suffix in _OPEN:
        if (found := plain.with_name(plain.name + suffix)).is_dir():
            return found
    expected = "a run folder *.partial or *.broken"
    if plain.is_dir():
        raise InputError(run, "is complete", expected=expected, hint="to train on, name its weights as model.start")
    raise InputError(run, "no such folder", expected=expected)


def _check_same(path: Path, settings: TrainSettings) -> None:
    began, now = (_flat(one.model_dump(mode="json")) for one in (load(path), settings))
    for key in sorted(began.keys() | now.keys()):
        if key != "output" and began.get(key) != now.get(key):
            hint = "a run goes on as it began; train anew for another"
            raise ConfigurationError(path, key, expected=began.get(key), got=now.get(key), hint=hint)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every key with its section: fit.epochs."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = _flat(value) if isinstance(value, dict) else {}
        flat |= {f"{key}.{name}": one for name, one in inner.items()} or {key: value}
    return flat
