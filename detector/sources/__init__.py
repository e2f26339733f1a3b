"""Edges that samples come from."""

from __future__ import annotations

from detector.clock import Clock, SystemClock
from detector.settings import FileSourceSettings, KafkaSourceSettings, SourceSettings
from detector.sources.base import Source


def make_source(name: str, settings: SourceSettings, clock: Clock | None = None) -> Source:
    """Build the source that the settings describe; it connects when it is started.

    An edge's client is imported with its edge: who reads files needs no Kafka.
    """
    if isinstance(settings, KafkaSourceSettings):
        from detector.sources.kafka import KafkaSource

        return KafkaSource(name, settings, clock)
    if isinstance(settings, FileSourceSettings):
        from detector.sources.file import FileSource

        return FileSource(name, settings, clock or SystemClock())
    from detector.sources.plant import PlantSource

    return PlantSource(name, settings, clock or SystemClock())
