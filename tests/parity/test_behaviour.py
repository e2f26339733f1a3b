"""What an untrained detector already does, on the exported graph: the promises that do not rest on training."""

from __future__ import annotations

import numpy as np
import pytest

from detector.model.session import StepOutput
from detector.records import Float64
from tests.parity.conftest import Exported
from tests.parity.streams import side_by_side

KINDS, STREAMS = ("gauss", "heavy", "skewed", "walk", "rare"), 12


@pytest.fixture(scope="module")
def kinds(any_gru: Exported) -> tuple[Float64, list[StepOutput]]:
    """Values (T, streams) of unlike kinds, STREAMS each, and what is said of them."""
    random = np.random.default_rng(4)
    shape = (3000, STREAMS)
    values = np.concatenate(
        [
            random.normal(size=shape),
            random.standard_t(2.5, size=shape),
            random.exponential(size=shape),
            random.normal(size=shape).cumsum(axis=0),
            random.exponential(5, size=shape) * (random.uniform(size=shape) < 0.05) + 0.1 * random.normal(size=shape),
        ],
        axis=1,
    )
    return values, side_by_side(any_gru.session, values[:, :, None])


@pytest.mark.parametrize("kind", KINDS)
def test_the_band_holds_what_it_promises(kinds: tuple[Float64, list[StepOutput]], kind: str) -> None:
    """The band holds 98 % of any kind of stream, whatever the forecaster is worth: it learns how wide it must be."""
    values, outputs = kinds
    inside = np.stack(
        [
            (said.lower[:, 0] <= sample) & (sample <= said.upper[:, 0])
            for said, sample in zip(outputs, values, strict=True)
        ]
    )
    at = KINDS.index(kind) * STREAMS
    assert np.mean(inside[1500:, at : at + STREAMS]) == pytest.approx(0.98, abs=0.01)


def test_faults_score_high_and_normal_samples_do_not(any_gru: Exported) -> None:
    """A spike, a shift, a flat line and thrice the noise reach 2.4 nines in a noisy wave; else that is rare."""
    random = np.random.default_rng(3)
    T, at = 2000, 1900
    wave = 3 * np.sin(np.arange(T)[:, None] / 30 + random.uniform(0, 6, 40)) + 0.3 * random.normal(size=(T, 40))
    wave[at, :10] += 6
    wave[at:, 10:20] += 8
    wave[at:, 20:30] = wave[at - 1, 20:30]
    wave[at:, 30:] += random.normal(size=(T - at, 10))
    score = np.stack([said.score for said in side_by_side(any_gru.session, wave[:, :, None])])
    peaks = np.median(score[at:].max(axis=0).reshape(4, 10), axis=1)
    assert (peaks > 2.4).all(), peaks
    assert np.mean(score[500:at] >= 2.4) < 0.004


def test_a_constant_channel_is_quiet_until_it_moves(any_gru: Exported) -> None:
    """A channel that never moved scores little; its first movement scores high; memory stays free of denormals."""
    values = np.full((3000, 2, 1), 20.0)
    values[2900:, 1] += 1
    said = side_by_side(any_gru.session, values)
    score = np.stack([output.score for output in said])
    assert score[200:, 0].max() < 3.5
    assert score[2900:, 1].max() > 4.5
    rows = np.abs(said[-1].next_state)
    assert not np.any((rows > 0) & (rows < np.finfo(np.float32).tiny))


def test_blame_points_at_the_hurt_channel(exported: Exported) -> None:
    """Of 42 faults of one channel in three, most are blamed on that channel where they score highest."""
    random = np.random.default_rng(7)
    T, B, C = 900, 42, 3
    t = np.arange(T)[:, None, None]
    values = (
        np.sin(t / random.uniform(5, 40, (B, C))) + 0.3 * random.normal(size=(T, B, C)) + random.normal(size=(B, C))
    )
    hurt = np.arange(B) % C
    values[-5:, np.arange(B), hurt] += 4
    outputs = side_by_side(exported.session, values)
    score, blame = (np.stack([getattr(said, name) for said in outputs]) for name in ("score", "blame"))
    assert np.allclose(blame.sum(axis=2), 1, atol=1e-4)
    worst = T - 5 + score[-5:].argmax(axis=0)
    assert np.sum(blame[worst, np.arange(B)].argmax(axis=1) == hurt) >= 36
    # Control: before the fault it says nothing of the channel that is going to be hurt.
    assert np.sum(blame[T - 6].argmax(axis=1) == hurt) < 24


def test_no_output_knows_the_future(exported: Exported) -> None:
    """Streams that agree up to a sample agree in every bit of every output up to it, whatever comes then."""
    random = np.random.default_rng(8)
    values = random.normal(size=(400, 2, 3))
    values[:300, 1] = values[:300, 0]
    outputs = side_by_side(exported.session, values)
    for said in outputs[:300]:
        assert all(part[0].tobytes() == part[1].tobytes() for part in said)
    assert outputs[300].score[0] != outputs[300].score[1]
