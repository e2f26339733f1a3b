"""Feeds for `decide` as values: one stream's samples in, what was said of each out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from detector.alerts import Message
from detector.settings import DecideSettings
from detector.stages.decide import DecideWave, Policy, decide, initial_decide, silence
from detector.stages.decide.columns import Rows

START_NS = 1_700_000_000 * 10**9
NAN = float("nan")


@dataclass(frozen=True)
class S:
    """A sample at `t` seconds; the forecast is `expected` +- 1 for every channel."""

    t: float
    score: float = 0.0
    values: tuple[float, ...] = (0.0,)
    expected: float = 0.0
    top: int = 0
    """The most blamed channel."""


def policy(
    *,
    bundle_threshold: float | None = None,
    bundle_budget: float = 0.1,
    exceedances: float = 1.0,
    period_s: float | None = 60.0,
    warm_up: int = 10_000,
    **settings: Any,
) -> Policy:
    """A policy from settings, with a bundle's defaults beside them."""
    defaults = SimpleNamespace(
        budget_per_day=bundle_budget,
        exceedances_per_alarm=exceedances,
        threshold_nines=bundle_threshold,
        period_s=period_s,
        warm_up=warm_up,
    )
    return Policy.of(DecideSettings(**settings), defaults)


def fixed(**settings: Any) -> Policy:
    """Threshold 4, low below 3, nothing else in the way of firing."""
    return policy(**{"threshold_nines": 4.0, "cool_down_s": 0.0} | settings)


@dataclass
class Run:
    """What came of a feed: per sample, and all messages in order."""

    rows: Rows
    anomaly: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)

    @property
    def said(self) -> list[tuple[float, str, str]]:
        """(t, event, reason) of each message."""
        return [(seconds(m.time_ns), m.event, m.reason) for m in self.messages]


def ns(t: float) -> int:
    """Event time of `t`."""
    return START_NS + round(t * 1e9)


def seconds(time_ns: int) -> float:
    """Back to the `t` of a feed."""
    return (time_ns - START_NS) / 1e9


def play(feed: Sequence[S], how: Policy, *, notice_at: dict[int, float] | None = None) -> Run:
    """Run one stream through `decide`, a wave a sample; position of sample i is i.

    Args:
        feed: The samples.
        how: The policy.
        notice_at: After which sample to look for silence, and with which highest event time of the shard.
    """
    channels = len(feed[0].values)
    run, band = Run(initial_decide(how, 1)), np.full((1, 2, channels), np.nan)
    for i, sample in enumerate(feed):
        elapsed = sample.t - feed[i - 1].t if i else 0.0
        decision = decide(run.rows, band, wave_of([0], [sample], [elapsed], [i]), how)
        run.anomaly += decision.anomaly.tolist()
        run.threshold += decision.threshold.tolist()
        run.messages += decision.messages
        if notice_at and i in notice_at:
            run.messages += silence(run.rows, np.array([0]), ns(notice_at[i]), how)
    return run


def wave_of(
    slots: Sequence[int], samples: Sequence[S], elapsed_s: Sequence[float], positions: Sequence[int]
) -> DecideWave:
    """One sample each of several streams."""
    values = np.array([sample.values for sample in samples])
    expected = np.array([[sample.expected] * values.shape[1] for sample in samples])
    blame = np.zeros(values.shape, np.float32)
    blame[np.arange(len(samples)), [sample.top for sample in samples]] = 1.0
    return DecideWave(
        slots=np.array(slots, np.intp),
        event_ns=np.array([ns(sample.t) for sample in samples]),
        elapsed_s=np.array(elapsed_s, np.float64),
        positions=np.array(positions, np.int64),
        score=np.array([sample.score for sample in samples], np.float32),
        blame=blame,
        values=values,
        expected=expected,
        lower=expected - 1.0,
        upper=expected + 1.0,
    )
