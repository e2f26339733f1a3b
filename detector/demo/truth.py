"""What the plant's faults and the daemon's alerts have to do with each other.

An anomaly that fires on a fault's pump, from the fault's start to a little after its end, has found that fault. Any
other anomaly is a false alarm, however odd the data may have looked. Several anomalies may belong to one fault; the
first counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median

from detector.demo.plant import Fault, Plant
from detector.records import Alert

GRACE_S = 900.0
"""So long after its end a fault may still be found: the way back to normal is part of it."""


@dataclass(slots=True)
class Tally:
    """How the faults of one kind fared."""

    kind: str
    known: int = 0
    delays_s: list[float] = field(default_factory=list)

    @property
    def found(self) -> int:
        """Faults found."""
        return len(self.delays_s)

    @property
    def delay_s(self) -> float | None:
        """Median time from a fault's start to its detection; None where nothing was found."""
        return median(self.delays_s) if self.delays_s else None


class Truth:
    """The faults of a plant, and which of them have been found."""

    def __init__(self, plant: Plant, hours: float) -> None:
        self.plant, self.faults = plant, plant.faults(hours)
        self.false_alarms = 0
        self._of_stream: dict[str, list[Fault]] = {name: [] for name in plant.names}
        for fault in self.faults:
            self._of_stream[plant.names[fault.stream]].append(fault)
        self._found_ns: dict[Fault, int] = {}
        self._seen: set[str] = set()

    def learn(self, alert: Alert) -> Fault | None:
        """Take note of an alert that opens an anomaly; says which fault it belongs to, None for a false alarm."""
        detected_ns = to_ns(alert.detected_at)
        fault = self.fault_at(alert.stream, detected_ns)
        if alert.anomaly_id not in self._seen:
            self._seen.add(alert.anomaly_id)
            if fault is None:
                self.false_alarms += 1
            else:
                self._found_ns.setdefault(fault, detected_ns)
        return fault

    def fault_at(self, stream: str, event_ns: int) -> Fault | None:
        """The fault that was on, or just over, at a time."""
        until_ns = event_ns - round(GRACE_S * 1e9)
        faults = self._of_stream.get(stream, [])
        return next((fault for fault in faults if until_ns <= fault.end_ns and fault.start_ns <= event_ns), None)

    def tallies(self, until_ns: int) -> list[Tally]:
        """One per kind of fault that began before `until_ns`, by name."""
        tallies: dict[str, Tally] = {}
        for fault in self.faults:
            if fault.start_ns > until_ns:
                continue
            tally = tallies.setdefault(fault.kind, Tally(fault.kind))
            tally.known += 1
            if fault in self._found_ns:
                tally.delays_s.append((self._found_ns[fault] - fault.start_ns) / 1e9)
        return sorted(tallies.values(), key=lambda tally: tally.kind)


def total(tallies: Iterable[Tally]) -> Tally:
    """All kinds together."""
    together = Tally("all")
    for tally in tallies:
        together.known += tally.known
        together.delays_s += tally.delays_s
    return together


def to_ns(time: str) -> int:
    """Unix nanoseconds of an alert's time; microseconds are enough here."""
    since = datetime.fromisoformat(time) - datetime.fromisoformat("1970-01-01T00:00:00Z")
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def verdict(tallies: Sequence[Tally], false_alarms: int) -> str:
    """The end of the story in one sentence."""
    everything = total(tallies)
    delay = "" if everything.delay_s is None else f", half of them within {everything.delay_s / 60:.0f} min"
    alarms = "no false alarm" if false_alarms == 0 else f"{false_alarms} false alarm{'s' * (false_alarms > 1)}"
    return f"found {everything.found} of {everything.known} known faults{delay}; {alarms}"
