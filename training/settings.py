"""What `tidewarden train` is told: one YAML file, checked before any data is read.

    tidewarden train -c configs/train/pumps.yaml --set fit.epochs=5

The docstring under a key is its documentation; docs/training.md lists the same keys. Unknown keys are refused with the
nearest known one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from detector.errors import ConfigurationError
from detector.settings_faults import configuration_error
from detector.settings_input import read

Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
Count: TypeAlias = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class PlantData(_Section):
    """The synthetic plant of `tidewarden demo`, in normal operation: no faults."""

    streams: Count = 50
    """Pumps."""
    hours: Positive = 12.0
    """How much of the plant's time."""
    seed: int = 1
    """Another seed gives other pumps; the demo's own is 7."""


class SyntheticData(_Section):
    """Streams from our own generators, so that a detector for any channels has seen more than pumps."""

    streams: Count = 256
    """How many."""
    samples: Annotated[int, Field(ge=200)] = 4000
    """Samples of each."""
    channels: Count = 4
    """Most channels of a stream."""
    seed: int = 1
    """The same seed gives the same streams."""


class DataSettings(_Section):
    """Where history comes from: files, the demo's plant, generators, or several of them."""

    paths: list[str] = []
    """CSV or Parquet files, or globs."""
    time: str | None = None
    """Column with the event time; found by itself when named time, timestamp, ts, date or datetime. Without one, row
    number times `period_s`."""
    time_unit: Literal["s", "ms", "us", "ns", "iso8601"] | None = None
    """Unit of a number in the time column since 1970; text is ISO 8601 and needs none."""
    stream: str | None = None
    """Column with the stream's key; null makes each file a stream."""
    channels: Annotated[list[str], Field(min_length=1)] | None = None
    """Columns that are channels, in the bundle's order; null takes every numeric column left."""
    units: dict[str, str] = {}
    """Unit of each channel, for people."""
    period_s: Positive | None = None
    """Nominal seconds between samples; null measures it, and a bundle of any channels stays open to all periods."""
    time_zone: str = "UTC"
    """Time zone of the plant, for time of day and day of week."""
    plant: PlantData | None = None
    """Streams of the demo's plant."""
    synthetic: SyntheticData | None = None
    """Streams of our own generators."""

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"expected a time zone such as Europe/Vienna, got {name!r}") from None
        return name

    @model_validator(mode="after")
    def _some_data(self) -> DataSettings:
        if not self.paths and self.plant is None and self.synthetic is None:
            raise ValueError("expected paths, plant or synthetic: there is nothing to learn from")
        return self


class ModelSettings(_Section):
    """The forecaster and what the detector around it needs to know."""

    mode: Literal["any", "fixed"] = "any"
    """any: weights shared by the channels, serves any number of them; fixed: a joint forecaster of named channels."""
    profile: Literal["light", "full"] = "full"
    """How much evidence is kept: light, 24 numbers of each channel; full, 48 more of each stream."""
    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent cell."""
    layers: Annotated[int, Field(ge=1, le=8)] = 1
    """Cells on top of each other."""
    hidden: Annotated[int, Field(ge=1, le=1024)] = 32
    """Hidden units of each."""
    readout: Annotated[int, Field(ge=0, le=128)] = 0
    """Features of a readout that each stream learns for itself while it runs; 0 is none. For `mode: any`. An
    experiment: forecasts get closer, at 5 KB per channel for 32, and an export may fail its proof of parity."""
    start: str | None = None
    """Where the forecaster's weights start: `default` for the universal bundle's, or the weights.pt of another run;
    null starts from chance. Mode, cell, layers, hidden and readout must be those of the start."""
    warm_up: Annotated[int, Field(ge=8)] = 128
    """Samples of a new stream during which the score is 0."""
    band_level: Annotated[float, Field(gt=0.5, lt=1)] = 0.98
    """The probability that `lower`..`upper` is to hold."""


class FitSettings(_Section):
    """Truncated back-propagation through time."""

    epochs: Annotated[int, Field(ge=0)] = 30
    """Most passes over the data; 0 leaves the weights as they start, and only calibrates and exports."""
    chunk: Annotated[int, Field(ge=2)] = 64
    """T: samples between two cuts of the gradient; the hidden state is carried across."""
    batch: Count = 32
    """Streams trained side by side."""
    learning_rate: Positive = 3e-3
    """Of AdamW at the beginning; it falls to a twentieth over `epochs`, along a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Of AdamW."""
    clip_norm: Positive = 1.0
    """Longest gradient; longer ones are scaled down to it."""
    patience: Count = 5
    """Epochs without a better validation loss before training stops."""
    validation_share: Share = 0.2
    """The last part of each stream's time, never trained on: it stops the training and calibrates the detector."""
    seed: int = 7
    """The same seed on the same machine gives the same weights."""
    threads: Count = 1
    """Threads of torch; more help with hundreds of hidden units. Another number may give other last digits."""


class DecideDefaults(_Section):
    """What the bundle asks for where a configuration says nothing."""

    budget_per_day: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    """False-alarm budget: alarms per stream per day."""


class TrainSettings(_Section):
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
