"""A detector and what the engine works out from it once: how to decide, which clock, which streams."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.alerts import Message, to_alert
from detector.errors import ConfigurationError
from detector.model.bundle import Bundle
from detector.records import Alert, Float64, Shard
from detector.settings import DetectorSettings
from detector.stages.decide import Policy, initial_decide
from detector.stages.infer import Model, WallClock
from detector.stages.route import Claim
from detector.state.arena import Arena

_GAP_PERIODS = 5  # an elapsed of more counts as a gap


@dataclass(frozen=True, slots=True)
class Detector:
    """A bundle ready to run, with the streams it takes and how it decides."""

    name: str
    settings: DetectorSettings
    bundle: Bundle
    session: Model


class Lane:
    """What the engine needs of a detector, worked out once."""

    def __init__(self, detector: Detector, *, is_narrow: bool = False) -> None:
        settings, bundle = detector.settings, detector.bundle
        self._is_narrow = is_narrow
        self.detector, self.model = detector, detector.session
        self.policy = Policy.of(settings.decide, bundle)
        self.clock = WallClock(settings.time_zone)
        channels = declared_channels(detector)
        if bundle.channels is not None and channels is not None and len(channels) != len(bundle.channels):
            raise ConfigurationError(
                f"detectors.{detector.name}.channels",
                "number of channels",
                expected=f"{len(bundle.channels)} ({', '.join(bundle.channels)})",
                got=len(channels),
            )
        self.claim = Claim(settings.match, channels, self._new_arena)

    def _new_arena(self, channels: tuple[str, ...]) -> Arena:
        bundle = self.detector.bundle
        row = bundle.initial_row(len(channels))
        decide = initial_decide(self.policy, 1)
        return Arena(self.detector.name, bundle.sha256, channels, row, decide, is_narrow=self._is_narrow)

    def gaps(self, elapsed_s: Float64, mean_s: Float64) -> int:
        """How many samples came after a gap, by the bundle's period or else the stream's own mean elapsed."""
        period_s = mean_s if self.detector.bundle.period_s is None else self.detector.bundle.period_s
        return int(np.count_nonzero(elapsed_s > _GAP_PERIODS * period_s))

    def alert(self, message: Message, shard: Shard, arena: Arena) -> Alert:
        """Put names to what `decide` says."""
        return to_alert(
            message,
            shard=shard,
            stream=arena.streams[message.slot],
            labels=arena.labels[message.slot],
            detector=self.detector.name,
            bundle_label=self.detector.bundle.label,
            channels=arena.channels,
        )


def declared_channels(detector: Detector) -> tuple[str, ...] | None:
    """The channels of its streams, by the configuration or the bundle; None: those of a stream's first sample."""
    channels = detector.settings.channels
    return detector.bundle.channels if channels is None else tuple(channels)


def require_channels(detectors: Sequence[Detector], where: str, topics: Sequence[str] | None) -> None:
    """Refuse to join narrow records where nothing says which channels make a sample.

    Args:
        detectors: Those that may take the streams.
        where: Whose records they are, for the message.
        topics: What can be read there, so that a detector of other topics need not declare any; None: not known yet.

    Raises:
        ConfigurationError: A detector declares no channels, nor does its bundle.
    """
    for detector in detectors:
        takes = detector.settings.match.topic
        is_asked = takes is None or (topics is not None and any(re.fullmatch(takes, topic) for topic in topics))
        if is_asked and declared_channels(detector) is None:
            raise ConfigurationError(
                f"detectors.{detector.name}.channels",
                f"needed for the narrow records of {where}",
                expected="the channels that make a sample",
                got="none, and the bundle takes any",
                hint="list them, such as channels: [flow, pressure]; or match a detector that does by topic",
            )
