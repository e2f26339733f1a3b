"""The synthetic plant: pumps with five channels each, related by physics, with faults at known times.

    plant = Plant(streams=50, seed=7)
    for stream, event_ns, values in plant.samples(hours=12):    # columnar; NaN is a missing cell
        ...
    plant.faults(hours=12)                                      # what is really wrong, and when

A pump follows a demand (time of day, weekend, shift changes, set-point moves; some cycle on and off). Speed and pipe
give the working point on the pump curve (flow, head), its power the current, load and ambient the temperature behind
a lag, speed the vibration. Each pump has its own size, noise and habits. A fault bends the physics (`wear`, `pipe`,
...) or the reading of one sensor; docs/demo.md lists the kinds. The same seed gives the same samples; a fault changes
those of its own pump only.

Axes: T ticks of a chunk, N pumps, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.records import Float64, Int64

CHANNELS = ("flow", "head_pressure", "current", "vibration", "temperature")
UNITS = ("m3/h", "bar", "A", "mm/s", "degC")
MONDAY_NS = 1_772_409_600_000_000_000
"""2026-03-02T00:00:00Z: where the plant's time begins unless told otherwise."""
HEALTHY_S = 5_400.0
"""No pump fails before this much plant time has passed: whoever watches may learn first."""

_CHUNK_TICKS = 360  # an hour at the default period; noise is drawn per chunk, so it belongs to the plant's identity
_BETWEEN_FAULTS_S = 8 * 3600.0  # mean time from the end of a pump's fault to the next
_REPAIRED_S = 3600.0  # at least so long between two faults of a pump
_DECIMALS = (2, 3, 2, 3, 2)  # what such sensors resolve


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is really wrong: the truth to compare alerts with."""

    stream: int
    kind: str
    channels: tuple[str, ...]
    """Where it shows."""
    start_ns: int
    end_ns: int
    strength: float
    """0.8 to 1.4: how hard it hits."""


class Chunk(NamedTuple):
    """Samples in order of event time; n of them."""

    stream: NDArray[np.intp]
    event_ns: Int64
    values: Float64
    """(n, C), NaN where a cell is missing."""


class Plant:
    """Pumps, all from one seed."""

    def __init__(self, streams: int = 50, seed: int = 7, start_ns: int = MONDAY_NS, period_s: float = 10.0) -> None:
        self.streams, self.seed, self.start_ns, self.period_s = streams, seed, start_ns, period_s
        self.names = [f"pump-{i + 1:0{max(2, len(str(streams)))}d}" for i in range(streams)]
        self._pumps = _draw_pumps(np.random.default_rng([seed, 0]), streams)

    @property
    def chunk_samples(self) -> int:
        """At most so many samples are in a chunk."""
        return _CHUNK_TICKS * self.streams

    def faults(self, hours: float) -> list[Fault]:
        """The faults that begin and end within the first `hours`, in order of their start."""
        found = [fault for stream in range(self.streams) for fault in self._faults_of(stream, hours * 3600.0)]
        return sorted(found, key=lambda fault: (fault.start_ns, fault.stream))

    def _faults_of(self, stream: int, until_s: float) -> Iterator[Fault]:
        rng = np.random.default_rng([self.seed, 1, stream])
        at_s = HEALTHY_S
        while True:
            at_s += rng.exponential(_BETWEEN_FAULTS_S)
            name = list(KINDS)[rng.integers(len(KINDS))]
            kind = KINDS[name]
            length_s, channel, strength = (
                rng.uniform(*kind.length_s),
                rng.integers(len(CHANNELS)),
                rng.uniform(0.8, 1.4),
            )
            if at_s + length_s >= until_s:
                return
            start_ns = self.start_ns + round(at_s) * 1_000_000_000
            end_ns = start_ns + round(length_s) * 1_000_000_000
            yield Fault(stream, name, kind.channels or (CHANNELS[channel],), start_ns, end_ns, float(strength))
            at_s += length_s + _REPAIRED_S

    def samples(self, hours: float, faults: bool = True) -> Iterator[Chunk]:
        """The first `hours` of the plant, chunk by chunk, in order of event time."""
        ticks = int(hours * 3600.0 / self.period_s)
        known = self.faults(hours) if faults else []
        memory: dict[str, Float64] = {}
        for number, first in enumerate(range(0, ticks, _CHUNK_TICKS)):
            yield self._chunk(number, min(_CHUNK_TICKS, ticks - first), known, memory)

    def _chunk(self, number: int, ticks: int, faults: list[Fault], memory: dict[str, Float64]) -> Chunk:
        rng = np.random.default_rng([self.seed, 2, number])
        seconds: Float64 = (np.arange(_CHUNK_TICKS, dtype=np.float64) + number * _CHUNK_TICKS) * self.period_s
        clock_s: Float64 = seconds + (self.start_ns // 1_000_000_000 + 3 * 86_400) % (7 * 86_400)  # since Monday 0 h
        bend = _Bend(_CHUNK_TICKS, self.streams)
        active = [
            (fault, rows, progress, np.random.default_rng([self.seed, 3, number, fault.stream]))
            for fault in faults
            for rows, progress in [self._span(fault, number)]
            if len(progress)
        ]
        for fault, rows, progress, fault_rng in active:
            KINDS[fault.kind].apply(bend.of(fault, rows), progress, fault, fault_rng)
        values = _physics(self._pumps, clock_s, self.period_s, bend, rng, memory)
        for fault, rows, progress, fault_rng in active:
            _misread(values[rows, fault.stream], progress, fault, fault_rng, memory)
        return self._deliver(values, seconds, ticks, rng)

    def _span(self, fault: Fault, number: int) -> tuple[slice, Float64]:
        """The ticks of a chunk that a fault covers, and how far it has got (0 to 1) at each."""
        since_s = [(ns - self.start_ns) / 1e9 for ns in (fault.start_ns, fault.end_ns)]
        first, last = (int(np.ceil(s / self.period_s)) - number * _CHUNK_TICKS for s in since_s)
        rows = slice(max(first, 0), max(min(last, _CHUNK_TICKS), 0))
        covered = np.arange(rows.start, max(rows.stop, rows.start))
        return rows, (covered - first) / max(last - first, 1)

    def _deliver(self, values: Float64, seconds: Float64, ticks: int, rng: np.random.Generator) -> Chunk:
        """Take the readings over a wire: jitter, lost cells, lost samples, a link that is down for minutes."""
        shape = values.shape[:2]
        values[rng.random(values.shape) < 0.001] = np.nan
        kept = (rng.random(shape) > 0.002) & ~_outages(rng, shape) & ~np.isnan(values).all(axis=2)
        kept[ticks:] = False
        phase_s = 0.8 * self._pumps["phase"] + rng.uniform(0.0, 0.15, shape)  # in periods; below 1, so ticks keep order
        event_ns = self.start_ns + ((seconds[:, None] + phase_s * self.period_s) * 1e3).astype(np.int64) * 1_000_000
        tick, stream = np.nonzero(kept)
        order = np.argsort(event_ns[tick, stream], kind="stable")
        tick, stream = tick[order], stream[order]
        return Chunk(stream, event_ns[tick, stream], _resolve(values[tick, stream]))


def _resolve(values: Float64) -> Float64:
    """What the sensors resolve; (n, C)."""
    return np.stack([np.round(values[:, c], decimals) for c, decimals in enumerate(_DECIMALS)], axis=1)


def _draw_pumps(rng: np.random.Generator, n: int) -> dict[str, Float64]:
    """Each pump's own size, noise and habits; (N,) each."""
    return {
        "phase": rng.random(n),
        "shut_off_bar": rng.uniform(4.0, 12.0, n),
        "flow_nominal": np.exp(rng.uniform(np.log(15.0), np.log(300.0), n)),
        "static_ratio": rng.uniform(0.1, 0.3, n),  # share of the shut-off head that the pipe needs at no flow
        "efficiency": rng.uniform(0.6, 0.78, n),
        "noise": rng.uniform(0.004, 0.012, n),
        "vibration": rng.uniform(0.8, 2.5, n),
        "heat": rng.uniform(18.0, 40.0, n),  # degC above ambient at full load
        "thermal_s": rng.uniform(400.0, 1200.0, n),
        "demand": rng.uniform(0.72, 0.9, n),
        "daily": rng.uniform(0.02, 0.08, n),
        "peak_h": rng.uniform(9.0, 19.0, n),
        "shift": rng.uniform(-0.04, 0.04, (3, n)),
        "cycle_s": np.where(rng.random(n) < 0.1, rng.uniform(900.0, 2100.0, n), np.inf),
        "running": rng.uniform(0.6, 0.8, n),  # share of the cycle
    }


class _Bend:
    """What faults do to the physics: one (T, N) array per quantity, neutral where all is well."""

    def __init__(self, ticks: int, streams: int) -> None:
        self.factor = {name: np.ones((ticks, streams)) for name in ("pipe", "speed", "wear", "draw", "head", "intake")}
        self.added = {name: np.zeros((ticks, streams)) for name in ("heat", "roughness")}

    def of(self, fault: Fault, rows: slice) -> dict[str, Float64]:
        """Views for one fault."""
        return {name: array[rows, fault.stream] for name, array in (self.factor | self.added).items()}


def _physics(
    pump: dict[str, Float64],
    clock_s: Float64,
    period_s: float,
    bend: _Bend,
    rng: np.random.Generator,
    memory: dict[str, Float64],
) -> Float64:
    """Readings of healthy sensors, (T, N, C), in the order of CHANNELS."""
    shape = (len(clock_s), len(pump["phase"]))
    noise = rng.standard_normal((*shape, len(CHANNELS))) * pump["noise"][:, None]
    running = _running(pump, clock_s)
    wanted = _lag(_demand(pump, clock_s) + _set_point_moves(rng, shape, memory), period_s / 240.0, memory, "wanted")
    wander = _lag(rng.standard_normal(shape) * 0.03, period_s / 300.0, memory, "wander")
    speed = _lag(running * wanted, period_s / 25.0, memory, "speed") * bend.factor["speed"] * (1.0 + wander)

    # Pump curve: head = shut_off (speed^2 - 0.4 q^2). Pipe: head = static + pipe q^2. q in units of the nominal flow.
    static = pump["static_ratio"]
    q = np.sqrt(np.maximum(speed**2 - static, 0.0) / (0.4 + (0.6 - static) * bend.factor["pipe"]))
    shaken = 1.0 + bend.added["roughness"] * rng.standard_normal(shape)
    flow = pump["flow_nominal"] * q * shaken * bend.factor["intake"]
    head = pump["shut_off_bar"] * np.maximum(speed**2 - 0.4 * q**2, 0.0) * bend.factor["head"] * (2.0 - shaken)
    nominal_kw = pump["flow_nominal"] * pump["shut_off_bar"] * 0.6 / 36.0 / pump["efficiency"]
    load = (0.3 * speed**3 + 0.7 * speed * q) * bend.factor["draw"]
    current = nominal_kw * 1e3 / (np.sqrt(3.0) * 400.0 * 0.85) * (load + 0.02)
    grumble = np.exp(0.06 * rng.standard_normal(shape))
    vibration = pump["vibration"] * (
        0.03 + speed**2 * grumble * bend.factor["wear"] * (1.0 + 4.0 * bend.added["roughness"])
    )
    ambient = 18.0 + 4.0 * np.sin(2.0 * np.pi * (clock_s / 86_400.0 - 0.4))[:, None]
    heated = pump["heat"] * load + bend.added["heat"]
    temperature = ambient + _lag(heated, period_s / pump["thermal_s"], memory, "temperature")

    values = np.stack([flow, head, current, vibration, temperature], axis=2)
    values *= 1.0 + noise * np.array([1.0, 0.6, 0.6, 1.0, 0.2])
    floor = np.abs(noise) * np.array([0.2, 0.2, 0.2, 0.2, 0.0])  # a pump at rest still reads a little noise
    return np.asarray(values + floor)


def _demand(pump: dict[str, Float64], clock_s: Float64) -> Float64:
    """Wanted speed, (T, N): daily curve, a quieter weekend, three shifts from 6, 14 and 22 h."""
    hour = clock_s / 3600.0 % 24.0
    daily = np.cos(2.0 * np.pi * (hour[:, None] - pump["peak_h"]) / 24.0)
    weekend = np.where(clock_s // 86_400 % 7 >= 5, 0.93, 1.0)[:, None]
    shift = pump["shift"][((hour - 6.0) // 8.0).astype(int) % 3]
    return np.asarray((pump["demand"] + pump["daily"] * daily + shift) * weekend)


def _set_point_moves(rng: np.random.Generator, shape: tuple[int, int], memory: dict[str, Float64]) -> Float64:
    """Operators move the set point a few times an hour, (T, N)."""
    ticks, streams = shape
    moves, at = rng.normal(0.0, 0.025, (3, streams)), rng.integers(0, ticks, (3, streams))
    level = np.tile(memory.get("set_point", np.zeros(streams)), (ticks, 1))
    for when, value in zip(np.sort(at, axis=0), moves, strict=True):
        level = np.where(np.arange(ticks)[:, None] >= when, value, level)
    memory["set_point"] = level[-1]
    return level


def _running(pump: dict[str, Float64], clock_s: Float64) -> Float64:
    """1 where a pump is on, (T, N); most always are."""
    share = (clock_s[:, None] / pump["cycle_s"] + pump["phase"]) % 1.0
    return np.where(np.isinf(pump["cycle_s"]) | (share < pump["running"]), 1.0, 0.0)


def _lag(target: Float64, rate: Float64 | float, memory: dict[str, Float64], name: str) -> Float64:
    """First-order lag along T; `memory` carries it from chunk to chunk."""
    keep = np.exp(-np.asarray(rate))
    result, level = np.empty_like(target), memory.get(name, target[0])
    for tick, wanted in enumerate(target):
        level = wanted + (level - wanted) * keep
        result[tick] = level
    memory[name] = level
    return result


def _outages(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Ticks at which a pump's link is down, (T, N): once in two days, for 2 to 10 minutes."""
    ticks, streams = shape
    start, length = rng.integers(0, ticks, streams), rng.integers(12, 60, streams)
    tick, hit = np.arange(ticks)[:, None], rng.random(streams) < 0.02
    return np.asarray(hit & (tick >= start) & (tick < start + length))


# Faults. `p` is how far the fault has got, 0 to 1, per tick; `b` the views of _Bend; each changes them in place.

Apply = Callable[[dict[str, Float64], Float64, Fault, np.random.Generator], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: where it shows, how long it lasts, what it does to the physics."""

    channels: tuple[str, ...]
    """Empty: one sensor, drawn for each fault."""
    length_s: tuple[float, float]
    apply: Apply


def _bearing_wear(b: dict[str, Float64], p: Float64, fault: Fault, rng: np.random.Generator) -> None:
    bursts = np.where((p > 0.4) & (rng.random(len(p)) < 0.15), 1.8, 1.0)
    b["wear"] *= (1.0 + 2.5 * fault.strength * p**1.5) * bursts
    b["heat"] += 8.0 * fault.strength * p
    b["draw"] *= 1.0 + 0.04 * p


def _cavitation(b: dict[str, Float64], p: Float64, fault: Fault, rng: np.random.Generator) -> None:
    onset = np.minimum(p * 8.0, 1.0)
    b["roughness"] += 0.25 * fault.strength * onset
    b["intake"] *= 1.0 - 0.10 * fault.strength * onset


def _clogged_filter(b: dict[str, Float64], p: Float64, fault: Fault, rng: np.random.Generator) -> None:
    b["intake"] *= 1.0 - 0.40 * fault.strength * p
    b["draw"] *= 1.0 + 0.20 * fault.strength * p


def _seal_leak(b: dict[str, Float64], p: Float64, fault: Fault, rng: np.random.Generator) -> None:
    b["head"] *= 1.0 - 0.30 * fault.strength * np.minimum(p * 8.0, 1.0)
    b["intake"] *= 1.0 - 0.20 * fault.strength * np.minimum(p * 8.0, 1.0)


def _blockage(b: dict[str, Float64], p: Float64, fault: Fault, rng: np.random.Generator) -> None:
    b["pipe"] *= 1.0 + 25.0 * fault.strength * np.minimum(p * 20.0, 1.0)


def _belt_slip(b: dict[str, Float64], p: Float64, fault: Fault, rng: np.random.Generator) -> None:
    b["speed"] *= 1.0 - 0.30 * fault.strength * np.minimum(p * 6.0, 1.0) * rng.uniform(0.3, 1.0, len(p))
    b["wear"] *= 1.0 + 0.5 * fault.strength * np.minimum(p * 6.0, 1.0)


def _cooling_failure(b: dict[str, Float64], p: Float64, fault: Fault, rng: np.random.Generator) -> None:
    b["heat"] += 45.0 * fault.strength


def _sensor(b: dict[str, Float64], p: Float64, fault: Fault, rng: np.random.Generator) -> None:
    """The pump itself is well; `_misread` does the rest."""


KINDS: dict[str, Kind] = {
    "bearing_wear": Kind(("vibration", "temperature", "current"), (3600.0, 9000.0), _bearing_wear),
    "cavitation": Kind(("flow", "head_pressure", "vibration"), (1200.0, 3600.0), _cavitation),
    "clogged_filter": Kind(("flow", "current"), (3600.0, 9000.0), _clogged_filter),
    "seal_leak": Kind(("head_pressure", "flow"), (2400.0, 6000.0), _seal_leak),
    "blockage": Kind(("flow", "head_pressure", "current"), (600.0, 1800.0), _blockage),
    "belt_slip": Kind(("flow", "head_pressure", "current", "vibration"), (900.0, 2700.0), _belt_slip),
    "cooling_failure": Kind(("temperature",), (1800.0, 5400.0), _cooling_failure),
    "sensor_stuck": Kind((), (1200.0, 3600.0), _sensor),
    "sensor_drift": Kind((), (3600.0, 7200.0), _sensor),
    "sensor_spikes": Kind((), (600.0, 1800.0), _sensor),
}


def _misread(values: Float64, p: Float64, fault: Fault, rng: np.random.Generator, memory: dict[str, Float64]) -> None:
    """Bend the readings (T, C) of the one sensor that a sensor fault is about, in place."""
    channel = CHANNELS.index(fault.channels[0])
    reading = values[:, channel]
    if fault.kind == "sensor_stuck":
        key = f"stuck {fault.stream} {fault.start_ns}"
        reading[:] = memory.setdefault(key, reading[:1].copy())
    elif fault.kind == "sensor_drift":
        reading *= 1.0 + 0.50 * fault.strength * p
    elif fault.kind == "sensor_spikes":
        reading *= 1.0 + 0.5 * fault.strength * np.where(
            rng.random(len(p)) < 0.06, rng.choice([-1.0, 1.0], len(p)), 0.0
        )
