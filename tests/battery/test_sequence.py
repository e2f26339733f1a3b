"""A network's way through many samples is its step, again and again: outputs, states and gradients."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from tests.battery.networks import GAPS, INPUTS, NETWORKS, lived, made, samples, stepped
from training.cells import Network
from training.shapes import Architecture, build

ROWS, T = 3, 17


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    return made(NETWORKS[request.param])


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_unroll_is_step_after_step(network: Network) -> None:
    """Outputs, last state and every gradient of T samples at once are those of T steps."""
    x, state = samples(ROWS, T).requires_grad_(), lived(network, ROWS).requires_grad_()
    weights = [x, state, *network.parameters()]
    outputs, last = network.unroll(x, state)
    expected, history = stepped(network, x, state)
    close(outputs, expected)
    close(last, history[:, -1])
    for got, wanted in zip(
        *(
            torch.autograd.grad(said.sin().sum() + end.cos().sum(), weights, materialize_grads=True)
            for said, end in ((outputs, last), (expected, history[:, -1]))
        ),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_rows_may_differ_in_length(network: Network) -> None:
    """A row's state is the one after its own last sample, whatever stands behind it."""
    x, state, lengths = samples(ROWS, T), lived(network, ROWS), torch.tensor([T, 1, 9])
    expected, history = stepped(network, x, state)
    for row, length in enumerate(lengths.tolist()):
        x[row, length:] = 1e3
    outputs, last = network.unroll(x, state, lengths)
    for row, length in enumerate(lengths.tolist()):
        close(outputs[row, :length], expected[row, :length])
        close(last[row], history[row, length - 1])


def test_chunks_with_the_state_carried_are_one(network: Network) -> None:
    """Two chunks with the state handed on are one, wherever the cut is."""
    x, state = samples(ROWS, T), torch.zeros(ROWS, network.state_width)
    whole, end = network.unroll(x, state)
    for cut in (1, 6, T - 1):
        first, middle = network.unroll(x[:, :cut], state)
        second, last = network.unroll(x[:, cut:], middle)
        close(torch.cat([first, second], dim=1), whole)
        close(last, end)


def test_gradients_reach_every_weight(network: Network) -> None:
    """No weight is there for nothing."""
    network.unroll(samples(ROWS, T), lived(network, ROWS))[0].square().sum().backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not idle


def test_the_future_does_not_leak(network: Network) -> None:
    """What comes later changes no output before it."""
    assert not leaks(network)


class Peeping(torch.nn.Module):
    """A network that hears each sample one too early."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.state_width = network, network.state_width

    def unroll(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.network.unroll(x.roll(-1, dims=1), state)


def test_a_leak_of_the_future_is_found() -> None:
    """Negative control: a network that peeps one sample ahead is caught."""
    assert leaks(Peeping(made(NETWORKS["gru"])))


def leaks(network: torch.nn.Module) -> bool:
    """Whether anything that comes later changes an output."""
    x, state = samples(ROWS, T), torch.zeros(ROWS, network.state_width)
    before, _ = network.unroll(x, state)
    for t in (1, T // 2, T - 1):
        other = x.clone()
        other[:, t:] += 1
        if not torch.equal(network.unroll(other, state)[0][:, :t], before[:, :t]):
            return True
    return False


def test_a_state_makes_a_round_trip_through_the_row(network: Network) -> None:
    """What is remembered is all in the state: stored as float32 bytes and read again, it goes on to the same bits."""
    x, state = samples(ROWS, 2), lived(network, ROWS)
    with torch.no_grad():
        row = torch.frombuffer(bytearray(state.numpy().tobytes()), dtype=torch.float32).view_as(state)
        row = row.clone()  # at an address like that of `state`: torch's last bits depend on it
        network.step(x[:, 1], state + 1)  # whatever else it was asked in between
        assert torch.equal(network.step(x[:, 0], row), network.step(x[:, 0], state))
        assert torch.equal(network.output(row), network.output(state))


def test_a_network_says_how_wide_it_is(network: Network) -> None:
    """State and output have the widths that the row is laid out for."""
    state = torch.zeros(ROWS, network.state_width)
    assert network.step(samples(ROWS), state).shape == state.shape
    assert network.output(state).shape == (ROWS, network.width)
    assert network.inputs == INPUTS


@pytest.mark.parametrize(
    "asked",
    [
        Architecture(layers=2, hidden=8, dropout=0.5),
        Architecture(layers=2, hidden=8, dropout=0.5, variational=True),
        Architecture(hidden=8, zoneout=0.5),
        Architecture(layers=2, hidden=8, norm="batch"),
    ],
    ids=["dropout", "variational", "zoneout", "batch-norm"],
)
def test_regularisers_act_in_training_only(asked: Architecture) -> None:
    """By chance in training, where the batch decides, and never afterwards."""
    torch.manual_seed(0)
    network = build(asked, INPUTS, GAPS)
    x, state = samples(ROWS, T), torch.zeros(ROWS, network.state_width)
    lengths = torch.tensor([T, 5, T])
    said = {}
    for training in (True, False):
        network.train(training)
        said[training] = [network.unroll(x, state, lengths)[0][0] for _ in range(2)]
    assert torch.equal(*said[False])
    assert not torch.allclose(said[True][0], said[False][0])


def test_variational_dropout_leaves_the_same_out_for_a_whole_chunk() -> None:
    """Which inputs of the upper layer are 0 does not change from sample to sample; with plain dropout it does."""
    for variational in (True, False):
        network = build(Architecture(layers=2, hidden=8, dropout=0.5, variational=variational), INPUTS)
        seen: list[torch.Tensor] = []
        network.layers[1].unroll = lambda x, state, lengths, seen=seen: (seen.append(x), (x, state))[1]
        network.unroll(samples(ROWS, T), torch.zeros(ROWS, network.state_width))
        out = seen[0] == 0
        assert out.any()
        assert (out == out[:, :1]).all().item() == variational
