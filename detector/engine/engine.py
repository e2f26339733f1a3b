"""The engine: carries polls through the stages over a shard's memory, and looks across it where positions say so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.alerts import Message
from detector.engine.lane import Detector, Lane, require_channels
from detector.engine.memory import ShardMemory, as_slots
from detector.engine.partials import begun_ns, close_all, partials_of
from detector.engine.poll import Poll, Stopwatch, Work, blank_scores, places, unaligned, unobserved, write
from detector.records import (
    NO_TIME,
    Alert,
    Int64,
    Outcome,
    Records,
    Reject,
    Samples,
    Scores,
    Shard,
)
from detector.settings import EngineSettings, RecordSettings
from detector.stages.align import align, join
from detector.stages.decide import DecideWave, decide, silence
from detector.stages.decode import Decoder, screen
from detector.stages.infer import WaveInput, infer
from detector.stages.route import Batch
from detector.stages.wave import wave
from detector.state.arena import Arena

_SILENCE_EVERY = 1000  # positions between two looks for silence; docs/contract.md, Decide 5
_FORGET_EVERY = 65_536  # positions between two looks for streams to forget
_NEVER = np.iinfo(np.int64).max
_NO_LOOKS = np.empty(0, np.intp)


class Engine(ShardMemory):
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
        self._record, self._settings = record, settings
        self._scores_detail, self._report_silence = scores_detail, report_silence
        if self.is_narrow:
            require_channels(detectors, str(shard), [shard.topic])
        super().__init__(
            shard,
            [Lane(detector, shard, is_narrow=self.is_narrow) for detector in detectors],
            max_streams=settings.max_streams,
            max_cold_streams=settings.max_cold_streams,
            rejects_unknown=record.unknown_channels == "reject",
        )
        self._forget_after_ns = None if settings.forget_after_s is None else round(settings.forget_after_s * 1e9)
        self._decoder = Decoder(record)
        self._decoded: tuple[Records, Samples, list[Reject]] | None = None

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

    @property
    def is_narrow(self) -> bool:
        """Whether a record is one channel's value."""
        return self._record.channel is not None

    def known(self, streams: Sequence[str]) -> list[str]:
        """Those of the streams that have memory here, wherever it is."""
        return [stream for stream in streams if stream in self._router.slots or stream in self.cold]

    def wanted(self, records: Records) -> dict[int, list[int]]:
        """Which cold rows these records need: segment > rows; to be brought back before `advance`."""
        samples, _ = self._decode(records)
        return self.cold.places(samples.streams)

    def _decode(self, records: Records) -> tuple[Samples, list[Reject]]:
        if self._decoded is None or self._decoded[0] is not records:
            self._decoded = (records, *self._decoder.decode(records))
        return self._decoded[1:]

    def _carry(self, samples: Samples, positions: Int64, outcome: Outcome, watch: Stopwatch) -> Outcome:
        """Run a poll's samples: in one go, or cut where memory must be looked across."""
        samples, rejects = screen(samples, self._record.future_s)
        watch.lap("decode")
        outcome.rejects += rejects
        poll = Poll(outcome, watch)
        self._polls += 1
        poll.count(streams_returned=self._returned)
        self._returned = 0
        looks = self._looks(samples, positions, _SILENCE_EVERY if self._report_silence else None)
        cleanings = self._looks(samples, positions, None if self._forget_after_ns is None else _FORGET_EVERY)
        start = 0
        while (cut := self._next_cut(samples, start, looks, cleanings)) is not None:
            self._run(samples.take(np.arange(start, cut)), poll)
            if cut in looks:
                self._tell_silence(poll)
            if cut in cleanings:
                self._forget(poll)
            start, looks, cleanings = cut, looks[looks > cut], cleanings[cleanings > cut]
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
        poll.outcome.created += routed.created
        poll.count(streams_created=len(routed.created), unknown_channels=routed.unknown_channels)
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
        arena.touched[batch.slots] = self._polls
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
        further = lane.further(arena, slots, work.positions, work.event_ns)
        given = WaveInput(slots, values, work.elapsed_s, work.event_ns, further)
        step = infer(lane.model, arena.state, given, lane.clock)
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

    # Looks across streams ---------------------------------------------------------------------------------------------

    def _looks(self, samples: Samples, positions: Int64, every: int | None) -> NDArray[np.intp]:
        """Before which samples a look falls due: at the first record at or past each multiple of `every` positions."""
        if every is None or not len(positions):
            return _NO_LOOKS
        multiples = positions // every
        before = np.concatenate([[self._last_position // every], multiples[:-1]])
        return np.unique(np.searchsorted(samples.index, np.flatnonzero(multiples > before)))

    def _next_cut(
        self, samples: Samples, start: int, looks: NDArray[np.intp], cleanings: NDArray[np.intp]
    ) -> int | None:
        """The first look of either kind that could find something."""
        cuts = (self._next_look(samples, start, looks), self._next_cleaning(samples, start, cleanings))
        return min((cut for cut in cuts if cut is not None), default=None)

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
        ending = coming = samples.event_ns[start:]
        if samples.channel_of is not None:
            ending = np.minimum(coming, begun_ns(samples.streams[start:], self._router.slots, self._router.arenas))
        highest, earliest = self._bounds(coming, ending, looks - start)
        due = (highest > oldest_ns) | (highest > np.minimum(earliest, _NEVER - span_ns) + span_ns)
        return int(looks[due.argmax()]) if due.any() else None

    def _next_cleaning(self, samples: Samples, start: int, cleanings: NDArray[np.intp]) -> int | None:
        """The first look that could find a stream to forget, by the same two bounds."""
        if not len(cleanings) or self._forget_after_ns is None:
            return None
        coming = samples.event_ns[start:]
        highest, earliest = self._bounds(coming, coming, cleanings - start)
        oldest = np.minimum(earliest, self._oldest_heard_ns())
        due = highest > np.minimum(oldest, _NEVER - self._forget_after_ns) + self._forget_after_ns
        return int(cleanings[due.argmax()]) if due.any() else None

    def _bounds(self, coming: Int64, ending: Int64, at: NDArray[np.intp]) -> tuple[Int64, Int64]:
        """The highest and the earliest time that memory can hold before each of the samples `at`."""
        highest: Int64 = np.maximum.accumulate(np.concatenate([[self._highest_ns], coming]))[at]
        earliest: Int64 = np.minimum.accumulate(np.concatenate([[_NEVER], ending]))[at]
        return highest, earliest

    def _forget(self, poll: Poll) -> None:
        """Forget the streams that were not heard for too long, against the highest event time."""
        if self._forget_after_ns is not None and self._highest_ns != NO_TIME:
            before_ns = self._highest_ns - self._forget_after_ns
            poll.count(streams_forgotten=self.forget(before_ns, spare_untold=self._report_silence))
        poll.watch.lap("route")

    def _oldest_open_ns(self, number: int) -> int:
        """The highest time at which no open anomaly of the arena, of those not told of, is silent yet."""
        arena, policy = self._router.arenas[number], self._lane_of(number).policy
        rows = arena.decide.take(as_slots(arena.open))
        untold_ns = rows["last_ns"][rows["silent_ns"] != rows["last_ns"]]
        return int(untold_ns.min()) + policy.resolve_after_ns if len(untold_ns) else _NEVER

    def _tell_silence(self, poll: Poll) -> None:
        """Look for silence with the memory as it is, and tell of it."""
        told: list[tuple[Message, Alert]] = []
        for number, arena in enumerate(self._router.arenas):
            lane = self._lane_of(number)
            for message in silence(arena.decide, as_slots(arena.open), self._highest_ns, lane.policy):
                arena.dirty[message.slot] = True
                told.append((message, lane.alert(message, self.shard, arena)))
        told.sort(key=lambda pair: pair[0].position)
        poll.outcome.alerts += [alert for _, alert in told]
        poll.watch.lap("decide")
