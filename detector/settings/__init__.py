"""The whole configuration: one YAML file, overridden by `TIDEWARDEN_` variables, nothing else; a file per section.

    TIDEWARDEN_SOURCES__PLANT__BOOTSTRAP_SERVERS=broker:9092 tidewarden run -c kafka.yaml

Sources, detectors and sinks are maps by name, so that a variable can reach into each of them; their order in the file
is kept and a stream goes to the first detector that matches. Unknown keys are refused with the nearest known one.
The docstring under a field is its documentation: the reference in docs/ and `tidewarden schema` are made from it.
"""

from __future__ import annotations

from detector.settings.checkpoint import (
    CheckpointSettings,
    DirCheckpointSettings,
    KafkaCheckpointSettings,
    ObjectCheckpointSettings,
)
from detector.settings.checks import Keep, is_glob, parse_history, parse_ordinal, parse_partitions
from detector.settings.daemon import Settings, load
from detector.settings.detectors import DecideSettings, DetectorSettings, FreezeSettings, MatchSettings
from detector.settings.kafka import KafkaClientSettings
from detector.settings.process import EngineSettings, HttpSettings, LogSettings
from detector.settings.record import RecordSettings
from detector.settings.sinks import FileSinkSettings, KafkaSinkSettings, SinkSettings, SinksSettings, StdoutSinkSettings
from detector.settings.sources import FileSourceSettings, KafkaSourceSettings, PlantSourceSettings, SourceSettings

__all__ = [
    "CheckpointSettings",
    "DecideSettings",
    "DetectorSettings",
    "DirCheckpointSettings",
    "EngineSettings",
    "FileSinkSettings",
    "FileSourceSettings",
    "FreezeSettings",
    "HttpSettings",
    "KafkaCheckpointSettings",
    "KafkaClientSettings",
    "KafkaSinkSettings",
    "KafkaSourceSettings",
    "Keep",
    "LogSettings",
    "MatchSettings",
    "ObjectCheckpointSettings",
    "PlantSourceSettings",
    "RecordSettings",
    "Settings",
    "SinkSettings",
    "SinksSettings",
    "SourceSettings",
    "StdoutSinkSettings",
    "is_glob",
    "load",
    "parse_history",
    "parse_ordinal",
    "parse_partitions",
]
