"""The contract's words about raw units, missing cells and counts, on the exported graph."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.conftest import Exported
from tests.parity.streams import fields, walk

GARBAGE = (np.nan, np.inf, -np.inf, 1e300, -7.5, 0.0)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(300, 3)) * [1, 10, 0.1] + [5, 1000, 0]


def test_garbage_in_unobserved_cells_changes_no_bit(exported: Exported, noise: np.ndarray) -> None:
    """Whatever stands in a cell that was not observed, every output has the same bits."""
    observed = (np.random.default_rng(6).uniform(size=noise.shape) < 0.7).astype(np.float32)
    observed[:, 0] = 1
    expected = _bits(exported, noise, observed)
    for garbage in GARBAGE:
        assert _bits(exported, np.where(observed > 0, noise, garbage), observed) == expected, garbage


def test_a_value_that_is_none_counts_as_missing(exported: Exported, noise: np.ndarray) -> None:
    """NaN, infinity and what is beyond float32 count as not observed, though `observed` says 1."""
    row = walk(exported.session, noise[:200]).next_state[0]
    seen = np.ones((1, 3), np.float32)
    missing = seen.copy()
    missing[0, 1] = 0
    for bad in (np.nan, np.inf, -np.inf, 1e39):
        sample = noise[200:201].copy()
        sample[0, 1] = bad
        got = walk(exported.session, sample, seen, row=row).next_state
        assert got.tobytes() == walk(exported.session, sample, missing, row=row).next_state.tobytes()


def test_a_missing_channel_keeps_its_memory(exported: Exported, noise: np.ndarray) -> None:
    """A channel's block stays bit for bit while it is not observed, but for the time since it was."""
    observed = np.ones((300, 3), np.float32)
    observed[250:, 1] = 0
    before = fields(exported.session, walk(exported.session, noise[:250]))["channels"]["c1"]
    after = fields(exported.session, walk(exported.session, noise, observed))["channels"]["c1"]
    assert before.pop("since") == 0
    assert after.pop("since") == 50 * 60
    assert after == before


def test_blame_goes_to_the_observed_and_sums_to_one(exported: Exported, noise: np.ndarray) -> None:
    """Shares sum to 1 over the channels that were observed, and are 0 elsewhere, in warm-up too."""
    observed = np.ones((300, 3), np.float32)
    observed[::2, 2] = 0
    sums = []

    def each(t: int, output: object) -> None:
        sums.append(float(output.blame.sum()))
        assert output.blame[0, 2] == 0 or observed[t, 2]

    walk(exported.session, noise, observed, each=each)
    assert np.allclose(sums, 1, atol=1e-5)


def test_a_strange_channel_takes_the_blame(exported: Exported, noise: np.ndarray) -> None:
    """A jump of one channel of three, after the warm-up, scores high and is blamed on it."""
    strange = noise.copy()
    strange[-1, 1] += 200
    quiet, loud = walk(exported.session, noise), walk(exported.session, strange)
    assert loud.score[0] > quiet.score[0] + 1
    assert loud.blame[0, 1] > 0.9


def test_a_counter_keeps_its_steps(exported: Exported) -> None:
    """At 1e12 a step of 1 is a step of 1: in memory, in the forecast, and after the counter's reset."""
    t = np.arange(600, dtype=np.float64)
    counter = np.where(t < 400, 1e12 + t, t - 400)
    values = np.stack([counter] * 3, axis=1)
    seen = []
    walk(exported.session, values, each=lambda t, output: seen.append((t, output)))
    for t, output in seen:
        known = fields(exported.session, output)["channels"]["c0"]
        assert known["origin_high"] + known["origin_low"] == pytest.approx(counter[t], abs=1e-3)
        if t > 0 and t != 400:
            assert known["last_change"] == 1
        if 100 < t < 400 or t > 500:
            assert known["change_scale"] == pytest.approx(1, abs=0.1)
            assert abs(output.expected[0, 0] - counter[t]) < 20
            assert output.upper[0, 0] - output.lower[0, 0] < 50


def test_a_stumbling_counter_is_noticed(exported: Exported) -> None:
    """A counter at 1e12 that jumps by 60 instead of 1 gets a high score: its scale is that of its steps."""
    random = np.random.default_rng(1)
    values = np.repeat(1e12 + np.cumsum(random.poisson(5, 500))[:, None].astype(float), 3, axis=1)
    stumble = values.copy()
    stumble[-1] += 60
    assert walk(exported.session, values).score[0] < 1.5
    assert walk(exported.session, stumble).score[0] > 2


def test_counts_stop_at_two_to_the_24(exported: Exported, noise: np.ndarray) -> None:
    """Counts around 2^24, where float32 ends, settle at 2^24 and everything goes on."""
    row = walk(exported.session, noise[:200]).next_state[0]
    layout = {entry.name: entry for entry in exported.bundle.row_layout}
    for start in (-2, -1, 0, 1, 2):
        full = row.copy()
        full[layout["samples"].offset] = 2**24 + start
        for channel in range(3):
            full[exported.bundle.joint + channel * exported.bundle.per_channel + layout["count"].offset] = 2**24 + start
        output = walk(exported.session, noise[200:206], row=full)
        known = fields(exported.session, output)
        assert known["joint"]["samples"] == 2**24
        assert known["channels"]["c2"]["count"] == 2**24
        assert np.isfinite(output.score).all()


def test_score_is_zero_until_the_warm_up_is_over(exported: Exported, noise: np.ndarray) -> None:
    """The first 128 samples score 0 however strange they are; then scores begin."""
    scores = []
    wild = noise.copy()
    wild[100:128] *= 50
    walk(exported.session, wild, each=lambda _, output: scores.append(float(output.score[0])))
    assert not any(scores[:128])
    assert any(scores[128:])


def test_the_first_sample_is_its_own_forecast(exported: Exported) -> None:
    """Before anything was seen the forecast is the value itself, so that nobody reads a 0 as one."""
    output = walk(exported.session, np.array([[3.25, -1e6, 7.0]]))
    assert output.expected[0].tolist() == [3.25, -1e6, 7.0]


def test_a_channel_is_computed_the_same_beside_others(any_gru: Exported, noise: np.ndarray) -> None:
    """With shared weights a channel's forecast and memory have the same bits alone and among sixteen."""
    session = any_gru.session
    many = np.concatenate([noise, np.random.default_rng(8).normal(size=(300, 13))], axis=1)
    together, alone = walk(session, many), walk(session, noise[:, 1:2])
    for name in ("expected", "lower", "upper"):
        assert getattr(together, name)[0, 1] == getattr(alone, name)[0, 0]
    assert fields(session, together)["channels"]["c1"] == fields(session, alone)["channels"]["c0"]


def test_long_gaps_are_no_reason_to_panic(exported: Exported, noise: np.ndarray) -> None:
    """A gap of a month in a quiet stream leaves everything finite and scores low."""
    row = walk(exported.session, noise[:250]).next_state
    elapsed = np.full((1, 1), 30 * 86_400, np.float32)
    seen, clock = np.ones((1, 3), np.float32), np.zeros((1, 4), np.float32)
    output = exported.session.step(noise[250:251], seen, elapsed, clock, row)
    assert np.isfinite(output.next_state).all()
    assert output.score[0] < 3


def _bits(exported: Exported, values: np.ndarray, observed: np.ndarray) -> list[bytes]:
    bits: list[bytes] = []
    walk(exported.session, values[:60], observed, each=lambda _, output: bits.extend(part.tobytes() for part in output))
    return bits
