"""What an untrained detector already does, on the exported graph: the promises that do not rest on training."""

from __future__ import annotations

import numpy as np
import pytest

from detector.model.session import Session, StepOutput
from detector.records import Float64
from tests.parity.conftest import Exported


def side_by_side(session: Session, values: Float64) -> list[StepOutput]:
    """Walk N streams of one channel (T, N), a sample a minute."""
    T, N = values.shape
    state = np.tile(session.bundle.initial_row(1), (N, 1))
    seen, clock = np.ones((N, 1), np.float32), np.zeros((N, 4), np.float32)
    outputs = []
    for t in range(T):
        elapsed = np.full((N, 1), 60 if t else 0, np.float32)
        outputs.append(session.step(values[t][:, None].copy(), seen, elapsed, clock, state))
        state = outputs[-1].next_state
    return outputs


@pytest.mark.parametrize("kind", ["gauss", "heavy", "skewed", "walk", "rare"])
def test_the_band_holds_what_it_promises(any_gru: Exported, kind: str) -> None:
    """The band holds 98 % of any kind of stream, whatever the forecaster is worth: it learns how wide it must be."""
    random = np.random.default_rng(4)
    shape = (3000, 32)
    values = {
        "gauss": random.normal(size=shape),
        "heavy": random.standard_t(2.5, size=shape),
        "skewed": random.exponential(size=shape),
        "walk": random.normal(size=shape).cumsum(axis=0),
        "rare": random.exponential(5, size=shape) * (random.uniform(size=shape) < 0.05)
        + 0.1 * random.normal(size=shape),
    }[kind]
    inside = [
        (said.lower[:, 0] <= sample) & (sample <= said.upper[:, 0])
        for said, sample in zip(side_by_side(any_gru.session, values), values, strict=True)
    ]
    assert np.mean(inside[1000:]) == pytest.approx(0.98, abs=0.01)


def test_faults_score_high_and_normal_samples_do_not(any_gru: Exported) -> None:
    """A spike, a shift, a flat line and thrice the noise reach 3.5 nines in a noisy wave; else 3 is rare."""
    random = np.random.default_rng(3)
    T, at = 2000, 1900
    wave = 3 * np.sin(np.arange(T)[:, None] / 30 + random.uniform(0, 6, 40)) + 0.3 * random.normal(size=(T, 40))
    wave[at, :10] += 6
    wave[at:, 10:20] += 8
    wave[at:, 20:30] = wave[at - 1, 20:30]
    wave[at:, 30:] += random.normal(size=(T - at, 10))
    score = np.stack([said.score for said in side_by_side(any_gru.session, wave)])
    peaks = np.median(score[at:].max(axis=0).reshape(4, 10), axis=1)
    assert (peaks > 3.5).all(), peaks
    assert np.mean(score[500:at] >= 3) < 0.003


def test_a_constant_channel_is_quiet_until_it_moves(any_gru: Exported) -> None:
    """A channel that never moved scores nothing; its first movement scores high; memory stays free of denormals."""
    values = np.full((3000, 2), 20.0)
    values[2900:, 1] += 1
    said = side_by_side(any_gru.session, values)
    score = np.stack([output.score for output in said])
    assert score[200:, 0].max() < 2
    assert score[2900:, 1].max() > 3.5
    rows = np.abs(said[-1].next_state)
    assert not np.any((rows > 0) & (rows < np.finfo(np.float32).tiny))
