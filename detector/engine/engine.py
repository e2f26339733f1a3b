"""The engine: carries polls through the stages, looks for silence, and hands its memory to checkpoints and takes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.alerts import Message
from detector.engine.lane import Detector, Lane, require_channels
from detector.engine.partials import begun_ns, close_all, partials_of
from detector.engine.poll import Poll, Stopwatch, Work, blank_scores, places, unaligned, unobserved, write
from detector.errors import LineageError
from detector.records import (
    NO_TIME,
    Alert,
    ArenaRows,
    Int64,
    Outcome,
    Records,
    Reject,
    Samples,
    Scores,
    Shard,
    Snapshot,
)
from detector.settings import EngineSettings, RecordSettings
from detector.stages.align import align, join
from detector.stages.decide import DecideWave, decide, open_slots, silence
from detector.stages.decode import Decoder, screen
from detector.stages.infer import WaveInput, infer
from detector.stages.route import Batch, Router
from detector.stages.wave import wave
from detector.state.arena import Arena

_SILENCE_EVERY = 1000  # positions between two looks for silence; docs/contract.md, Decide 5
_NEVER = np.iinfo(np.int64).max


class Engine:
    """One shard's memory and the stages over it. Not thread-safe; call from one thread at a time."""

    def __init__(
        self,
        shard: Shard,
        detectors: Sequence[Detector],
        record: RecordSettings,
        settings: EngineSettings,
        *,
        scores_detail: bool = False,
        report_silence: bool = True,
    ) -> None:
        self.shard = shard
        self._record, self._settings = record, settings
        self._scores_detail, self._report_silence = scores_detail, report_silence
        self._is_narrow = record.channel is not None
        if self._is_narrow:
            require_channels(detectors, str(shard), [shard.topic])
        self._lanes = [Lane(detector, is_narrow=self._is_narrow) for detector in detectors]
        self._decoder = Decoder(record)
        self._decoded: tuple[Records, Samples, list[Reject]] | None = None
        self._router = self._new_router()
        self._next_position, self._last_position, self._highest_ns = 0, -1, NO_TIME

    @property
    def streams(self) -> int:
        """How many streams have memory."""
        return len(self._router.slots)

    @property
    def open_anomalies(self) -> int:
        """How many anomalies are open."""
        return sum(len(arena.open) for arena in self._router.arenas)

    # A poll -----------------------------------------------------------------------------------------------------------

    def advance(self, records: Records) -> Outcome:
        """Carry one poll through all stages."""
        outcome = Outcome(records.shard, records.next_position)
        watch = Stopwatch(outcome.stage_s)
        samples, rejects = self._decode(records)
        self._decoded = None
        watch.lap("decode")
        outcome.rejects += rejects
        outcome.counts["records"] = len(records)
        return self._carry(samples, records.positions, outcome, watch)

    def advance_samples(self, samples: Samples, outcome: Outcome) -> Outcome:
        """The same from `route` on, for callers that decoded by themselves; adds to `outcome`."""
        return self._carry(samples, samples.positions, outcome, Stopwatch(outcome.stage_s))

    def flush(self) -> Outcome:
        """Close the samples of narrow records of which not all has arrived: their source has ended."""
        outcome = Outcome(self.shard, self._next_position)
        samples = close_all(self._router.arenas, self.shard, self._next_position)
        self._carry(samples, np.empty(0, np.int64), outcome, Stopwatch(outcome.stage_s))
        outcome.alerts.sort(key=lambda alert: alert.stream)  # all stand at one position; stable
        return outcome

    def wanted(self, records: Records) -> list[str]:
        """Streams of these records whose rows the engine does not hold; a caller may `adopt` them first."""
        samples, _ = self._decode(records)
        return self._router.slots.absent(samples.streams)

    def _decode(self, records: Records) -> tuple[Samples, list[Reject]]:
        if self._decoded is None or self._decoded[0] is not records:
            self._decoded = (records, *self._decoder.decode(records))
        return self._decoded[1:]

    def _carry(self, samples: Samples, positions: Int64, outcome: Outcome, watch: Stopwatch) -> Outcome:
        """Run a poll's samples: in one go, or cut where silence must be looked for."""
        samples, rejects = screen(samples, self._record.future_s)
        watch.lap("decode")
        outcome.rejects += rejects
        poll = Poll(outcome, watch)
        looks = self._looks(samples, positions)
        start = 0
        while (cut := self._next_look(samples, start, looks)) is not None:
            self._run(samples.take(np.arange(start, cut)), poll)
            self._tell_silence(poll)
            start, looks = cut, looks[looks > cut]
        self._run(samples if start == 0 else samples.take(np.arange(start, len(samples))), poll)
        if len(positions):
            self._last_position = int(positions[-1])
        self._next_position = outcome.next_position
        return poll.finish()

    def _run(self, samples: Samples, poll: Poll) -> None:
        """Carry samples from `route` to `decide`; tells of anomalies in the order of the samples."""
        routed = self._router.route(samples)
        poll.watch.lap("route")
        poll.outcome.rejects += routed.rejects
        poll.count(streams_created=routed.streams_created, unknown_channels=routed.unknown_channels)
        told: list[tuple[Message, Alert]] = []
        for batch in routed.batches:
            told += self._score(samples, batch, poll)
        told.sort(key=lambda pair: pair[0].position)  # stable: a sample's own messages stay in order
        poll.outcome.alerts += [alert for _, alert in told]
        poll.watch.lap("decide")

    def _score(self, samples: Samples, batch: Batch, poll: Poll) -> list[tuple[Message, Alert]]:
        """Align, wave, infer and decide over the samples of one arena."""
        arena, lane = self._router.arenas[batch.arena], self._lane_of(batch.arena)
        event_ns = samples.event_ns[batch.at]
        if batch.columns is not None:
            batch, event_ns = self._join(samples, batch, batch.columns, event_ns, arena, poll)
        aligned = align(batch.slots, event_ns, arena.last_ns[batch.slots])
        if not aligned.accepted.all():
            poll.outcome.rejects += unaligned(samples, batch, aligned)
            event_ns = event_ns[aligned.accepted]
            batch, aligned = batch.take(aligned.accepted), aligned.take(aligned.accepted)
        if not len(batch.at):
            return []
        elapsed_s = aligned.elapsed_ns / 1e9
        arena.last_ns[batch.slots] = event_ns  # where a slot comes more than once, the last one stays
        self._highest_ns = max(self._highest_ns, int(event_ns.max()))
        poll.watch.lap("align")
        work = Work(batch, event_ns, elapsed_s, samples.positions[batch.at], places(batch.at, len(samples)))
        waves = wave(batch.slots, self._settings.wave_rows)
        scores = blank_scores(samples, work, arena, with_detail=self._scores_detail)
        poll.watch.lap("wave")
        messages = [message for index in waves for message in self._step(arena, lane, work.take(index), scores, poll)]
        poll.count(samples=len(batch.at), gaps=lane.gaps(elapsed_s, arena.decide["elapsed_mean_s"][batch.slots]))
        poll.scores.setdefault(batch.arena, []).append(scores)
        return [(message, lane.alert(message, self.shard, arena)) for message in messages]

    def _join(
        self,
        samples: Samples,
        batch: Batch,
        columns: NDArray[np.intp],
        event_ns: Int64,
        arena: Arena,
        poll: Poll,
    ) -> tuple[Batch, Int64]:
        """Narrow records to the samples that they close, each standing where its closing record stands."""
        joined = join(batch.slots, columns, event_ns, batch.values, partials_of(arena))
        if not joined.accepted.all():
            poll.outcome.rejects += unaligned(samples, batch, joined)
        arena.dirty[batch.slots[joined.accepted]] = True
        closed = Batch(batch.arena, batch.at[joined.closing], joined.slots, joined.values)
        is_observed = np.asarray(~np.isnan(joined.values).all(axis=1), np.bool_)
        if is_observed.all():
            return closed, joined.event_ns
        poll.outcome.rejects += unobserved(samples, closed.at[~is_observed])
        return closed.take(is_observed), joined.event_ns[is_observed]

    def _step(self, arena: Arena, lane: Lane, work: Work, scores: Scores, poll: Poll) -> list[Message]:
        """One wave: infer, decide, and write down what they say."""
        slots, values = work.batch.slots, work.batch.values
        step = infer(lane.model, arena.state, WaveInput(slots, values, work.elapsed_s, work.event_ns), lane.clock)
        arena.dirty[slots] = True
        poll.outcome.wave_s.append(poll.watch.lap("infer"))
        poll.outcome.wave_rows.append(len(slots))
        judged = DecideWave(
            slots=slots,
            event_ns=work.event_ns,
            elapsed_s=work.elapsed_s,
            positions=work.positions,
            score=step.score,
            blame=step.blame,
            values=values,
            expected=step.expected,
            lower=step.lower,
            upper=step.upper,
        )
        decision = decide(arena.decide, arena.band, judged, lane.policy)
        arena.open.difference_update(decision.closed)
        arena.open.update(decision.opened)
        poll.count(anomalies_opened=len(decision.opened), anomalies_closed=len(decision.closed))
        write(scores, work.place, step, decision)
        poll.watch.lap("decide")
        return decision.messages

    # Silence ----------------------------------------------------------------------------------------------------------

    def _looks(self, samples: Samples, positions: Int64) -> NDArray[np.intp]:
        """Before which samples a look for silence falls due: at the first record at or past each 1,000th position."""
        if not self._report_silence or not len(positions):
            return np.empty(0, np.intp)
        thousands = positions // _SILENCE_EVERY
        before = np.concatenate([[self._last_position // _SILENCE_EVERY], thousands[:-1]])
        return np.unique(np.searchsorted(samples.index, np.flatnonzero(thousands > before)))

    def _next_look(self, samples: Samples, start: int, looks: NDArray[np.intp]) -> int | None:
        """The first look that could find something, given the memory as it is before sample `start`.

        What is open now is silent once the highest time passes its last one by `resolve_after_s`. What opens, or is
        heard again, from here on was last heard no earlier than the earliest time from here on. Both bounds hold for
        late and unwanted samples too; at worst a look finds nothing. A narrow record may
        bring a sample that was begun before it.
        """
        if not len(looks):
            return None
        span_ns = min(lane.policy.resolve_after_ns for lane in self._lanes)
        oldest_ns = min((self._oldest_open_ns(number) for number in range(len(self._router.arenas))), default=_NEVER)
        coming = samples.event_ns[start:]
        ending = coming
        if samples.channel_of is not None:
            ending = np.minimum(coming, begun_ns(samples.streams[start:], self._router.slots, self._router.arenas))
        highest = np.maximum.accumulate(np.concatenate([[self._highest_ns], coming]))[looks - start]
        earliest = np.minimum.accumulate(np.concatenate([[_NEVER], ending]))[looks - start]
        due = (highest > oldest_ns) | (highest > np.minimum(earliest, _NEVER - span_ns) + span_ns)
        return int(looks[due.argmax()]) if due.any() else None

    def _oldest_open_ns(self, number: int) -> int:
        """The highest time at which no open anomaly of the arena, of those not told of, is silent yet."""
        arena, policy = self._router.arenas[number], self._lane_of(number).policy
        rows = arena.decide.take(_as_slots(arena.open))
        untold_ns = rows["last_ns"][rows["silent_ns"] != rows["last_ns"]]
        return int(untold_ns.min()) + policy.resolve_after_ns if len(untold_ns) else _NEVER

    def _tell_silence(self, poll: Poll) -> None:
        """Look for silence with the memory as it is, and tell of it."""
        told: list[tuple[Message, Alert]] = []
        for number, arena in enumerate(self._router.arenas):
            lane = self._lane_of(number)
            for message in silence(arena.decide, _as_slots(arena.open), self._highest_ns, lane.policy):
                arena.dirty[message.slot] = True
                told.append((message, lane.alert(message, self.shard, arena)))
        told.sort(key=lambda pair: pair[0].position)
        poll.outcome.alerts += [alert for _, alert in told]
        poll.watch.lap("decide")

    # Memory -----------------------------------------------------------------------------------------------------------

    def snapshot(self, *, full: bool = False) -> Snapshot:
        """Copy what changed since the last snapshot that was kept, or everything. Follow it by `kept` or `dropped`."""
        rows = [arena.snapshot(full=full) for arena in self._router.arenas]
        return Snapshot(
            shard=self.shard,
            next_position=self._next_position,
            highest_event_ns=self._highest_ns,
            arenas=[some for some in rows if some.streams],
            full=full,
            last_position=self._last_position,
        )

    def kept(self) -> None:
        """The last snapshot is durable: forget that its rows were dirty."""
        for arena in self._router.arenas:
            arena.kept()

    def dropped(self) -> None:
        """The last snapshot could not be kept: its rows are dirty again."""
        for arena in self._router.arenas:
            arena.dropped()

    def restore(
        self, next_position: int, highest_event_ns: int, arenas: Sequence[ArenaRows], last_position: int | None = None
    ) -> None:
        """Start from a checkpoint, forgetting what is in memory."""
        self._router = self._new_router()
        self.extend(next_position, highest_event_ns, arenas, last_position)

    def extend(
        self, next_position: int, highest_event_ns: int, arenas: Sequence[ArenaRows], last_position: int | None = None
    ) -> None:
        """Go on from a later checkpoint: its rows replace those in memory, the others stay."""
        self._next_position, self._highest_ns = next_position, highest_event_ns
        self._last_position = next_position - 1 if last_position is None else last_position
        for rows in arenas:
            self.adopt(rows)

    def adopt(self, rows: ArenaRows) -> None:
        """Take rows that were saved before: of a checkpoint, or brought back one by one. Later rows replace earlier."""
        names = [lane.detector.name for lane in self._lanes]
        if rows.detector not in names:
            raise LineageError(self.shard, "detector of saved rows", expected=f"one of {names}", got=rows.detector)
        number = self._router.arena(names.index(rows.detector), rows.channels)
        slots = self._router.take_in(number, rows.streams, rows.labels)
        arena = self._router.arenas[number]
        arena.write(slots, rows)
        arena.open.difference_update(slots.tolist())
        arena.open.update(slots[open_slots(arena.decide[slots])].tolist())

    def _new_router(self) -> Router:
        return Router(
            self.shard.topic,
            [lane.claim for lane in self._lanes],
            max_streams=self._settings.max_streams,
            rejects_unknown=self._record.unknown_channels == "reject",
        )

    def _lane_of(self, arena: int) -> Lane:
        return self._lanes[self._router.claim_of[arena]]


def _as_slots(slots: set[int]) -> NDArray[np.intp]:
    return np.fromiter(slots, np.intp, len(slots))
