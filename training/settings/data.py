"""Where history comes from."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from training.settings.base import Count, Positive, Section
from training.settings.sources import KafkaData, PrometheusData


class PlantData(Section):
    """The synthetic plant of `tidewarden demo`, in normal operation: no faults."""

    streams: Count = 50
    """Pumps."""
    hours: Positive = 12.0
    """How much of the plant's time."""
    seed: int = 1
    """Another seed gives other pumps; the demo's own is 7."""


class SyntheticData(Section):
    """Streams from our own generators, so that a detector for any channels has seen more than pumps."""

    streams: Count = 256
    """How many."""
    samples: Annotated[int, Field(ge=200)] = 4000
    """Samples of each."""
    channels: Count = 4
    """Most channels of a stream."""
    seed: int = 1
    """The same seed gives the same streams."""


class DataSettings(Section):
    """Where history comes from: files, Prometheus, Kafka, the demo's plant, generators, or several of them."""

    paths: list[str] = Field(default_factory=list)
    """CSV or Parquet files, or globs."""
    time: str | None = None
    """Column with the event time; found by itself when named time, timestamp, ts, date or datetime. Without one, row
    number times `period_s`."""
    time_unit: Literal["s", "ms", "us", "ns", "iso8601"] | None = None
    """Unit of a number in the time column since 1970; text is ISO 8601 and needs none."""
    stream: str | None = None
    """Column with the stream's key; null makes each file a stream."""
    channels: Annotated[list[str], Field(min_length=1)] | None = None
    """Columns (of Kafka: fields) that are channels, in the bundle's order; null takes every numeric one left."""
    units: dict[str, str] = Field(default_factory=dict)
    """Unit of each channel, for people."""
    period_s: Positive | None = None
    """Nominal seconds between samples; null measures it, and a bundle of any channels stays open to all periods."""
    memory_mb: Count = 512
    """How much history stays in memory, where training makes about nine times as much of it. More goes to a temporary
    file in the output folder; its parts are read, and standardised each by itself, as their turn comes."""
    time_zone: str = "UTC"
    """Time zone of the plant, for time of day and day of week."""
    prometheus: PrometheusData | None = None
    """A range query."""
    kafka: KafkaData | None = None
    """What topics hold."""
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
        if not self.paths and not any((self.prometheus, self.kafka, self.plant, self.synthetic)):
            raise ValueError("expected paths, prometheus, kafka, plant or synthetic: there is nothing to learn from")
        return self
