"""A detector and what the engine works out from it once: how to decide, which clock, which streams, what to tell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detector.alerts import Message, to_alert
from detector.bundles import in_the_box
from detector.engine.freezing import Freezing
from detector.errors import ConfigurationError
from detector.model.bundle import Bundle
from detector.model.further import LEARNING, ROLE, ROLES, Repeated
from detector.records import Alert, Float32, Float64, Int64, Shard
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

    def __post_init__(self) -> None:
        """See that the bundle can do what the settings ask of it.

        Raises:
            ConfigurationError: It cannot.
        """
        _check_inputs(self)
        _check_roles(self)


class Lane:
    """What the engine needs of a detector, worked out once."""

    def __init__(self, detector: Detector, shard: Shard, *, is_narrow: bool = False) -> None:
        settings, bundle = detector.settings, detector.bundle
        self._is_narrow = is_narrow
        self.detector, self.model = detector, detector.session
        self.policy = Policy.of(settings.decide, bundle)
        self.clock = WallClock(settings.time_zone)
        self.freezing = Freezing(settings.freeze, shard) if settings.freeze else None
        self._roles: dict[tuple[str, ...], Repeated | None] = {}
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

    def further(self, arena: Arena, slots: Int64, positions: Int64, event_ns: Int64) -> Mapping[str, Float32]:
        """What the configuration says of a wave's samples beside them; mostly nothing."""
        said: dict[str, Float32] = {}
        if self.detector.settings.roles and (roles := self._roles_of(arena.channels)) is not None:
            said[ROLE] = roles.rows(len(slots))
        if self.freezing is not None:
            learning = self.freezing.learning(arena, slots, positions, event_ns)
            if learning is not None:
                said[LEARNING] = learning
        return said

    def _roles_of(self, channels: tuple[str, ...]) -> Repeated | None:
        """The roles of an arena's channels; None where the configuration names none of them."""
        if channels not in self._roles:
            said = self.detector.settings.roles
            row = np.array([ROLES[said.get(channel, "auto")] for channel in channels], np.float32)
            self._roles[channels] = Repeated(row) if row.any() else None
        return self._roles[channels]

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


def _check_inputs(detector: Detector) -> None:
    """Refuse what the bundle's graph has no input for."""
    settings, bundle = detector.settings, detector.bundle
    asked = {"roles": (settings.roles, ROLE), "freeze": (settings.freeze, LEARNING)}
    for key, (setting, needed) in asked.items():
        if setting and needed not in bundle.inputs:
            raise ConfigurationError(
                f"detectors.{detector.name}.{key}",
                f"{bundle.label} cannot follow it",
                expected=f"a bundle with the input {needed!r}",
                got=f"one with {', '.join(map(repr, bundle.inputs)) or 'no further inputs'}",
                hint=f"take one in the box ({', '.join(in_the_box())}), or export it again with this version",
            )


def _check_roles(detector: Detector) -> None:
    """Refuse roles that are nobody's, and those that leave nothing to judge by, where the channels are known."""
    roles, channels = detector.settings.roles, declared_channels(detector)
    if not roles or channels is None:
        return
    where = f"detectors.{detector.name}.roles"
    if unknown := [channel for channel in roles if channel not in channels]:
        raise ConfigurationError(where, "channel", expected=f"one of {', '.join(channels)}", got=unknown[0])
    if all(roles.get(channel) == "context" for channel in channels):
        expected = "at least one channel that is a target, or auto"
        raise ConfigurationError(where, "nothing is left to judge by", expected=expected, got="context for all")


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
