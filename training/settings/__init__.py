"""Settings of the pipeline, a file per section; `train` puts them together and loads them."""

from __future__ import annotations

from training.settings.data import DataSettings
from training.settings.fit import FitSettings
from training.settings.model import ModelSettings
from training.settings.sources import KafkaData, PrometheusData
from training.settings.train import TrainSettings, dump, load

__all__ = [
    "DataSettings",
    "FitSettings",
    "KafkaData",
    "ModelSettings",
    "PrometheusData",
    "TrainSettings",
    "dump",
    "load",
]
