"""Roles: what measures is judged, what commands is context, and what was declared counts."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from training.graph.layout import Layout
from training.graph.roles import Roles
from training.graph.scale import Scale

T = 400


def targets(values: Tensor, role: Tensor | None = None, learning: Tensor | None = None) -> list[Tensor]:
    """Which channels of a stream (T, C) are targets, sample by sample; NaN is missing."""
    scale, roles = Scale(), Roles()
    layout = Layout("channel", [*Scale.FIELDS, *Roles.fields])
    C = values.shape[1]
    fields, found = layout.split(layout.initial().repeat(1, C, 1)), []
    role = torch.zeros(C) if role is None else role
    for t, sample in enumerate(values.double()):
        learns = torch.ones(1, 1, 1) if learning is None else learning[t].view(1, 1, 1)
        observed = (~sample.isnan()).float().view(1, C, 1)
        reading, read = scale(sample.view(1, C, 1), observed, learns, fields)
        target, known = roles(sample.view(1, C, 1), reading, role.view(1, C, 1), learns, fields)
        fields |= {name: torch.where(reading.known, new, fields[name]) for name, new in (read | known).items()}
        found.append(target.flatten())
    return found


def plant() -> Tensor:
    """A pressure, a temperature; a one-hot command of three; a set point that never moves; a channel never seen."""
    generator = torch.Generator().manual_seed(0)
    measured = torch.randn(T, 2, generator=generator) * torch.tensor([1.0, 0.1]) + torch.tensor([5.0, 300.0])
    command = torch.nn.functional.one_hot(torch.randint(0, 3, (T,), generator=generator), 3).float()
    rest = torch.tensor([40.0, float("nan")]).expand(T, 2)
    return torch.cat([measured, command, rest], dim=1)


def test_measurements_are_targets_and_commands_are_not() -> None:
    """What lies between its limits is judged; a switch, a constant and what was never seen are not."""
    assert targets(plant())[-1].tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_what_was_declared_counts() -> None:
    """A declared role is the role whatever the channel does, and moves no other's."""
    role = torch.tensor([-1.0, 0, 1, 0, 0, 1, 0])
    assert targets(plant(), role)[0][[0, 2, 5]].tolist() == [0, 1, 1]
    assert targets(plant(), role)[-1].tolist() == [0, 1, 1, 0, 0, 1, 0]


def test_without_measurements_what_is_no_flag_is_judged() -> None:
    """Where no channel lies between its limits, constants other than 0 and 1 are targets; flags only where all are."""
    assert targets(plant()[:, 2:])[-1].tolist() == [0, 0, 0, 1, 0]
    assert targets(plant()[:, 2:5])[-1].tolist() == [1, 1, 1]


def test_what_was_never_seen_is_no_target() -> None:
    """A stream of which nothing was ever observed has no target at all."""
    assert not torch.stack(targets(torch.full((5, 3), float("nan")))).any()


def test_roles_rest_while_nothing_is_learnt() -> None:
    """A channel that becomes a switch stays the target that it was, for as long as learning is off."""
    values = plant()[:, :2].repeat(2, 1)
    values[T:, 0] = torch.arange(T) % 2 * 1e3
    learning = torch.ones(2 * T)
    learning[T:] = 0
    assert torch.stack(targets(values, learning=learning))[T:, 0].all()
    # Control: what learns through a longer stretch of it does not.
    values = torch.cat([values, values[T:].repeat(6, 1)])
    assert targets(values)[-1].tolist() == [0, 1]
