"""The life of an anomaly: watch, fire, go on, close.

Every sample passes the threshold, in a few operations over the whole wave. Only streams where something goes on come
further, gathered into `own`, a copy of their rows that is changed column by column and put back:

    CALM --elevated--> STIRRED --strange--> RISEN --min_samples in a row, no cool-down--> OPEN
    OPEN --recovered, adapted, gap--> STIRRED --low, cluster over--> CALM

A score is *strange* from the threshold on, *low* below the threshold less the hysteresis, *elevated* where not low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from detector.alerts import Cause, Event, Message, Reading
from detector.records import NO_TIME, Bytes, Float32, Float64, Int64
from detector.stages.decide.columns import CALM, OPEN, RISEN, STIRRED, Rows
from detector.stages.decide.policy import Policy, fall, follow_rate, rise
from detector.state.arena import put_rows

Slots: TypeAlias = NDArray[np.intp]
Mask: TypeAlias = NDArray[np.bool_]

_CLUSTER_END = 10  # samples below the threshold that end a cluster of exceedances
_PEAK_STEP = 1.0  # nines that the peak must rise by to be told again
_BAND_FLOOR = 1e-12  # of the level: half-width of a band that has none; 1 at 1e12, where counters step by 1
_CAUSES: tuple[Cause, ...] = ("recovered", "adapted", "peak", "blame", "interval")
"""Why an open anomaly is spoken of; the first that holds."""
_LAST_NS = np.iinfo(np.int64).max


@dataclass(slots=True)
class DecideWave:
    """One sample each of B streams, scored; B rows, C channels."""

    slots: Slots
    event_ns: Int64
    elapsed_s: Float64
    """(B,) 0 on a stream's first sample."""
    positions: Int64
    score: Float32
    blame: Float32
    """(B, C)"""
    values: Float64
    """(B, C) raw units, NaN where missing."""
    expected: Float64
    lower: Float64
    upper: Float64

    def part(self, rows: Slots) -> DecideWave:
        """Those rows of the wave."""
        return DecideWave(
            self.slots[rows],
            self.event_ns[rows],
            self.elapsed_s[rows],
            self.positions[rows],
            self.score[rows],
            self.blame[rows],
            self.values[rows],
            self.expected[rows],
            self.lower[rows],
            self.upper[rows],
        )


@dataclass(slots=True)
class Decision:
    """What `decide` made of a wave."""

    anomaly: Bytes
    """(B,) 1 from the firing to the closing sample."""
    threshold: Float32
    """(B,) nines, in force for the sample."""
    messages: list[Message]
    closed: list[int]
    """Slots whose anomaly closed; one that closed by gap may open again with the same sample."""
    opened: list[int]
    """Slots whose anomaly opened."""


def decide(rows: Rows, band: Float64, wave: DecideWave, policy: Policy) -> Decision:
    """Judge one wave; changes the rows and the bands of its slots.

    Args:
        rows: (slots,) of dtype DECIDE.
        band: (slots, 2, C) lower and upper of the first strange sample of each stream's run.
        wave: At most one sample per stream.
        policy: How to judge.
    """
    slots = wave.slots
    phase = rows["phase"][slots]
    is_open = phase == OPEN
    threshold = _thresholds(rows, wave, is_open, policy)
    decision = Decision(np.zeros(len(slots), np.uint8), threshold, [], [], [])
    watched = (phase != CALM) | (wave.score >= policy.low_below(threshold))
    if is_open.any():
        is_gap = is_open & (wave.elapsed_s > policy.resolve_after_s)
        _close_by_gap(rows, wave, np.flatnonzero(is_gap), policy, decision)
        goes_on = is_open & ~is_gap
        _go_on(rows, band, wave, np.flatnonzero(goes_on), policy, decision)
        watched &= ~goes_on
    _watch(rows, band, wave, np.flatnonzero(watched), policy, decision)
    decision.messages.sort(key=lambda message: message.position)
    return decision


def _thresholds(rows: Rows, wave: DecideWave, is_open: Mask, policy: Policy) -> Float32:
    """Follow each stream's rate and budget, and say which threshold they lead to."""
    slots = wave.slots
    mean_s, count, counted_s = follow_rate(
        rows["elapsed_mean_s"][slots], rows["elapsed_count"][slots], wave.elapsed_s, is_open
    )
    correction = fall(rows["correction"][slots], rows["alarms"][slots], counted_s, count, policy)
    rows["elapsed_mean_s"][slots] = mean_s
    rows["elapsed_count"][slots] = count
    rows["correction"][slots] = correction
    return policy.thresholds(mean_s, rows["exceedances"][slots], rows["clusters"][slots], correction)


def _watch(rows: Rows, band: Float64, wave: DecideWave, which: Slots, policy: Policy, decision: Decision) -> None:
    """Follow runs and clusters where no anomaly is open, and fire."""
    if not which.size:
        return
    part, threshold = wave.part(which), decision.threshold[which]
    own = rows.take(part.slots)
    low, strange = part.score < policy.low_below(threshold), part.score >= threshold
    _keep_bands(band, part, strange & (own["phase"] != RISEN))
    risen = ~low & (strange | (own["phase"] == RISEN))
    in_run = own["run_started_ns"] != NO_TIME
    own["run_started_ns"] = np.where(low, NO_TIME, np.where(in_run, own["run_started_ns"], part.event_ns))
    own["strange"] = np.where(strange, own["strange"] + 1, 0)
    own["peak"] = np.where(low, 0.0, np.maximum(own["peak"], part.score))
    fires = (own["strange"] >= policy.min_samples) & (part.event_ns >= own["cool_until_ns"])
    _count_exceedances(own, strange & ~fires, ~strange)
    stirred = ~low | (own["cluster_left"] > 0)
    own["phase"] = np.select([fires, risen, stirred], [OPEN, RISEN, STIRRED], CALM)
    _fire(own, part, threshold, fires)
    put_rows(rows, part.slots, own)
    decision.anomaly[which] = fires
    decision.opened += part.slots[fires].tolist()
    decision.messages += [_message(own, part, i, "open", "threshold") for i in np.flatnonzero(fires).tolist()]


def _keep_bands(band: Float64, part: DecideWave, first: Mask) -> None:
    """Keep the band of a run's first strange sample: from the next one on it may follow the fault."""
    slots = part.slots[first]
    band[slots, 0], band[slots, 1] = part.lower[first], part.upper[first]


def _count_exceedances(own: Rows, exceeds: Mask, below: Mask) -> None:
    """Count strange samples and the clusters that they come in; a firing sample is counted when its anomaly closes."""
    left = own["cluster_left"]
    own["clusters"] += exceeds & (left == 0)
    own["exceedances"] += exceeds
    own["cluster_left"] = np.where(exceeds, _CLUSTER_END, np.where(below, np.maximum(left - 1, 0), left))


def _fire(own: Rows, part: DecideWave, threshold: Float32, fires: Mask) -> None:
    own["fired_ns"][fires] = part.event_ns[fires]
    own["fired_position"][fires] = part.positions[fires]
    own["fired_threshold"][fires] = threshold[fires]
    own["strange"][fires] = 1
    own["calm"][fires] = 0
    own["sequence"][fires] = 0
    own["message_channel"][fires] = part.blame[fires].argmax(axis=1)
    _remember_sample(own, part, fires)
    _remember_message(own, part, fires)


def _go_on(rows: Rows, band: Float64, wave: DecideWave, which: Slots, policy: Policy, decision: Decision) -> None:
    """Carry open anomalies on by a sample: update or close them."""
    if not which.size:
        return
    part = wave.part(which)
    own = rows.take(part.slots)
    threshold = own["fired_threshold"].astype(np.float32)
    low, strange = part.score < policy.low_below(threshold), part.score >= threshold
    inside = low & _is_inside_doubled(part.values, band[part.slots])
    own["peak"] = np.maximum(own["peak"], part.score)
    own["strange"] += strange
    own["calm"] = np.where(inside, own["calm"] + 1, 0)
    _remember_sample(own, part, np.ones(len(which), np.bool_))
    recovers = own["calm"] >= policy.resolve_samples
    adapts = low & ~inside & (part.event_ns - own["fired_ns"] >= policy.adapt_after_ns)
    closes = recovers | adapts
    most_blamed = part.blame.argmax(axis=1)
    rises = own["peak"] - own["message_peak"] >= _PEAK_STEP
    shifts = strange & (most_blamed != own["message_channel"])
    says = closes | rises | shifts | (part.event_ns - own["message_ns"] >= policy.update_every_ns)
    causes = np.select([recovers, adapts, rises, shifts], [0, 1, 2, 3], 4)  # index into _CAUSES
    own["sequence"] += says
    own["message_channel"] = np.where(says & strange, most_blamed, own["message_channel"])
    _remember_message(own, part, says)
    for i in np.flatnonzero(says).tolist():
        decision.messages.append(_message(own, part, i, "close" if closes[i] else "update", _CAUSES[causes[i]]))
    _settle(own, part, closes, policy)
    put_rows(rows, part.slots, own)
    decision.anomaly[which] = 1
    decision.threshold[which] = threshold
    decision.closed += part.slots[closes].tolist()


def _is_inside_doubled(values: Float64, band: Float64) -> Mask:
    """Whether all observed values lie inside the kept band, doubled about its middle; halves do not overflow."""
    middle = band[:, 0] / 2 + band[:, 1] / 2  # (n, C), channel units
    half_width = np.maximum(band[:, 1] / 2 - band[:, 0] / 2, np.abs(middle) * _BAND_FLOOR)
    is_inside = np.isnan(values) | (np.abs(values / 2 - middle / 2) <= half_width)
    all_inside: Mask = np.all(is_inside, axis=1)
    return all_inside


def _close_by_gap(rows: Rows, wave: DecideWave, which: Slots, policy: Policy, decision: Decision) -> None:
    """Close anomalies whose stream was away for too long; the sample that tells is then judged as any other."""
    if not which.size:
        return
    part = wave.part(which)
    own = rows.take(part.slots)
    own["sequence"] += 1
    decision.messages += [_message(own, part, i, "close", "gap") for i in range(len(which))]
    _settle(own, part, np.ones(len(which), np.bool_), policy)
    put_rows(rows, part.slots, own)
    decision.closed += part.slots.tolist()


def _settle(own: Rows, part: DecideWave, closes: Mask, policy: Policy) -> None:
    """Return closed anomalies to be watched, cooling down.

    A short one counts as an alarm and as a cluster, for else a stream whose strange samples come in bursts would never
    tell how long they are, each being hidden by the anomaly that it opens. A long one, most likely true, leaves both
    alone.
    """
    counts = closes & (own["strange"] <= policy.largest_cluster)
    own["correction"] = np.where(counts, rise(own["correction"], own["alarms"]), own["correction"])
    own["alarms"] += counts
    own["clusters"] += counts & (own["cluster_left"] == 0)
    own["exceedances"] += np.where(counts, own["strange"], 0)
    own["cluster_left"][counts] = _CLUSTER_END
    own["cool_until_ns"][closes] = (
        np.minimum(part.event_ns[closes], _LAST_NS - policy.cool_down_ns) + policy.cool_down_ns
    )
    own["phase"][closes] = STIRRED
    own["run_started_ns"][closes] = NO_TIME
    own["strange"][closes] = 0
    own["peak"][closes] = 0.0


def _remember_sample(own: Rows, part: DecideWave, which: Mask) -> None:
    """Note the anomaly's last sample, of which a notice of silence will speak."""
    own["last_ns"][which] = part.event_ns[which]
    own["last_position"][which] = part.positions[which]
    own["last_score"][which] = part.score[which]


def _remember_message(own: Rows, part: DecideWave, which: Mask) -> None:
    own["message_ns"][which] = part.event_ns[which]
    own["message_peak"][which] = own["peak"][which]


def _message(own: Rows, part: DecideWave, i: int, event: Event, reason: Cause) -> Message:
    """Say something about the anomaly of row i, by the sample at hand."""
    time_ns = int(part.event_ns[i])
    ended_ns = None if event != "close" else int(own["last_ns"][i])  # by gap: the last sample before it
    return Message(
        slot=int(part.slots[i]),
        event=event,
        reason=reason,
        sequence=int(own["sequence"][i]),
        position=int(part.positions[i]),
        time_ns=time_ns,
        score=float(part.score[i]),
        peak=float(own["peak"][i]),
        threshold=float(own["fired_threshold"][i]),
        started_ns=int(own["run_started_ns"][i]),
        fired_ns=int(own["fired_ns"][i]),
        fired_position=int(own["fired_position"][i]),
        ended_ns=ended_ns,
        reading=Reading(part.values[i], part.expected[i], part.lower[i], part.upper[i], part.blame[i]),
    )


def open_slots(rows: Rows) -> Slots:
    """Find the streams with an open anomaly; for after a restore."""
    return np.flatnonzero(rows["phase"] == OPEN)


def silence(rows: Rows, slots: Slots, highest_event_ns: int, policy: Policy) -> list[Message]:
    """Tell, once per silence, of open anomalies whose stream has fallen silent; nothing but that mark changes.

    Args:
        rows: (slots,) of dtype DECIDE.
        slots: Streams with an open anomaly, in any order.
        highest_event_ns: The shard's highest accepted event time.
        policy: How long is silent.

    Returns:
        Notices in the order of the streams' last positions; the rows of their slots are dirty.
    """
    slots = np.asarray(slots, np.intp)
    last_ns = rows["last_ns"][slots]
    is_silent = (highest_event_ns - last_ns > policy.resolve_after_ns) & (rows["silent_ns"][slots] != last_ns)
    told = slots[is_silent]
    rows["silent_ns"][told] = last_ns[is_silent]
    return sorted((_notice(rows[slot], int(slot)) for slot in told), key=lambda message: message.position)


def _notice(row: np.void, slot: int) -> Message:
    return Message(
        slot=slot,
        event="silent",
        reason="silent",
        sequence=int(row["sequence"]),
        position=int(row["last_position"]),
        time_ns=int(row["last_ns"]),
        score=float(row["last_score"]),
        peak=float(row["peak"]),
        threshold=float(row["fired_threshold"]),
        started_ns=int(row["run_started_ns"]),
        fired_ns=int(row["fired_ns"]),
        fired_position=int(row["fired_position"]),
        ended_ns=int(row["last_ns"]),
        reading=None,
    )
