"""Which store the settings mean. The client of object storage is an extra, imported where it is asked for."""

from __future__ import annotations

from detector.checkpoint.base import Store
from detector.checkpoint.stores.dir import DirStore
from detector.checkpoint.stores.kafka import KafkaStore
from detector.settings import (
    CheckpointSettings,
    DirCheckpointSettings,
    KafkaCheckpointSettings,
    ObjectCheckpointSettings,
)


def make_store(settings: CheckpointSettings) -> Store:
    """The store, not yet started.

    Raises:
        ConfigurationError: Its settings cannot be used.
        ModuleNotFoundError: The client of object storage is not installed; the command line says which extra brings it.
    """
    match settings:
        case DirCheckpointSettings():
            return DirStore(settings.path)
        case KafkaCheckpointSettings():
            return KafkaStore(settings)
        case ObjectCheckpointSettings():
            from detector.checkpoint.stores.object import ObjectStore

            return ObjectStore(settings)
