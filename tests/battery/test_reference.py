"""Every network computes what torch's own modules do, or what the paper's equations say, written down once more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from tests.battery.networks import GAPS, HIDDEN, NETWORKS, made, samples
from training.cells import CELLS, Network
from training.shapes import SHAPES, Architecture

ROWS, T = 3, 25


def kernel(network: Network, reference: nn.Module, prefix: str = "kernel.") -> nn.Module:
    """A module of torch with the same weights."""
    reference.load_state_dict(
        {name.removeprefix(prefix): w for name, w in network.state_dict().items() if name.startswith(prefix)}
    )
    return reference


def gates(network: Network, count: int) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """W x + U h + b, gate by gate, from the weights as torch stacks them."""
    k = network.kernel
    return lambda x, h: (
        x @ k.weight_ih_l0.T + h @ k.weight_hh_l0.T + k.bias_ih_l0 + k.bias_hh_l0
    ).chunk(count, dim=-1)  # fmt: skip


def gru(network: Network, x: Tensor) -> Tensor:
    return kernel(network, nn.GRU(x.shape[-1], HIDDEN, batch_first=True))(x)[0]


def lstm(network: Network, x: Tensor) -> Tensor:
    return kernel(network, nn.LSTM(x.shape[-1], HIDDEN, batch_first=True))(x)[0]


def rnn(network: Network, x: Tensor) -> Tensor:
    return kernel(network, nn.RNN(x.shape[-1], HIDDEN, batch_first=True))(x)[0]


def rnn_relu(network: Network, x: Tensor) -> Tensor:
    return kernel(network, nn.RNN(x.shape[-1], HIDDEN, nonlinearity="relu", batch_first=True))(x)[0]


def rnn_leaky(network: Network, x: Tensor) -> Tensor:
    h, outputs = x.new_zeros(ROWS, HIDDEN), []
    for now in x.unbind(dim=1):
        (a,) = gates(network, 1)(now, h)
        h = torch.where(a > 0, a, 0.01 * a)
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def lstm_peephole(network: Network, x: Tensor) -> Tensor:
    c = h = x.new_zeros(ROWS, HIDDEN)
    p_i, p_f, p_o = network.peepholes
    outputs = []
    for now in x.unbind(dim=1):
        i, f, g, o = gates(network, 4)(now, h)
        c = (f + p_f * c).sigmoid() * c + (i + p_i * c).sigmoid() * g.tanh()
        h = (o + p_o * c).sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def slstm(network: Network, x: Tensor) -> Tensor:
    """Equations 8 to 14 of the paper, in double precision and without the stabiliser."""
    network, x = network.double(), x.double()
    c = n = h = x.new_zeros(ROWS, HIDDEN)
    outputs = []
    for now in x.unbind(dim=1):
        i, f, z, o = gates(network, 4)(now, h)
        c = f.sigmoid() * c + i.exp() * z.tanh()
        n = f.sigmoid() * n + i.exp()
        h = o.sigmoid() * c / n
        outputs.append(h)
    network.float()
    return torch.stack(outputs, dim=1).float()


def window(network: Network, x: Tensor) -> Tensor:
    """A causal convolution of torch; its kernel runs from the oldest sample to the newest."""
    reach, linear = network.past.length, network.layers[0][0]
    said = nn.functional.conv1d(
        nn.functional.pad(x.transpose(1, 2), (reach - 1, 0)),
        linear.weight.unflatten(1, (reach, -1)).flip(1).transpose(1, 2),
        linear.bias,
    )
    return said.transpose(1, 2).tanh()


def memoryless(network: Network, x: Tensor) -> Tensor:
    return network.layers[0][0](x).tanh()


def attention_alone(network: Network, x: Tensor) -> Tensor:
    """Sample by sample, over a list of what there was."""
    outputs = []
    for t in range(x.shape[1]):
        past = x[:, max(0, t - network.past.length + 1) : t + 1]
        scores = (past * (x[:, t] @ network.query.weight.T)[:, None]).sum(dim=-1) / HIDDEN**0.5
        heeded = (scores.softmax(dim=-1)[..., None] * past).sum(dim=1)
        outputs.append(network.mix(torch.cat([x[:, t], heeded], dim=-1)).tanh())
    return torch.stack(outputs, dim=1)


def conv(network: Network, x: Tensor) -> Tensor:
    front, cell = network.layers
    return gru(cell, window(front, x))


def attention(network: Network, x: Tensor) -> Tensor:
    cell, back = network.layers
    return attention_alone(back, gru(cell, x))


def hybrid(network: Network, x: Tensor) -> Tensor:
    front, cell, back = network.layers
    return attention_alone(back, gru(cell, window(front, x)))


def transformer(network: Network, x: Tensor) -> Tensor:
    """Torch's own layer under a banded mask, with the bias of ages added to it."""
    front, block = network.layers
    layer = nn.TransformerEncoderLayer(HIDDEN, block.heads, 4 * HIDDEN, 0.0, batch_first=True, norm_first=True).eval()
    names = {"before": "norm1.", "between": "norm2.", "wide": "linear1.", "narrow": "linear2."}
    names |= {"join": "self_attn.out_proj.", "project": "self_attn.in_proj_"}
    split = [(*name.partition("."), weight) for name, weight in block.state_dict().items() if "." in name]
    layer.load_state_dict({names[part] + kind: weight for part, _, kind, weight in split})
    age = torch.arange(T)[:, None] - torch.arange(T)
    inside = (age >= 0) & (age < block.past.length)
    bias = torch.where(inside, block.age[:, age.clamp(0, block.past.length - 1)], -torch.inf)
    return layer(memoryless(front, x), src_mask=bias.repeat(ROWS, 1, 1))


def hierarchical(network: Network, x: Tensor) -> Tensor:
    """Every n-th output of the lower level by itself, and held until the next."""
    below, n = gru(network.lower, x), network.every
    above = gru(network.upper, below[:, n - 1 :: n])
    held = torch.cat([torch.zeros_like(x[:, : n - 1, :1]).expand(-1, -1, HIDDEN), above.repeat_interleave(n, dim=1)], 1)
    return torch.cat([below, held[:, :T]], dim=-1)


def deep(network: Network, x: Tensor) -> Tensor:
    for layer, norm in zip(network.layers, network.norms, strict=True):
        said = gru(layer, norm(x))
        x = said if layer is network.layers[0] else x + said
    return x


def deep_lstm_batch_norm(network: Network, x: Tensor) -> Tensor:
    lower, upper = network.layers
    norm = network.norms[1]
    x = (lstm(lower, x) - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    return lstm(upper, x)


def zoneout(network: Network, x: Tensor) -> Tensor:
    c = h = x.new_zeros(ROWS, HIDDEN)
    outputs = []
    for now in x.unbind(dim=1):
        i, f, g, o = gates(network.inner, 4)(now, h)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = 0.1 * h + 0.9 * o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def decay(network: Network, x: Tensor) -> Tensor:
    cell = nn.GRUCell(x.shape[-1], HIDDEN)
    cell.load_state_dict({n.removesuffix("_l0"): w for n, w in network.inner.kernel.state_dict().items()})
    h, outputs = x.new_zeros(ROWS, HIDDEN), []
    for now in x.unbind(dim=1):
        gap = now[:, GAPS].clamp(max=0.99)
        h = cell(now, h * torch.exp(-network.rate(gap / (1 - gap)).relu()))
        outputs.append(h)
    return torch.stack(outputs, dim=1)


REFERENCES: dict[str, Callable[[Network, Tensor], Tensor]] = {
    one.__name__.replace("_", "-"): one
    for one in (
        gru, lstm, rnn, rnn_relu, rnn_leaky, lstm_peephole, slstm,
        window, memoryless, conv, attention, hybrid, transformer, hierarchical,
        deep, deep_lstm_batch_norm, zoneout, decay,
    )
}  # fmt: skip


def test_every_network_has_a_reference() -> None:
    """No name of the registry is left out: a new cell or shape needs a reference here."""
    assert NETWORKS.keys() == REFERENCES.keys()
    assert {*CELLS, *SHAPES} - {"stack"} <= NETWORKS.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_its_reference(name: str, record_property: Callable[[str, object], None]) -> None:
    """Outputs and gradients are the reference's, within a few last digits."""
    network, x = made(NETWORKS[name]), samples(ROWS, T).requires_grad_()
    got, _ = network.unroll(x, torch.zeros(ROWS, network.state_width))
    expected = REFERENCES[name](network, x)
    record_property(f"{name}: parity", f"{(got - expected).abs().max().item():.0e}")
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    slopes = [torch.autograd.grad(said.sin().sum(), x)[0] for said in (got, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-4)


def test_a_wrong_equation_is_found() -> None:
    """Negative control: an LSTM is not one with peepholes."""
    network, x = made(NETWORKS["lstm-peephole"]), samples(ROWS, T)
    got, _ = network.unroll(x, torch.zeros(ROWS, network.state_width))
    assert (got - lstm(network, x)).abs().max() > 0.01


@pytest.mark.parametrize(("cell", "module"), [("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_earlier_weights_are_taken(cell: str, module: type[nn.RNNBase]) -> None:
    """Two layers under one kernel of torch, as they were saved before there were shapes, load and compute the same."""
    torch.manual_seed(1)
    reference, x = module(5, HIDDEN, 2, batch_first=True), samples(ROWS, T)
    network = made(Architecture(cell=cell, layers=2, hidden=HIDDEN))
    around = nn.ModuleDict({"cell": network})
    around.load_state_dict({f"cell.kernel.{name}": weight for name, weight in reference.state_dict().items()})
    got, _ = network.unroll(x, torch.zeros(ROWS, network.state_width))
    torch.testing.assert_close(got, reference(x)[0], rtol=1e-4, atol=1e-5)


def test_large_exponents_overflow_nothing() -> None:
    """Gates of an sLSTM that would overflow without the stabiliser give finite numbers, and the right ones."""
    network = made(NETWORKS["slstm"])
    with torch.no_grad():
        network.kernel.bias_ih_l0[:HIDDEN] += 200  # exp(200) is no float32
    x = samples(ROWS, 400)
    got, last = network.unroll(x, torch.zeros(ROWS, network.state_width))
    assert last.isfinite().all()
    torch.testing.assert_close(got, slstm(network, x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["attention", "hybrid"])
def test_attention_tells_from_the_row_what_it_heeds(name: str) -> None:
    """Its weights can be read off a stored state: shares of 1 among what has been, none for empty slots."""
    network = made(NETWORKS[name])
    state = torch.zeros(ROWS, network.state_width)
    back = network.layers[-1]
    for seen, x in enumerate(samples(7, ROWS), start=1):
        state = network.step(x, state)
        weights = back.weights(state[:, -back.state_width :])
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(ROWS))
        assert (weights[:, :seen] > 0).all()
        assert not weights[:, seen:].any()
