"""The sections put together, and read: the file below the environment, the environment below the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from detector.settings.base import Name
from detector.settings.checkpoint import CheckpointSettings, DirCheckpointSettings
from detector.settings.detectors import DetectorSettings
from detector.settings.faults import configuration_error
from detector.settings.input import DELIMITER, PREFIX, read, variables
from detector.settings.process import EngineSettings, HttpSettings, LogSettings
from detector.settings.sinks import SinksSettings
from detector.settings.sources import SourceSettings


class Settings(BaseSettings):
    """Everything `tidewarden run` does."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        extra="forbid",
        use_attribute_docstrings=True,
        frozen=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Hear the caller alone: the environment speaks through `load`, so that it can't sway a test."""
        return (init_settings,)

    sources: Annotated[dict[Name, SourceSettings], Field(min_length=1)]
    """Where samples come from."""
    detectors: Annotated[dict[Name, DetectorSettings], Field(min_length=1)] = {"default": DetectorSettings()}
    """What watches them; a stream goes to the first that matches."""
    sinks: SinksSettings = SinksSettings()
    """Where results go."""
    checkpoint: CheckpointSettings = DirCheckpointSettings()
    """Where memory is kept."""
    engine: EngineSettings = EngineSettings()
    """Bounds of the hot path."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes a GPU where onnxruntime-gpu finds one. A device that is asked for and missing
    is an error."""
    http: HttpSettings = HttpSettings()
    """Metrics, health, status."""
    log: LogSettings = LogSettings()
    """Logging."""

    @model_validator(mode="after")
    def _silent_before_forgotten(self) -> Settings:
        forget_s = self.engine.forget_after_s
        for name, detector in self.detectors.items():
            if forget_s is not None and forget_s <= detector.decide.resolve_after_s:
                raise ValueError(
                    f"expected engine.forget_after_s above detectors.{name}.decide.resolve_after_s "
                    f"({detector.decide.resolve_after_s:g}), for an anomaly's silence is told before its stream is "
                    f"forgotten; got {forget_s:g}"
                )
        return self


def load(path: Path | str | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the configuration: defaults, below the file, below the environment, below `overrides` (nested maps).

    Relative paths in it are relative to the working directory.

    Args:
        path: The YAML file; None for the environment alone.
        overrides: What the command line says.

    Raises:
        ConfigurationError: Something is wrong; the message tells all of it.
    """
    document = read(None if path is None else Path(path))
    environment = variables(os.environ, document, frozenset(Settings.model_fields))
    layers = (dict(overrides or {}), environment, document.content)

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: object, **__: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, layer) for layer in layers)

    try:
        return Settings.model_construct(**dict(Layered()))
    except ValidationError as error:
        raise configuration_error(error.errors(), Settings.model_json_schema(), document) from None
