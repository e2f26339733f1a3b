"""Every network learns what a constant cannot foretell; those that remember learn what those without memory cannot.

The task is the map of Henon 1976, x' = 1 - 1.4 x^2 + 0.3 y, y' = x: deterministic, bounded, and noise to the eye. The
next value is forecast from the values so far. A constant loses the variance, by which all losses are divided here; of
the last value alone nobody can tell which y goes with it, and the best that was ever seen is 0.077.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from tests.battery.networks import GAPS, INPUTS, NETWORKS
from training.cells import Network
from training.shapes import build

LOSS, WITH_MEMORY = 0.20, 0.06
"""Of the variance: what every network must reach, and what those must that see more than one sample."""
ROWS, T, STEPS = 24, 24, 160
_SETTLED = 8  # samples before a network is judged


def henon(rows: int, samples: int, seed: int) -> Tensor:
    """Values (rows, samples) of as many runs."""
    start = torch.rand(2, rows, generator=torch.Generator().manual_seed(seed)) * 0.2
    x, y = start
    values = []
    for _ in range(samples + 50):
        x, y = 1 - 1.4 * x * x + 0.3 * y, x
        values.append(x)
    return torch.stack(values[50:], dim=1)


def learn(network: Network) -> float:
    """Train for a moment; the loss on runs never seen, as a share of the variance."""
    head = nn.Linear(network.width, 1)
    weights = [*network.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(weights, lr=2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-2, STEPS)
    for step in range(STEPS):
        network.train()
        loss = _loss(network, head, henon(ROWS, T + 1, seed=step))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        return _loss(network, head, henon(200, T + 1, seed=10**6)).item()


def _loss(network: Network, head: nn.Module, values: Tensor) -> Tensor:
    x = torch.zeros(*values[:, :-1].shape, INPUTS)
    x[..., 0] = values[:, :-1]
    x[..., GAPS] = 0.5
    outputs, _ = network.unroll(x, torch.zeros(len(x), network.state_width))
    error = (head(outputs).squeeze(-1) - values[:, 1:])[:, _SETTLED:]
    return error.square().mean() / values.var()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_learns(name: str, record_property: Callable[[str, object], None]) -> None:
    """It reaches the loss that this file states, and with memory the lower one."""
    torch.manual_seed(3)
    loss = learn(build(NETWORKS[name], INPUTS, GAPS))
    record_property(f"{name}: smoke loss", f"{loss:.4f}")
    assert loss < (LOSS if name == "memoryless" else WITH_MEMORY)


def test_a_constant_and_no_memory_do_not_reach_it() -> None:
    """Negative controls: a network that hears nothing loses the variance, one without memory misses the lower loss."""
    torch.manual_seed(3)
    deaf = build(NETWORKS["gru"], INPUTS, GAPS)
    with torch.no_grad():
        deaf.kernel.weight_ih_l0.zero_()
    deaf.kernel.weight_ih_l0.requires_grad_(False)
    assert learn(deaf) > 0.9
    assert learn(build(NETWORKS["memoryless"], INPUTS, GAPS)) > WITH_MEMORY
