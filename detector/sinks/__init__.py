"""Edges that alerts, scores and dead letters go to."""

from __future__ import annotations

from detector.settings import FileSinkSettings, KafkaSinkSettings, SinkSettings
from detector.sinks.base import Sink


def make_sink(name: str, settings: SinkSettings) -> Sink:
    """Build the sink that the settings describe; it connects when it is started.

    An edge's client is imported with its edge: who writes to files needs no Kafka.
    """
    if isinstance(settings, KafkaSinkSettings):
        from detector.sinks.kafka import KafkaSink

        return KafkaSink(name, settings)
    if isinstance(settings, FileSinkSettings):
        from detector.sinks.file import FileSink

        return FileSink(name, settings)
    from detector.sinks.stdout import StdoutSink

    return StdoutSink(name)
