"""Feeds for the engine, and a model whose arithmetic is plain, so that a test can say what must come out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from detector.engine import Detector, Engine
from detector.model.further import KNOWN
from detector.model.session import StepOutput
from detector.records import NO_TIME, Outcome, Records, Shard
from detector.settings import DetectorSettings, EngineSettings, RecordSettings

SHARD = Shard("cluster", "topic", 0)
START_S = 1_732_190_000


class PlainModel:
    """Scores the absolute value of the first observed channel; its row counts samples and sums what it saw."""

    def __init__(self, fixed: Sequence[str] | None = None, name: str = "plain") -> None:
        self.bundle: Any = SimpleNamespace(
            name=name,
            label=f"{name}@1",
            sha256=f"{name:0<64}",
            mode="any" if fixed is None else "fixed",
            channels=None if fixed is None else tuple(fixed),
            inputs={"learning": KNOWN["learning"]},
            period_s=60.0,
            warm_up=0,
            budget_per_day=1.0,
            exceedances_per_alarm=1.0,
            threshold_nines=4.0,
            row_floats=lambda channels: 2 + channels,
            initial_row=lambda channels: np.array([0, 1] + [0] * channels, np.float32),
        )
        self.waves: list[int] = []

    def step(
        self, values: Any, observed: Any, elapsed: Any, clock: Any, state: Any, further: Mapping[str, Any]
    ) -> StepOutput:
        """Row by row; what is not observed counts as 0. What it sums up is what it learns."""
        assert values.dtype == np.float64
        assert {array.dtype for array in (observed, elapsed, clock, state)} == {np.dtype(np.float32)}
        assert (elapsed.shape, clock.shape) == ((len(values), 1), (len(values), 4))
        self.waves.append(len(values))
        seen = np.where(observed > 0, values, 0.0)
        following = state.copy()
        following[:, 0] += 1
        following[:, 1] = following[:, 1] * np.float32(0.5) + elapsed[:, 0] + clock.sum(axis=1)
        following[:, 2:] += seen.astype(np.float32) * further.get("learning", np.float32(1))
        score = np.abs(seen).max(axis=1).astype(np.float32)
        blame = np.zeros(values.shape, np.float32)
        blame[np.arange(len(values)), np.abs(seen).argmax(axis=1)] = 1
        return StepOutput(score, blame, np.zeros(values.shape), np.full_like(values, -2.0), values * 0 + 2, following)


class S(NamedTuple):
    """One record: a stream's values at a second after START_S."""

    stream: str
    t: float
    values: dict[str, float | None]
    labels: dict[str, str] | None = None


def s(stream: str, t: float, value: float | None = 0.0, **values: float | None) -> S:
    """A record with channel v, or with the named channels."""
    return S(stream, t, values or {"v": value})


def line(one: S | bytes | None) -> bytes | None:
    """A record's value as it stands in a topic."""
    if not isinstance(one, S):
        return one
    document: dict[str, Any] = {"stream": one.stream, "time": START_S + one.t, "values": one.values}
    return json.dumps(document | ({"labels": one.labels} if one.labels else {})).encode()


def records(feed: Sequence[S | bytes | None], first: int = 0, positions: Sequence[int] | None = None) -> Records:
    """A poll of the feed, at positions from `first` on."""
    at = np.array(range(first, first + len(feed)) if positions is None else positions, np.int64)
    return Records(
        shard=SHARD,
        values=[line(one) for one in feed],
        keys=[None] * len(feed),
        positions=at,
        append_ns=np.full(len(feed), NO_TIME),
        next_position=int(at[-1]) + 1 if len(at) else first,
    )


def detector(model: PlainModel | None = None, **settings: Any) -> Detector:
    """A detector over the plain model; its name is the model's."""
    model = model or PlainModel()
    return Detector(model.bundle.name, DetectorSettings(**settings), model.bundle, model)


def engine(
    *detectors: Detector,
    wave_rows: int = 1024,
    max_streams: int = 10**6,
    max_cold_streams: int = 0,
    forget_after_s: float | None = None,
    **options: Any,
) -> Engine:
    """An engine over detectors, by default the plain one."""
    known = {"scores_detail", "report_silence"}
    record = RecordSettings(**{name: value for name, value in options.items() if name not in known})
    return Engine(
        SHARD,
        detectors or [detector()],
        record,
        EngineSettings(
            wave_rows=wave_rows,
            max_streams=max_streams,
            max_cold_streams=max_cold_streams,
            forget_after_s=forget_after_s,
        ),
        **{name: value for name, value in options.items() if name in known},
    )


def scores_by_stream(outcomes: Iterable[Outcome]) -> dict[str, list[tuple[int, bytes]]]:
    """Per stream the position and the bits of score, threshold and anomaly of each sample, in order."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    for outcome in outcomes:
        for scores in outcome.scores:
            columns = zip(scores.score, scores.threshold, scores.anomaly, strict=True)
            for stream, position, bits in zip(scores.streams, scores.positions.tolist(), columns, strict=True):
                found.setdefault(stream, []).append((position, b"".join(bit.tobytes() for bit in bits)))
    return found


def memory(of: Engine) -> dict[str, dict[str, bytes]]:
    """Per stream the bytes of all that is kept of it."""
    found: dict[str, dict[str, bytes]] = {}
    for rows in of.snapshot(full=True).arenas:
        for at, stream in enumerate(rows.streams):
            assert stream not in found
            found[stream] = {name: array[at].tobytes() for name, array in rows.arrays.items()}
    of.dropped()
    return found
