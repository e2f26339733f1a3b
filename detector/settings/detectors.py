"""`detectors`: what watches the streams, which of them, and when scores become an anomaly."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detector.settings.base import Seconds, Section
from detector.settings.checks import Edge, Regex, TimeZone, is_glob


class MatchSettings(Section):
    """Which streams a detector takes; every condition given must hold."""

    topic: Regex | None = None
    """Regular expression for the whole topic (or path)."""
    stream: Regex | None = None
    """Regular expression for the whole stream key."""
    labels: dict[str, Regex] = {}
    """Label name to regular expression for its whole value."""


class DecideSettings(Section):
    """How scores become anomalies. Null takes the bundle's own default."""

    budget_per_day: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """False-alarm budget: alarms per stream per day; sets the threshold from the stream's own sample rate."""
    threshold_nines: Annotated[float, Field(gt=0, le=30)] | None = None
    """A fixed threshold instead of the budget."""
    min_samples: Annotated[int, Field(ge=1)] = 1
    """Strange samples in a row before an anomaly fires."""
    hysteresis_nines: Annotated[float, Field(ge=0)] = 1.0
    """How far below the threshold a score must fall to count as low."""
    resolve_samples: Annotated[int, Field(ge=1)] = 3
    """Low samples in a row before an anomaly closes."""
    resolve_after_s: Seconds = 900.0
    """Silence after which an open anomaly is reported as resolved, reason silent."""
    adapt_after_s: Seconds = 14_400.0
    """How long an anomaly stays open whose score is low again but whose values stay outside the band."""
    update_every_s: Seconds = 900.0
    """An open anomaly is updated at least so often, in the stream's own event time."""
    cool_down_s: Seconds = 300.0
    """After a close, so long no new anomaly of the stream fires, in event time."""

    @model_validator(mode="after")
    def _one_threshold(self) -> DecideSettings:
        if self.budget_per_day is not None and self.threshold_nines is not None:
            raise ValueError("expected budget_per_day or threshold_nines, got both")
        return self


class FreezeSettings(Section):
    """Streams that learn nothing for a while, but are scored all the same.

    It is in force for their samples at or past `from` and before `until`, by the record alone.
    """

    stream: str
    """The stream's key, or a glob such as `pump-*`."""
    topic: str | None = None
    """Only in this topic (or path)."""
    partition: int | None = None
    """Only in this partition; a file has one, 0."""
    begin: Edge = Field(alias="from")
    """An offset such as 123456, or an event time such as 2026-11-21T08:00Z. An offset counts in one shard: it needs
    `topic` and `partition`, or a stream without wildcards."""
    until: Edge | None = None
    """The first that is free again, offset or event time; null for good."""

    @property
    def has_offset(self) -> bool:
        """Whether it goes by offset, on either side."""
        return isinstance(self.begin, int) or isinstance(self.until, int)

    @model_validator(mode="after")
    def _offsets_name_their_shard(self) -> FreezeSettings:
        if self.has_offset and is_glob(self.stream) and (self.topic is None or self.partition is None):
            raise ValueError(
                "expected topic and partition, or a stream without wildcards, beside an offset, for it counts in one "
                f"shard; got stream {self.stream!r}"
            )
        if type(self.begin) is type(self.until) and self.until <= self.begin:  # type: ignore[operator]  # of one type
            raise ValueError(f"expected until after from, got {self.until} after {self.begin}")
        return self


class DetectorSettings(Section):
    """A bundle, the streams it watches, and how it decides."""

    bundle: str = "default"
    """Path of a bundle, or the name of one in the box, which take any number of channels: `default`, `light`."""
    match: MatchSettings = MatchSettings()
    """Which streams it takes."""
    channels: list[str] | None = None
    """Channels in the bundle's order; null takes the bundle's own names or, for a bundle of any channels, those of a
    stream's first sample."""
    roles: dict[str, Literal["target", "context", "auto"]] = {}
    """Which channels a stream is judged by (target) and which only tell what else goes on (context), such as a command
    or a set point; channels that are not named are auto: the bundle finds out."""
    freeze: list[FreezeSettings] = []
    """Streams whose learning rests, and from when."""
    time_zone: TimeZone = "UTC"
    """Time zone of the plant, for time of day and day of week."""
    decide: DecideSettings = DecideSettings()
    """How scores become anomalies."""
