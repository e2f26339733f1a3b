"""Which store the settings mean."""

from __future__ import annotations

from detector.checkpoint.base import Store
from detector.checkpoint.store_dir import DirStore
from detector.errors import ConfigurationError
from detector.settings import CheckpointSettings, DirCheckpointSettings


def make_store(settings: CheckpointSettings) -> Store:
    """The store, not yet started."""
    if isinstance(settings, DirCheckpointSettings):
        return DirStore(settings.path)
    raise ConfigurationError("checkpoint", "type", expected="dir", got=settings.type)
