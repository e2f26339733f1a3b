"""A world with real engines: a few pumps, real bundles, and checkpoints that may come to fit no longer.

Where `World` shows the pipeline's order of things with an engine that one can see through, this one shows what becomes
of real memory: rows that a bundle made, open anomalies, times.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from detector.checkpoint.format import Manifest, decode_manifest
from detector.checkpoint.policies import Policies
from detector.checkpoint.protocol import Identity
from detector.engine import Detector, Engine
from detector.errors import CheckpointError
from detector.model.bundle import Bundle, read_bundle
from detector.model.rows import RowField
from detector.model.session import Session
from detector.pipeline import Input, Pipeline
from detector.records import NO_TIME, Records
from detector.settings import DetectorSettings, EngineSettings, RecordSettings
from tests.scenarios.world import SHARD, ListSource, S, World

_GOLDEN = Path(__file__).parents[1] / "golden"
_DECIDE = {"threshold_nines": 1.6, "hysteresis_nines": 0.5, "resolve_samples": 2, "cool_down_s": 0}
STREAMS = 3
PERIOD_S = 10
START_S = 1_600_000_000


@cache
def bundle(name: str) -> Bundle:
    """Of `tests/golden`."""
    return read_bundle(_GOLDEN / f"{name}.onnx")


TINY, BENCH, LEARNER = bundle("tiny-any"), bundle("bench"), bundle("learner")
# BENCH has the layout of TINY with other weights and a wider hidden state.


@cache
def _session(model: bytes) -> Session:
    return Session(
        next(each for each in (TINY, BENCH, LEARNER, bundle("tiny-fixed")) if each.model_bytes == model), "cpu"
    )


def renamed(of: Bundle, version: str = "2") -> Bundle:
    """The same graph in another file."""
    return replace(of, version=version, sha256=f"{version:0>64}")


def retrained(of: Bundle) -> Bundle:
    """Other weights, as far as a checkpoint can tell, in a graph that is easy to have."""
    return replace(renamed(of, "3"), graph_sha256="3" * 64)


def reworked(of: Bundle, part: str, **changes: Any) -> Bundle:
    """A release in which a part of the row is another one."""
    layout = tuple(_changed(entry, changes) if entry.label == part else entry for entry in of.row_layout)
    return replace(retrained(of), row_layout=layout)


def _changed(entry: RowField, changes: dict[str, Any]) -> RowField:
    return RowField(**{**{name: getattr(entry, name) for name in entry.__struct_fields__}, **changes})


def feed(count: int, start: int = 0, *, is_narrow: bool = False) -> list[S]:
    """Records in turn, with levels that shift now and then; the value is in hundredths."""
    a_tick = STREAMS * (2 if is_narrow else 1)
    return [
        S((at * 7919) % 101 + (3000 if (at // a_tick) % 90 > 75 else 0), f"pump-{at % STREAMS}")
        for at in range(start, start + count)
    ]


def records(items: Sequence[S], start: int, *, is_narrow: bool = False) -> Records:
    """A poll; a record's time follows from its position, so that a gap in one is a gap in the other."""
    make = _narrow if is_narrow else _wide
    values: list[bytes | None] = [json.dumps(make(item, start + at)).encode() for at, item in enumerate(items)]
    count = len(items)
    positions, append_ns = np.arange(start, start + count, dtype=np.int64), np.full(count, NO_TIME, np.int64)
    return Records(SHARD, values, [None] * count, positions, append_ns, start + count)


def _wide(item: S, position: int) -> dict[str, Any]:
    time = START_S + position // STREAMS * PERIOD_S
    return {"stream": item.stream, "time": time, "values": {"flow": (item.value or 0) / 100, "heat": 20.0}}


def _narrow(item: S, position: int) -> dict[str, Any]:
    """All pumps' flow, then all pumps' heat."""
    tick, within = divmod(position, 2 * STREAMS)
    named = {"stream": item.stream, "time": START_S + tick * PERIOD_S}
    if within < STREAMS:
        return named | {"channel": "flow", "value": (item.value or 0) / 100}
    return named | {"channel": "heat", "value": 20.0}


def engine(of: Bundle, *, is_narrow: bool = False, max_streams: int = 1000, freeze: Sequence[Any] = ()) -> Engine:
    """A new one, as a daemon with this bundle makes it."""
    channels = ["flow", "heat"] if is_narrow else None
    settings = DetectorSettings(decide=_DECIDE, channels=channels, freeze=list(freeze))
    detector = Detector("pumps", settings, of, _session(of.model_bytes))
    record = RecordSettings(channel="channel", value="value") if is_narrow else RecordSettings()
    return Engine(SHARD, [detector], record, EngineSettings(max_streams=max_streams))


def identity(of: Bundle) -> Identity:
    """What a daemon with this bundle is."""
    return Identity({"pumps": (of.sha256, of.label)}, "configuration", "numerics", {"pumps": of})


def memory(of: Engine) -> dict[str, dict[str, bytes]]:
    """Per stream the bytes of all that is kept of it."""
    found = {}
    for rows in of.snapshot(full=True).arenas:
        for at, stream in enumerate(rows.streams):
            found[stream] = {name: array[at].tobytes() for name, array in rows.arrays.items()}
    of.dropped()
    return found


class _PumpSource(ListSource):
    """The same log as records of pumps."""

    async def poll(self, timeout_s: float) -> list[Records]:
        """The next few; none beyond a position that the world holds."""
        if self._world.handed_over >= self._world.held_at and not self._world.goes_on():
            await asyncio.sleep(0.001)
            return []
        found = []
        for batch in await super().poll(timeout_s):
            start = batch.next_position - len(batch)
            found.append(records(self._world.log[start : batch.next_position], start, is_narrow=self._world.is_narrow))
            self._world.handed_over = batch.next_position
        return found


@dataclass
class Pumps(World):
    """A world whose processes run one of these bundles, under these policies."""

    bundle: Bundle = TINY
    policies: Policies = field(default_factory=Policies)
    is_narrow: bool = False
    max_streams: int = 1000
    freeze: Sequence[Any] = ()
    handed_over: int = 0
    """Where reading has come to."""
    held_at: int = 1 << 62
    """Where it rests until `goes_on`."""
    goes_on: Callable[[], bool] = lambda: True

    def pipeline(self, **changes: Any) -> Pipeline:
        """A new process."""

        def new_engine(_: Any) -> Engine:
            self.engine: Any = engine(
                self.bundle, is_narrow=self.is_narrow, max_streams=self.max_streams, freeze=self.freeze
            )
            return self.engine

        self.identity = identity(self.bundle)
        inputs = [Input(_PumpSource(self), self.start, new_engine, self.policies)]
        return super().pipeline(**({"inputs": inputs} | changes))

    async def begin(self, **changes: Any) -> None:
        """A process; its first failure, out of its groups."""
        try:
            await self.run(**changes)
        except* CheckpointError as group:
            failure: BaseException = group
            while isinstance(failure, BaseExceptionGroup):
                failure = failure.exceptions[0]
            raise failure from None

    def files(self, kind: str) -> list[Path]:
        """Of the shard, newest first, those that are whole."""
        found = self.store.folder(SHARD).glob(f"{kind}-*")
        return sorted((path for path in found if path.suffix != ".tmp"), reverse=True)

    def manifest(self) -> Manifest:
        """The newest."""
        path = self.files("manifest")[0]
        return decode_manifest(path.read_bytes(), path)

    def metric(self, name: str) -> float:
        """Of the last process, for the shard."""
        labels = {"source": "list", "topic": SHARD.topic, "partition": str(SHARD.partition)}
        return self.telemetry.registry.get_sample_value(f"tidewarden_{name}", labels) or 0.0
