"""Hands an engine's outcome to every sink that wants it: alerts, scores, dead letters, each to all sinks of its kind.

Alerts that stand on an output already, found there after a restart, are not sent to it again. Scores go out complete
or, sampled, for a share of the streams that a hash picks, so that a picked stream is seen whole. Broken records become
dead letters with their original bytes.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from detector.records import Outcome, Records, Scores
from detector.sinks.base import DeadLetter, Sink


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The sinks of each kind, by name."""

    alerts: Mapping[str, Sink] = field(default_factory=dict)
    scores: Mapping[str, Sink] = field(default_factory=dict)
    dead_letters: Mapping[str, Sink] = field(default_factory=dict)
    scores_sample_ratio: float | None = None
    """None: scores are complete. Else the share of streams whose scores are sent, and nothing is promised."""
    handed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Items handed to each sink, by (sink, kind); for telemetry, which clears it."""

    async def deliver(self, records: Records, outcome: Outcome, known_alerts: Mapping[str, frozenset[str]]) -> set[str]:
        """Hand everything over, in order; waits only while a sink is full.

        Args:
            records: The poll, for the original bytes of what was refused.
            outcome: What the engine made of it.
            known_alerts: Per sink of alerts the ids that stand there already.

        Returns:
            The ids of the alerts that were held back because a sink has them.

        Raises:
            SinkError: A sink cannot take them.
        """
        held = await self._deliver_alerts(outcome, known_alerts) if outcome.alerts else set()
        if self.scores and outcome.scores:
            await self._deliver_scores(outcome)
        if self.dead_letters and outcome.rejects:
            await self._deliver_dead_letters(records, outcome)
        return held

    def acknowledged(self) -> list[Sink]:
        """The sinks besides those of alerts whose acknowledgement a checkpoint waits for."""
        scores = self.scores.values() if self.scores_sample_ratio is None else ()
        return [*scores, *self.dead_letters.values()]

    def all(self) -> list[Sink]:
        """Every sink, once."""
        return [*self.alerts.values(), *self.scores.values(), *self.dead_letters.values()]

    async def _deliver_alerts(self, outcome: Outcome, known_alerts: Mapping[str, frozenset[str]]) -> set[str]:
        held: set[str] = set()
        for name, sink in self.alerts.items():
            known = known_alerts.get(name, frozenset())
            held.update(alert.id for alert in outcome.alerts if alert.id in known)
            if fresh := [alert for alert in outcome.alerts if alert.id not in known]:
                await sink.deliver_alerts(outcome.shard, fresh)
                self.handed[name, "alerts"] += len(fresh)
        return held

    async def _deliver_scores(self, outcome: Outcome) -> None:
        scores: Sequence[Scores] = outcome.scores
        if self.scores_sample_ratio is not None:
            scores = [picked for each in scores if len(picked := sample(each, self.scores_sample_ratio))]
        if scores:
            for name, sink in self.scores.items():
                await sink.deliver_scores(outcome.shard, scores)
                self.handed[name, "scores"] += sum(map(len, scores))

    async def _deliver_dead_letters(self, records: Records, outcome: Outcome) -> None:
        if letters := dead_letters(records, outcome):
            for name, sink in self.dead_letters.items():
                await sink.deliver_dead_letters(letters)
                self.handed[name, "dead_letters"] += len(letters)


def dead_letters(records: Records, outcome: Outcome) -> list[DeadLetter]:
    """The broken ones among the rejects, with their original bytes; what is merely unwanted stays out."""
    return [
        DeadLetter(
            shard=records.shard,
            position=reject.position,
            append_ns=int(records.append_ns[reject.index]),
            reason=reject.reason,
            detail=reject.detail,
            key=records.keys[reject.index],
            value=records.values[reject.index],
            headers=records.headers_of(reject.index),
        )
        for reject in outcome.rejects
        if reject.reason.is_dead_letter
    ]


def sample(scores: Scores, ratio: float) -> Scores:
    """The scores of those streams whose CRC-32 falls into the first `ratio` of its range."""
    limit = ratio * 2.0**32
    picked = np.fromiter((zlib.crc32(stream.encode()) < limit for stream in scores.streams), bool, len(scores))
    return scores if picked.all() else _rows(scores, np.flatnonzero(picked))


def _rows(scores: Scores, rows: NDArray[np.intp]) -> Scores:
    return replace(
        scores,
        index=scores.index[rows],
        streams=[scores.streams[row] for row in rows],
        event_ns=scores.event_ns[rows],
        positions=scores.positions[rows],
        score=scores.score[rows],
        threshold=scores.threshold[rows],
        anomaly=scores.anomaly[rows],
        expected=None if scores.expected is None else scores.expected[rows],
        lower=None if scores.lower is None else scores.lower[rows],
        upper=None if scores.upper is None else scores.upper[rows],
        blame=None if scores.blame is None else scores.blame[rows],
    )
