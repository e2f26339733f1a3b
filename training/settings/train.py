"""What `tidewarden train` is told: one YAML file, checked before any data is read.

    tidewarden train -c configs/train/pumps.yaml --set fit.epochs=5

The docstring under a key is its documentation; docs/training.md lists the same keys. Unknown keys are refused with the
nearest known one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from detector.errors import ConfigurationError
from detector.settings.faults import configuration_error
from detector.settings.input import read
from training.settings.base import Section
from training.settings.data import DataSettings
from training.settings.fit import FitSettings
from training.settings.model import ModelSettings


class DecideDefaults(Section):
    """What the bundle asks for where a configuration says nothing."""

    budget_per_day: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    """False-alarm budget: alarms per stream per day."""


class TrainSettings(Section):
    """Everything `tidewarden train` does."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=64)]
    """Name of the bundle; alerts carry name@version."""
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=64)] = "1"
    """Version of the bundle."""
    description: str = ""
    """A sentence for people, kept in the bundle."""
    data: DataSettings
    """What to learn from."""
    model: ModelSettings = ModelSettings()
    """What learns."""
    fit: FitSettings = FitSettings()
    """How."""
    decide: DecideDefaults = DecideDefaults()
    """Defaults for the daemon."""
    output: Path = Path("runs")
    """Folder in which the run folder is made."""


def load(path: Path, overrides: Sequence[str] = ()) -> TrainSettings:
    """Read and check a configuration.

    Args:
        path: YAML file.
        overrides: `key=value` pairs such as `fit.epochs=5`; the value is read as YAML.

    Raises:
        ConfigurationError: naming file, line, key, what was expected and what was found.
    """
    document = read(path)
    for override in overrides:
        _override(document.content, override)
    try:
        return TrainSettings.model_validate(document.content)
    except ValidationError as error:
        raise configuration_error(error.errors(), TrainSettings.model_json_schema(), document) from None


def dump(settings: TrainSettings) -> str:
    """The resolved configuration as YAML, every default written out; `load` takes it back."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _override(document: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not key or not sign:
        raise ConfigurationError("--set", override, expected="key=value, such as fit.epochs=5")
    *parents, last = key.split(".")
    section = document
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise ConfigurationError("--set", key, expected=f"{parent} to be a section", got=section)
    section[last] = yaml.safe_load(text)
