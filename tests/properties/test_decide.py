"""`decide` over arrays equals the plain rules, one stream and one sample at a time, however samples fall into waves."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.alerts import Message
from detector.stages.decide import Policy, decide, initial_decide, open_slots, silence
from tests.decide_feed import NAN, S, ns, policy, wave_of

Said = tuple[Any, ...]
"""What is compared of a message."""
STREAMS = 4


@dataclass
class Plain:
    """The contract's "Decide, per stream", written down as it reads."""

    how: Policy
    mean: float = 0.0
    weight: int = 100
    exceedances: int = 0
    clusters: int = 0
    correction: float = 0.0
    alarms: int = 0
    below: int = 10  # samples since the last strange one
    run_start: int | None = None
    band: tuple[float, float] | None = None
    in_a_row: int = 0
    peak: float = 0.0
    cool_until: int = 0
    is_open: bool = False

    def __post_init__(self) -> None:
        self.mean = self.how.period_s or 0.0

    def judge(self, sample: S, elapsed: float, position: int) -> tuple[int, float, list[Said]]:
        """One sample: is it in an anomaly, by which threshold, what is said."""
        self.time, self.position, said = ns(sample.t), position, []
        self.score = float(np.float32(sample.score))
        if not self.is_open:
            self._follow(elapsed)
        threshold = self._threshold()
        if self.is_open and elapsed > self.how.resolve_after_s:
            self.sequence += 1
            said.append(self._say("close", "gap", ended=self.last))
            self._close()
        if self.is_open:
            return 1, self.fired_threshold, said + self._go_on(sample)
        said += self._watch(sample, threshold)
        return int(self.is_open), threshold, said

    def _follow(self, elapsed: float) -> None:
        if elapsed == 0.0:
            return
        if self.mean == 0.0:
            self.mean = elapsed
            return
        self.weight, counted = min(self.weight + 1, 100_000), min(elapsed, 100 * self.mean)
        self.mean += (counted - self.mean) / self.weight
        if self.weight > 100 + self.how.warm_up:
            promised = counted * (self.how.budget_per_day / 86_400)
            self.correction = max(self.correction - self._step() * promised, -2.0)

    def _step(self) -> float:
        return max(0.43 / (self.alarms + 1), 0.05)

    def _threshold(self) -> float:
        counts = np.array([self.exceedances]), np.array([self.clusters])
        return float(self.how.thresholds(np.array([self.mean]), *counts, np.array([self.correction]))[0])

    def _low_below(self, threshold: float) -> float:
        return max(threshold - self.how.hysteresis_nines, threshold * (1 / 3))

    def _watch(self, sample: S, threshold: float) -> list[Said]:
        is_low, is_strange = self.score < self._low_below(threshold), self.score >= threshold
        if is_low:
            self.run_start, self.band, self.peak = None, None, 0.0
        else:
            self.run_start = self.time if self.run_start is None else self.run_start
            self.peak = max(self.peak, self.score)
        if not is_strange:
            self.in_a_row = 0
            self.below += 1
            return []
        self.in_a_row += 1
        self.band = self.band or (sample.expected - 1, sample.expected + 1)
        if self.in_a_row >= self.how.min_samples and self.time >= self.cool_until:
            return [self._fire(sample, threshold)]
        self._count(1)
        return []

    def _count(self, strange: int) -> None:
        self.clusters += self.below >= 10
        self.exceedances += strange
        self.below = 0

    def _fire(self, sample: S, threshold: float) -> Said:
        self.is_open, self.fired, self.fired_position, self.fired_threshold = True, self.time, self.position, threshold
        self.sequence, self.strange, self.calm, self.told_channel = 0, 1, 0, sample.top
        self.told, self.told_peak, self.last = self.time, self.peak, self.time
        return self._say("open", "threshold")

    def _go_on(self, sample: S) -> list[Said]:
        is_low, is_strange = self.score < self._low_below(self.fired_threshold), self.score >= self.fired_threshold
        assert self.band is not None
        low, high = self.band[0] - 1, self.band[1] + 1  # doubled
        is_inside = all(low <= value <= high for value in sample.values if value == value)
        self.last = self.time
        self.peak = max(self.peak, self.score)
        self.strange += is_strange
        self.calm = self.calm + 1 if is_low and is_inside else 0
        reasons = {
            "recovered": self.calm >= self.how.resolve_samples,
            "adapted": is_low and not is_inside and self.time - self.fired >= self.how.adapt_after_ns,
            "peak": self.peak - self.told_peak >= 1,
            "blame": is_strange and sample.top != self.told_channel,
            "interval": self.time - self.told >= self.how.update_every_ns,
        }
        reason = next((name for name, holds in reasons.items() if holds), None)
        if reason is None:
            return []
        self.sequence += 1
        self.told, self.told_peak = self.time, self.peak
        self.told_channel = sample.top if is_strange else self.told_channel
        if reason not in ("recovered", "adapted"):
            return [self._say("update", reason)]
        said = self._say("close", reason, ended=self.time)
        self._close()
        return [said]

    def _close(self) -> None:
        if self.strange <= 10 * self.how.exceedances_per_alarm:
            self.correction = min(self.correction + self._step(), 2.0)
            self.alarms += 1
            self._count(self.strange)
        self.is_open, self.cool_until = False, self.time + self.how.cool_down_ns
        self.run_start, self.band, self.in_a_row, self.peak = None, None, 0, 0.0

    def _say(self, event: str, reason: str, ended: int | None = None) -> Said:
        return (
            event,
            reason,
            self.sequence,
            self.position,
            self.time,
            self.score,
            self.peak,
            self.fired_threshold,
            self.run_start,
            self.fired,
            self.fired_position,
            ended,
        )


def said_of(m: Message) -> Said:
    """A message, as the plain rules say it."""
    return (
        m.event,
        m.reason,
        m.sequence,
        m.position,
        m.time_ns,
        m.score,
        m.peak,
        m.threshold,
        m.started_ns,
        m.fired_ns,
        m.fired_position,
        m.ended_ns,
    )


@dataclass
class Told:
    """What came of one stream."""

    anomaly: list[int]
    threshold: list[float]
    said: list[Said]


def plainly(feed: list[S], how: Policy, stream: int) -> Told:
    """One stream by the plain rules."""
    plain, told = Plain(how), Told([], [], [])
    for j, sample in enumerate(feed):
        anomaly, threshold, said = plain.judge(sample, sample.t - feed[j - 1].t if j else 0.0, j * STREAMS + stream)
        told.anomaly.append(anomaly)
        told.threshold.append(threshold)
        told.said += said
    return told


def in_waves(feeds: list[list[S]], how: Policy, chance: random.Random | None, *, notices: bool = False) -> list[Told]:
    """All streams together: in waves of one sample each, or in waves drawn by chance."""
    rows, band = initial_decide(how, STREAMS), np.full((STREAMS, 2, 2), np.nan)
    told, done = [Told([], [], []) for _ in feeds], [0] * STREAMS
    while waiting := [s for s in range(STREAMS) if done[s] < len(feeds[s])]:
        slots = waiting if chance is None else chance.sample(waiting, chance.randint(1, len(waiting)))
        samples = [feeds[s][done[s]] for s in slots]
        elapsed = [feeds[s][done[s]].t - feeds[s][done[s] - 1].t if done[s] else 0.0 for s in slots]
        decision = decide(rows, band, wave_of(slots, samples, elapsed, [done[s] * STREAMS + s for s in slots]), how)
        for i, s in enumerate(slots):
            told[s].anomaly.append(int(decision.anomaly[i]))
            told[s].threshold.append(float(decision.threshold[i]))
            done[s] += 1
        for message in decision.messages:
            told[message.slot].said.append(said_of(message))
        if notices and chance is not None:
            silence(rows, open_slots(rows), ns(chance.choice([0, 2000, 10**6])), how)
    return told


SAMPLE = st.tuples(
    st.sampled_from([1.0, 1.0, 1.0, 60.0, 299.0, 301.0, 900.0, 901.0, 4000.0]),  # seconds since the one before
    st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.4, 2.0, 2.9, 3.0, 3.9, 4.0, 5.0, 6.5, 12.0]),
    st.sampled_from([(0.0, 0.0), (0.0, NAN), (1.9, -2.0), (2.5, 0.0), (NAN, -9.0)]),
    st.sampled_from([0.0, 0.0, 3.0]),
    st.integers(0, 1),
)


@st.composite
def feeds(draw: st.DrawFn) -> list[list[S]]:
    """Some streams, of different lengths."""
    streams = []
    for _ in range(STREAMS):
        t, feed = 0.0, []
        for elapsed, score, values, expected, top in draw(st.lists(SAMPLE, min_size=1, max_size=40)):
            t += elapsed
            feed.append(S(t, score, values, expected, top))
        streams.append(feed)
    return streams


policies = st.builds(
    policy,
    bundle_threshold=st.sampled_from([None, None, 4.0]),
    bundle_budget=st.sampled_from([0.1, 20.0, 1000.0]),
    exceedances=st.sampled_from([0.2, 1.0, 3.0]),
    period_s=st.sampled_from([None, 1.0, 60.0]),
    warm_up=st.sampled_from([-100, -90, 0]),  # the prior counts for 100 samples more
    min_samples=st.integers(1, 3),
    hysteresis_nines=st.sampled_from([0.0, 1.0, 9.0]),
    resolve_samples=st.integers(1, 3),
    cool_down_s=st.sampled_from([0.0, 300.0]),
    adapt_after_s=st.sampled_from([60.0, 3600.0]),
    update_every_s=st.sampled_from([0.0, 900.0, 5000.0]),
)


@settings(deadline=None, max_examples=150)
@given(feeds(), policies, st.randoms(use_true_random=False))
def test_vectorised_is_plain(feeds: list[list[S]], how: Policy, chance: random.Random) -> None:
    """Over many streams, in any partition into waves, each stream gets what the plain rules give it alone."""
    plain = [plainly(feed, how, stream) for stream, feed in enumerate(feeds)]
    assert in_waves(feeds, how, None) == plain
    assert in_waves(feeds, how, chance) == plain


@settings(deadline=None, max_examples=50)
@given(feeds(), policies, st.randoms(use_true_random=False))
def test_notices_of_silence_change_nothing_else(feeds: list[list[S]], how: Policy, chance: random.Random) -> None:
    """When and whether silence is told of moves no score, anomaly or other message."""
    assert in_waves(feeds, how, chance, notices=True) == in_waves(feeds, how, None)


@settings(deadline=None, max_examples=50)
@given(feeds(), policies)
def test_messages_tell_a_whole_story(feeds: list[list[S]], how: Policy) -> None:
    """Anomalies open once, count up, close once, and `anomaly` is 1 from the firing to the closing sample exactly."""
    for told, feed in zip(in_waves(feeds, how, None), feeds, strict=True):
        open_at: int | None = None
        flagged = [0] * len(feed)
        for event, reason, sequence, position, *_ in told.said:
            if event == "open":
                assert (open_at, sequence) == (None, 0)
                open_at, expected_sequence = position // STREAMS, 0
            assert open_at is not None
            assert sequence == expected_sequence
            expected_sequence += 1
            if event == "close":
                end = position // STREAMS + (reason != "gap")
                flagged[open_at:end] = [1] * (end - open_at)
                open_at = None
        if open_at is not None:
            flagged[open_at:] = [1] * (len(feed) - open_at)
        assert told.anomaly == flagged
