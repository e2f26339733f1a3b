"""Learning and roles, on the exported graph: what a freeze keeps, and who is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detector.records import Float64
from tests.parity.conftest import Exported
from tests.parity.streams import fields, side_by_side

GOES_ON = {
    "samples", "period", "since",
    "origin_high", "origin_low", "last_change",
    "averages", "last_g", "joint_averages", "joint_last_g", "joint_memories", "mixture",
    "history", "error_energies", "hidden",
}  # fmt: skip
"""The parts of a row that hold where a stream is; all others are what is normal for it."""
RARELY = {"crossings", "side", "lowest", "highest", "inside", "excess", "excursion"}
"""Parts that need not move in a few samples, though they may."""
REGULAR = {"period", "since"}
"""Parts that stay in a stream of regular samples without gaps."""


@pytest.fixture(scope="module")
def noise() -> Float64:
    """(300, 1, 3); the last hundred are another stream's."""
    values = np.random.default_rng(5).normal(size=(300, 1, 3)) * [1, 10, 0.1] + [5, 1000, 0]
    values[200:] *= 3
    return values


def flat(exported: Exported, output: Any) -> dict[str, list[float]]:
    """What the first row holds: fields of the stream, and of its channels one behind the other."""
    said = fields(exported.session, output)
    joint = {f"joint {name}": np.ravel(value).tolist() for name, value in said["joint"].items()}
    channels = said["channels"].values()
    names = next(iter(channels))
    return joint | {
        f"channel {name}": np.concatenate([np.ravel(one[name]) for one in channels]).tolist() for name in names
    }


def test_a_freeze_keeps_what_is_normal(exported: Exported, noise: Float64) -> None:
    """Without learning every reference statistic stays as it is, bit for bit; with it, nearly every one moves."""
    usual = side_by_side(exported.session, noise[:200])[-1]
    before = flat(exported, usual)
    for learning in (0, 1):
        said = np.full((100, 1, 1), learning, np.float32)
        outputs = side_by_side(exported.session, noise[200:], rows=usual.next_state, learning=said)
        after = flat(exported, outputs[-1])
        same = {name.split()[1] for name in before if before[name] == after[name]}
        names = {name.split()[1] for name in before}
        assert max(output.score[0] for output in outputs) > 1.5  # a frozen stream is scored all the same
        if learning:
            assert same - REGULAR <= RARELY
        else:
            assert same - REGULAR == names - GOES_ON


def test_learning_is_the_default(exported: Exported, noise: Float64) -> None:
    """Where nothing is said, a stream learns and finds its roles itself: the same bits as when that is said."""
    silent = side_by_side(exported.session, noise)[-1]
    ones, zeros = np.ones((300, 1, 1), np.float32), np.zeros((300, 1, 3), np.float32)
    said = side_by_side(exported.session, noise, learning=ones, role=zeros)[-1]
    assert all(one.tobytes() == other.tobytes() for one, other in zip(silent, said, strict=True))


def test_context_is_not_judged(exported: Exported, noise: Float64) -> None:
    """A jump of a channel scores high where it is a target, not where it is context, and is not blamed on context."""
    values, role = np.tile(noise[:250], (1, 2, 1)), np.ones((250, 2, 3), np.float32)
    values[200:] /= 3
    role[:, 1, 1] = -1
    values[-1, :, 1] += 300
    score, blame = side_by_side(exported.session, values, role=role)[-1][:2]
    assert score[0] > score[1] + 0.8
    assert blame[0, 1] > 0.8 > 0.2 > blame[1, 1]


def test_without_a_target_nothing_is_judged(exported: Exported, noise: Float64) -> None:
    """While the only target is missing, samples score 0 and leave joint evidence and tail as they are, to the bit."""
    role = np.tile(np.array([1, -1, -1], np.float32), (300, 1, 1))
    row = side_by_side(exported.session, noise[:200], role=role)[-1]
    before = fields(exported.session, row)["joint"]
    observed = np.ones((100, 1, 3), np.float32)
    for seen in (0, 1):
        observed[..., 0] = seen
        said = side_by_side(exported.session, noise[200:], observed, rows=row.next_state, role=role)
        after = fields(exported.session, said[-1])["joint"]
        moved = {name for name in before if np.any(np.ravel(before[name]) != np.ravel(after[name]))}
        scores = [float(output.score[0]) for output in said]
        if seen:  # the control
            assert moved >= {"samples", "reached"}
            assert any(scores)
        else:
            assert moved <= {"samples", "hidden"}
            assert not any(scores)
