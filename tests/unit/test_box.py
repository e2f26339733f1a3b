"""The bundles in the box do what an operator may ask of any bundle: freeze a stream's learning, declare roles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.bundles import in_the_box, locate
from detector.model.bundle import Bundle, read_bundle
from detector.model.further import KNOWN
from detector.model.session import Session, StepOutput

GOES_ON = {
    "samples", "period", "since",
    "origin_high", "origin_low", "last_change",
    "averages", "last_g", "joint_averages", "joint_last_g", "joint_memories", "mixture",
    "history", "error_energies", "hidden",
}  # fmt: skip
"""The parts of a row that hold where a stream is, not what is normal for it; a freeze leaves all others as they are."""

ROWS, LEARN, FROZEN = 4, 300, 100


@pytest.fixture(scope="module", params=in_the_box())
def session(request: pytest.FixtureRequest) -> Session:
    bundle = read_bundle(locate(request.param))
    if bundle.inputs != KNOWN:
        pytest.skip(f"{bundle.label} takes no further inputs")
    return Session(bundle)


def sample(random: np.random.Generator, at: int, channels: int) -> tuple[Any, ...]:
    """Noise about a wave; a count, rough now and then, with gaps."""
    values = random.normal(100 + 5 * np.sin(at / 7), 3, (ROWS, channels)) * (50 if at % 11 == 0 else 1)
    values[:, -1] = values[:, -1].round()
    observed = np.ones((ROWS, channels), np.float32)
    if at % 5 == 0:
        observed[:, 0] = channels == 1
    elapsed = np.full((ROWS, 1), 60 if at % 17 else 600, np.float32)
    return values, observed, elapsed, np.full((ROWS, 4), np.sin(at / 200), np.float32)


def walk(session: Session, channels: int, **said: float) -> tuple[np.ndarray, np.ndarray, list[StepOutput]]:
    """Rows after some history, rows after some more of which something is said, and what was said of the latter."""
    random = np.random.default_rng(1)
    row = np.tile(session.bundle.initial_row(channels), (ROWS, 1))
    for at in range(LEARN):
        row = session.step(*sample(random, at, channels), row).next_state
    before, steps = row, []
    widths = {name: session.bundle.inputs[name].width(channels) for name in said}
    further = {name: np.full((ROWS, widths[name]), value, np.float32) for name, value in said.items()}
    for at in range(LEARN, LEARN + FROZEN):
        steps.append(session.step(*sample(random, at, channels), row, further))
        row = steps[-1].next_state
    return before, row, steps


def moved(bundle: Bundle, before: np.ndarray, after: np.ndarray, channels: int) -> set[str]:
    """The names of the parts in which a bit differs."""
    found = set()
    for part in bundle.row_layout:
        starts = [bundle.joint + c * bundle.per_channel for c in range(channels)] if part.scope == "channel" else [0]
        for start in starts:
            at = slice(start + part.offset, start + part.offset + part.width)
            if before[:, at].tobytes() != after[:, at].tobytes():
                found.add(part.name)
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_normal_stays_bit_for_bit_while_scores_go_on(session: Session, channels: int) -> None:
    """Frozen, only the parts move that hold where the stream is; and it is still told apart."""
    before, after, steps = walk(session, channels, learning=0)
    assert moved(session.bundle, before, after, channels) <= GOES_ON
    scores = np.concatenate([step.score for step in steps])
    assert len(np.unique(scores)) > FROZEN
    forecasts = np.stack([step.expected for step in steps])
    assert (np.diff(forecasts, axis=0) != 0).any(axis=(0, 1)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_control_without_a_freeze_what_is_normal_moves(session: Session, channels: int) -> None:
    """Means, variances and covariances of every scope."""
    before, after, _ = walk(session, channels)
    learnt = moved(session.bundle, before, after, channels) - GOES_ON
    assert {"mean_low", "variance", "feature_mean", "feature_variance", "covariance", "band_factor"} <= learnt


def test_roles_decide_who_is_judged(session: Session) -> None:
    """A jump of a target, found or declared, is told; the same jump of context is not, and context has no blame."""
    random = np.random.default_rng(2)
    row = np.tile(session.bundle.initial_row(2), (ROWS, 1))
    role = np.array([[0, 0], [1, 1], [1, -1], [-1, 1]], np.float32)
    quiet = np.ones((ROWS, 2), np.float32), np.full((ROWS, 1), 60, np.float32), np.zeros((ROWS, 4), np.float32)
    for _ in range(max(2 * session.bundle.warm_up, 600)):
        level = np.tile(random.normal(0, 1, (1, 2)), (ROWS, 1))
        row = session.step(level, *quiet, row, {"role": role}).next_state
    steps = []
    for _ in range(6):
        level = np.tile(random.normal([[0, 30]], 1), (ROWS, 1))
        steps.append(session.step(level, *quiet, row, {"role": role}))
        row = steps[-1].next_state
    auto, both, without, with_it = np.max([step.score for step in steps], axis=0)
    assert min(auto, both, with_it) > 1 + without
    assert np.max([step.blame[3, 0] for step in steps]) < 0.001
