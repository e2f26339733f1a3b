"""Trajectories: what a stream may do next, sampled from the detector's own forecasts.

A bundle forecasts one sample: its centre and the band that it will lie in. One to many, a value is drawn from that
forecast, given to the detector as if it had been measured, and so on until the horizon: ancestral sampling, as in
DeepAR (Salinas et al. 2020). Many such trajectories make a fan. Uncertainty grows with the horizon by itself, and by as
much as the stream's own memory says.

A draw is a two-piece normal: its median is the centre, and each half as wide as puts the band's end where the band has
it. Channels are drawn each by itself, given all of the past. What is drawn teaches nothing: learning is frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from detector.errors import InputError
from detector.model.further import LEARNING
from detector.model.session import Session
from detector.records import Float32, Float64, Int64
from detector.stages.infer import WallClock
from training.data.batches import blocks
from training.data.series import Series

_SIDE_BY_SIDE = 256  # streams whose history is walked together
_RECENT = 200  # samples whose median distance is the stream's period


@dataclass(frozen=True, slots=True)
class Trajectories:
    """What one stream may do: P trajectories of H samples, C channels."""

    history: Series
    """What is known."""
    time_ns: Int64
    """(H,) event times."""
    values: Float64
    """(P, H, C) raw units."""

    def quantiles(self, levels: Sequence[float]) -> Float64:
        """(Q, H, C) raw units: what that share of the trajectories does not exceed."""
        return np.quantile(self.values, levels, axis=0)


def follow(
    session: Session, series: Sequence[Series], horizon: int, *, paths: int = 200, zone: str = "UTC", seed: int = 0
) -> list[Trajectories]:
    """Walk through the history of every stream, and on from there.

    Args:
        session: The bundle that forecasts.
        series: Streams, in whatever order; the trajectories come in the same.
        horizon: H, samples.
        paths: P, trajectories of each stream.
        zone: Time zone of the plant.
        seed: The same seed gives the same trajectories.

    Raises:
        InputError: a stream has a single sample, hence no period.
    """
    rows = _rows(session, series, zone)
    found = []
    for number, one in enumerate(series):
        rng = np.random.default_rng([seed, number])
        times = one.time_ns[-1] + _period_ns(one) * np.arange(1, horizon + 1)
        fork = np.repeat(rows[id(one)], paths, axis=0)
        found.append(Trajectories(one, times, _sampled(session, fork, one, times, WallClock(zone), rng)))
    return found


def _period_ns(one: Series) -> int:
    """Between samples, as the latest of them came."""
    if len(one) < 2:
        raise InputError(f"stream {one.stream}", "cannot be forecast", expected="two samples or more", got=len(one))
    return int(np.median(np.diff(one.time_ns[-_RECENT:])))


def _rows(session: Session, series: Sequence[Series], zone: str) -> dict[int, Float32]:
    """The memory (1, S) at the end of each series, by its identity."""
    rows = {}
    for block in blocks(series, zone, _SIDE_BY_SIDE):
        state = np.tile(session.bundle.initial_row(block.values.shape[2]), (len(block.series), 1))
        for at in range(block.values.shape[1]):
            elapsed = block.elapsed[:, at, None]
            state = session.step(
                block.values[:, at], block.observed[:, at], elapsed, block.clock[:, at], state
            ).next_state
            for place, one in enumerate(block.series):
                if len(one) == at + 1:
                    rows[id(one)] = state[place : place + 1]
    return rows


def _sampled(
    session: Session, state: Float32, one: Series, times: Int64, clock: WallClock, rng: np.random.Generator
) -> Float64:
    """(P, H, C) drawn sample by sample; every path has a row of its own (P, S)."""
    shape = (len(state), len(one.channels))
    frozen = {LEARNING: np.zeros((shape[0], 1), np.float32)} if LEARNING in session.bundle.inputs else {}
    unseen, seen = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    elapsed = np.full((shape[0], 1), (times[0] - one.time_ns[-1]) * 1e-9, np.float32)
    reach = NormalDist().inv_cdf((1 + session.bundle.band_level) / 2)
    drawn = np.empty((shape[0], len(times), shape[1]))
    for at, features in enumerate(clock.features(times)):
        hour = np.tile(features, (shape[0], 1))
        said = session.step(np.full(shape, np.nan), unseen, elapsed, hour, state, frozen)
        normal = rng.standard_normal(shape)
        width = np.where(normal > 0, said.upper - said.expected, said.expected - said.lower) / reach
        drawn[:, at] = said.expected + normal * width
        state = session.step(drawn[:, at], seen, elapsed, hour, state, frozen).next_state
    return drawn
