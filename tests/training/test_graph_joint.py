"""Joint evidence: what the targets of a stream say together, whatever their order."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from training.graph import Detector, DetectorShape
from training.graph.bank import Heard
from training.graph.evidence import rate_of
from training.graph.joint import Joint, Said
from training.graph.own import Own
from training.graph.predictor import FEATURES

C, T = 4, 300


def distances(target: Tensor, heard: Tensor, errors: Tensor) -> Tensor:
    """J (T, B), of what is heard (T, B, C, 4) by targets (B, C); `errors` (T, B, C, 6)."""
    joint = Joint()
    B = len(target)
    block = joint.layout.initial().repeat(B, 1, 1)
    flat = torch.eye(joint.covariance.width).flatten().repeat(B, 1, 1)
    one, target = torch.ones(B, C, 1), target.unsqueeze(-1)
    seen = []
    for t in range(T):
        z, g, y, residual = heard[t].split(1, dim=-1)
        own = Own(q=target, errors=errors[t], nats=0 * target)
        said = Said(Heard(z, g, y, residual, one, t * one), own, target, one[:, :1], one.transpose(1, 2))
        together, block, flat = joint(said, rate_of(torch.full((B, 1, 1), float(t))), block, flat)
        seen.append(together.q.flatten())
    return torch.stack(seen)


def test_one_target_is_the_same_wherever_it_stands() -> None:
    """A single target has the same distance in any place, beside any context, and upside down; another has not."""
    generator = torch.Generator().manual_seed(0)
    heard, errors = torch.randn(T, 5, C, 4, generator=generator), torch.randn(T, 5, C, FEATURES, generator=generator)
    target = torch.zeros(5, C)
    for row, place, sign in ((0, 0, 1), (1, 2, 1), (2, 3, 1), (3, 0, -1)):
        target[row, place] = 1
        heard[:, row, place], errors[:, row, place] = sign * heard[:, 0, 0], errors[:, 0, 0]
    target[4, 0] = 1  # a stream of its own: the control
    q = distances(target, heard, errors)
    for row in (1, 2, 3):
        torch.testing.assert_close(q[:, row], q[:, 0], rtol=1e-2, atol=1e-3)
    assert (q[100:, 4] - q[100:, 0]).abs().mean() > 0.05


STREAMS, USUAL, BROKEN = 16, 1400, 60


@pytest.fixture(scope="module")
def broken_plant() -> tuple[Tensor, Tensor]:
    """J and the strangest channel's own distance (T, STREAMS), of channels of which one leaves the others at USUAL.

    All follow one slow rhythm of chance. The second then follows another one of the same kind.
    """
    generator = torch.Generator().manual_seed(3)
    samples = USUAL + BROKEN
    drive, state = [], torch.zeros(2, STREAMS)
    for shock in torch.randn(samples, 2, STREAMS, generator=generator):
        state = 0.9 * state + shock
        drive.append(state)
    common, other = torch.stack(drive).unbind(dim=1)
    noise = 0.1 * torch.randn(samples, STREAMS, C, generator=generator)
    values = common.unsqueeze(-1) * torch.tensor([1.0, 2.0, -1.0, 0.5]) + noise
    values[USUAL:, :, 1] = 2 * other[USUAL:] + noise[USUAL:, :, 1]
    detector = Detector(DetectorShape(hidden=4)).eval()
    assert detector.together is not None
    together: list[Tensor] = []
    alone: list[Tensor] = []

    def watch(_: object, given: tuple[Said, ...], said: tuple[object, ...]) -> None:
        together.append(said[0].q.flatten())
        alone.append(given[0].own.q.amax(dim=1).flatten())

    with detector.together.register_forward_hook(watch), torch.inference_mode():
        rows = detector.initial_row(C).repeat(STREAMS, 1)
        for t, sample in enumerate(values.double()):
            elapsed, clock = torch.full((STREAMS, 1), 60.0 if t else 0.0), torch.zeros(STREAMS, 4)
            rows = detector.step(sample, torch.ones(STREAMS, C), elapsed, clock, rows).next_state
    return torch.stack(together), torch.stack(alone)


def share_found(q: Tensor) -> float:
    """Share of streams that at some time are beyond the 99.9 % quantile of what all of them were before."""
    limit = q[400:USUAL].quantile(0.999)
    return float((q[USUAL:] > limit).any(dim=0).float().mean())


def test_a_broken_correlation_is_seen_together(broken_plant: tuple[Tensor, Tensor]) -> None:
    """A channel that is as usual by itself, but no longer moves with the others, raises J, and nothing else."""
    together, alone = broken_plant
    assert share_found(together) > 0.8
    # Control: what is left where there is no joint part.
    assert share_found(alone) < 0.4
