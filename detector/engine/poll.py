"""One poll on its way through the stages: what is worked on, and what has come of it so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detector.records import Float64, Int64, Outcome, Reason, Reject, Samples, Scores
from detector.stages.align import Aligned, Joined
from detector.stages.decide import Decision
from detector.stages.infer import Step
from detector.stages.route import Batch
from detector.state.arena import Arena

_DETAILS = ("expected", "lower", "upper", "blame")


@dataclass(slots=True)
class Work:
    """Accepted samples of one arena, sorted by slot; m samples."""

    batch: Batch
    event_ns: Int64
    elapsed_s: Float64
    positions: Int64
    place: NDArray[np.intp]
    """(m,) where each stands among them in record order."""

    def take(self, index: NDArray[np.intp]) -> Work:
        """Those of one wave."""
        return Work(
            self.batch.take(index),
            self.event_ns[index],
            self.elapsed_s[index],
            self.positions[index],
            self.place[index],
        )


@dataclass(slots=True)
class Poll:
    """What one poll has come to so far."""

    outcome: Outcome
    watch: Stopwatch
    scores: dict[int, list[Scores]] = field(default_factory=dict)
    """Per arena, in record order."""

    def count(self, **counts: int) -> None:
        """Add to the counts."""
        for name, count in counts.items():
            self.outcome.counts[name] = self.outcome.counts.get(name, 0) + count

    def finish(self) -> Outcome:
        """Join what the poll's parts said."""
        outcome = self.outcome
        outcome.scores += [parts[0] if len(parts) == 1 else _join(parts) for parts in self.scores.values()]
        outcome.rejects.sort(key=lambda reject: reject.index)
        self.count(waves=len(outcome.wave_rows), wave_rows=sum(outcome.wave_rows))
        return outcome


class Stopwatch:
    """Adds up the time that passes between laps, per stage."""

    def __init__(self, stage_s: dict[str, float]) -> None:
        self._stage_s, self._last_s = stage_s, time.perf_counter()

    def lap(self, stage: str) -> float:
        """The time since the last lap was the stage's; returns it, in seconds."""
        now_s = time.perf_counter()
        lap_s, self._last_s = now_s - self._last_s, now_s
        self._stage_s[stage] = self._stage_s.get(stage, 0.0) + lap_s
        return lap_s


def unaligned(samples: Samples, batch: Batch, aligned: Aligned | Joined) -> list[Reject]:
    """The rejects of what came late or twice."""
    refused = np.flatnonzero(~aligned.accepted)
    return [
        Reject(
            int(samples.index[at]),
            int(samples.positions[at]),
            Reason.DUPLICATE if is_duplicate else Reason.LATE,
            samples.streams[at],
        )
        for at, is_duplicate in zip(batch.at[refused].tolist(), aligned.is_duplicate[refused].tolist(), strict=True)
    ]


def unobserved(samples: Samples, at: NDArray[np.intp]) -> list[Reject]:
    """The rejects of samples of which every channel is missing, by the records that closed them."""
    return [
        Reject(int(samples.index[i]), int(samples.positions[i]), Reason.NOTHING_OBSERVED, samples.streams[i])
        for i in at.tolist()
    ]


def places(at: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Where each of the samples `at` stands among them in record order."""
    if len(at) == count:
        return at
    is_there = np.zeros(count, np.bool_)
    is_there[at] = True
    place: NDArray[np.intp] = np.cumsum(is_there)[at] - 1
    return place


def blank_scores(samples: Samples, work: Work, arena: Arena, *, with_detail: bool) -> Scores:
    """Scores of the samples in record order, to be filled in wave by wave."""
    at = work.batch.at
    count, everything = len(at), len(at) == len(samples)
    order = np.sort(at)
    shape = (count, len(arena.channels))
    event_ns = np.empty(count, np.int64)
    event_ns[work.place] = work.event_ns  # of a joined sample another than that of the record that closed it
    return Scores(
        detector=arena.detector,
        channels=arena.channels,
        index=samples.index if everything else samples.index[order],
        streams=samples.streams if everything else [samples.streams[i] for i in order.tolist()],
        event_ns=event_ns,
        positions=samples.positions if everything else samples.positions[order],
        score=np.empty(count, np.float32),
        threshold=np.empty(count, np.float32),
        anomaly=np.empty(count, np.uint8),
        expected=np.empty(shape) if with_detail else None,
        lower=np.empty(shape) if with_detail else None,
        upper=np.empty(shape) if with_detail else None,
        blame=np.empty(shape, np.float32) if with_detail else None,
        watched_s=float(work.elapsed_s.sum()),
    )


def write(scores: Scores, place: NDArray[np.intp], step: Step, decision: Decision) -> None:
    """Write what was found of one wave to its places."""
    scores.score[place] = step.score
    scores.threshold[place], scores.anomaly[place] = decision.threshold, decision.anomaly
    for detail in _DETAILS:
        column = getattr(scores, detail)
        if column is not None:
            column[place] = getattr(step, detail)


def _join(parts: list[Scores]) -> Scores:
    """Scores of one arena from several parts of a poll, in their order."""
    first = parts[0]
    for part in parts[1:]:
        first.streams = [*first.streams, *part.streams]
        first.watched_s += part.watched_s
    for column in ("index", "event_ns", "positions", "score", "threshold", "anomaly", *_DETAILS):
        if getattr(first, column) is not None:
            setattr(first, column, np.concatenate([getattr(part, column) for part in parts]))
    return first
