"""What training unrolls is what the exported step computes."""

from __future__ import annotations

from itertools import pairwise

import pytest

pytest.importorskip("torch")

import torch

from training.graph import Detector, DetectorShape
from training.graph.forecaster import Forecast

SHAPES = {
    f"{mode}-{cell}-{layers}": DetectorShape(
        mode=mode, channels=("a", "b", "c") if mode == "fixed" else None, cell=cell, layers=layers, hidden=6
    )
    for mode in ("any", "fixed")
    for cell in ("gru", "lstm")
    for layers in (1, 2)
} | {
    "any-no-line": DetectorShape(line=False, hidden=6),
    "any-memoryless": DetectorShape(shape="memoryless", hidden=6),
    "fixed-decay": DetectorShape(mode="fixed", channels=("a", "b", "c"), decay=True, hidden=6),
}
T, N, C = 40, 3, 3


@pytest.fixture(params=SHAPES)
def detector(request: pytest.FixtureRequest) -> Detector:
    torch.manual_seed(1)
    made = Detector(SHAPES[request.param]).eval()
    for weight in made.forecaster.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # a head that has left persistence behind
    return made


@pytest.fixture
def stretch() -> tuple[torch.Tensor, ...]:
    """Streams with missing channels, one sample with nothing observed, and a channel that is never observed."""
    torch.manual_seed(2)
    values = torch.randn(N, T, C, dtype=torch.float64) * 3 + 100
    observed = (torch.rand(N, T, C) < 0.8).float()
    observed[1, :, 2] = 0
    observed[0, 10] = 0
    values[observed == 0] = float("nan")
    elapsed = torch.rand(N, T) * 100 + 1
    elapsed[:, 0] = 0
    return values, observed, elapsed, torch.rand(N, T, 4) * 2 - 1


def test_unroll_and_prepare_are_step(detector: Detector, stretch: tuple[torch.Tensor, ...]) -> None:
    """The quantiles of `prepare` and `unroll`, over two chunks, are those inside `step`, sample by sample."""
    prepared = detector.prepare(*stretch)
    hidden = detector.forecaster.initial_hidden(N, C)
    chunks = []
    for part in (slice(0, 17), slice(17, T)):
        inputs, query, mask = prepared.inputs[:, part], prepared.query[:, part], prepared.mask[:, part]
        quantiles, hidden = detector.forecaster.unroll(inputs, query, mask, hidden.detach())
        chunks.append(quantiles)
    unrolled = torch.cat(chunks, dim=1)

    stepped, rows = _step_by_step(detector, stretch)
    torch.testing.assert_close(unrolled, stepped, rtol=3e-3, atol=3e-3)
    torch.testing.assert_close(hidden.squeeze(), detector.fields(rows)["hidden"].squeeze(), rtol=3e-3, atol=3e-3)


def _step_by_step(detector: Detector, stretch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantiles (N, T, C, Q) of the forecasts inside `step`, and the last rows."""
    values, observed, elapsed, clock = stretch
    seen: list[Forecast] = []
    real = detector.forecaster.step

    def watched(*given: object) -> object:
        said = real(*given)
        seen.append(said[0])
        return said

    detector.forecaster.step = watched
    rows = detector.initial_row(C).repeat(N, 1)
    with torch.no_grad():
        for t in range(T):
            said = detector.step(values[:, t], observed[:, t], elapsed[:, t, None], clock[:, t], rows)
            # As in the daemon, a sample with nothing observed is none.
            rows = torch.where(observed[:, t].any(dim=1, keepdim=True), said.next_state, rows)
    return torch.stack([forecast.quantiles for forecast in seen], dim=1), rows


def test_quantiles_never_cross(detector: Detector, stretch: tuple[torch.Tensor, ...]) -> None:
    """However the head is trained, the five quantiles rise."""
    with torch.no_grad():
        for weight in detector.forecaster.parameters():
            weight.mul_(20)
        prepared = detector.prepare(*stretch)
        hidden = detector.forecaster.initial_hidden(N, C)
        quantiles, _ = detector.forecaster.unroll(prepared.inputs, prepared.query, prepared.mask, hidden)
    assert all((upper >= lower).all() for lower, upper in pairwise(quantiles.unbind(dim=-1)))


def test_an_untrained_forecast_is_persistence() -> None:
    """Before anybody has learnt, a forecast is the last value, with a band of a few change scales."""
    torch.manual_seed(0)
    detector = Detector(DetectorShape(hidden=8))
    values = torch.randn(2, 100, 1, dtype=torch.float64).cumsum(dim=1)
    prepared = detector.prepare(values, torch.ones(2, 100, 1), torch.ones(2, 100), torch.zeros(2, 100, 4))
    hidden = detector.forecaster.initial_hidden(2, 1)
    with torch.no_grad():
        quantiles, _ = detector.forecaster.unroll(prepared.inputs, prepared.query, prepared.mask, hidden)
    assert quantiles[..., 2].abs().max() < 1.5
    assert ((quantiles[..., 4] - quantiles[..., 0] - 5.8).abs() < 1.5).all()


@pytest.mark.parametrize(("name", "reach"), [("any-memoryless", 1), ("any-no-line", T), ("any-gru-1", T)])
def test_a_baseline_without_memory_has_none(name: str, reach: int) -> None:
    """Nothing but the last sample moves its forecast, not even by the line; of any other network all do."""
    torch.manual_seed(3)
    forecaster = Detector(SHAPES[name]).eval().forecaster
    for weight in forecaster.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    inputs, query, mask = torch.randn(1, T, 1, 5).requires_grad_(), torch.randn(1, T, 1, 7), torch.ones(1, T, 1).bool()
    quantiles, _ = forecaster.unroll(inputs, query, mask, forecaster.initial_hidden(1, 1))
    (slope,) = torch.autograd.grad(quantiles[0, -1].sum(), inputs)
    heard = slope[0].abs().sum(dim=(1, 2)).nonzero().flatten()  # the forecast of the last is made before it
    assert heard.tolist() == list(range(max(0, T - 1 - reach), T - 1))


def test_a_missing_channel_fades_to_its_mean() -> None:
    """What is observed is heard as it is; what is missing, the less the longer ago, each channel at its own pace."""
    fade = Detector(SHAPES["fixed-decay"]).forecaster.fade
    with torch.no_grad():
        fade.weight.copy_(torch.tensor([[0.0], [0.5], [2.0]]))
    x, periods = torch.tensor([[3.0], [-3.0], [3.0]]), torch.tensor([1.0, 4.0])[:, None, None]
    heard = fade(x, torch.zeros(3, 1), (periods / (1 + periods)).expand(2, 3, 1))
    torch.testing.assert_close(heard, x * torch.exp(-fade.weight * periods))
    assert torch.equal(fade(x, torch.ones(3, 1), torch.full((3, 1), 0.9)), x)


def test_prepare_trusts_a_channel_after_its_first_samples(stretch: tuple[torch.Tensor, ...]) -> None:
    """What is trained on begins once a channel has a scale, counts its own samples only, and is finite."""
    prepared = Detector(SHAPES["any-gru-1"]).prepare(*stretch)
    assert all(part.isfinite().all() for part in prepared)
    own = prepared.mask.cumsum(dim=1)
    assert (prepared.trusted == (prepared.mask & (own > 16))).all()
    assert not prepared.mask[1, :, 2].any()
