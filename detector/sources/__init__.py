"""Edges that samples come from."""

from __future__ import annotations

from detector.clock import Clock
from detector.settings import FileSourceSettings, KafkaSourceSettings, PlantSourceSettings
from detector.sources.base import Source


def make_source(
    name: str, settings: KafkaSourceSettings | FileSourceSettings | PlantSourceSettings, clock: Clock
) -> Source:
    """Build the source that the settings describe; it connects when it is started.

    An edge's client is imported with its edge: who reads files needs no Kafka.
    """
    if isinstance(settings, KafkaSourceSettings):
        from detector.sources.kafka import KafkaSource

        return KafkaSource(name, settings)
    if isinstance(settings, PlantSourceSettings):
        from detector.sources.plant import PlantSource

        return PlantSource(name, settings, clock)
    from detector.sources.file import FileSource

    return FileSource(name, settings, clock)
