"""A cell's fast path is its step."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from training.cells import CELLS, Cell


@pytest.fixture(params=[(name, layers) for name in CELLS for layers in (1, 2, 3)], ids=str)
def cell(request: pytest.FixtureRequest) -> Cell:
    torch.manual_seed(0)
    name, layers = request.param
    return CELLS[name](5, 6, layers)


def test_unroll_is_step_after_step(cell: Cell) -> None:
    """T samples by torch's kernel give the outputs and the last state of T steps."""
    x, state = torch.randn(3, 20, 5), torch.randn(3, cell.state_width)
    outputs, last = cell.unroll(x, state)
    for t in range(20):
        state = cell.step(x[:, t], state)
        torch.testing.assert_close(outputs[:, t], cell.output(state), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last, state, rtol=1e-5, atol=1e-5)


def test_rows_may_differ_in_length(cell: Cell) -> None:
    """A row's state is the one after its own last input, whatever stands behind it."""
    x, state = torch.randn(3, 9, 5), torch.randn(3, cell.state_width)
    lengths = torch.tensor([9, 1, 4])
    outputs, last = cell.unroll(x, state, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, end = cell.unroll(x[row : row + 1, :length], state[row : row + 1])
        torch.testing.assert_close(outputs[row, :length], alone[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(last[row], end[0], rtol=1e-5, atol=1e-5)


def test_state_can_be_carried_from_chunk_to_chunk(cell: Cell) -> None:
    """Two chunks with the state handed on are one."""
    x, state = torch.randn(2, 12, 5), torch.zeros(2, cell.state_width)
    whole, end = cell.unroll(x, state)
    first, middle = cell.unroll(x[:, :5], state)
    second, last = cell.unroll(x[:, 5:], middle)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last, end, rtol=1e-5, atol=1e-5)


def test_gradients_reach_every_weight(cell: Cell) -> None:
    """Both paths train the same parameters."""
    for run in (
        lambda: cell.unroll(torch.randn(2, 4, 5), torch.zeros(2, cell.state_width))[0],
        lambda: cell.step(torch.randn(2, 5), torch.randn(2, cell.state_width)),
    ):
        cell.zero_grad()
        run().square().sum().backward()
        assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in cell.parameters())
