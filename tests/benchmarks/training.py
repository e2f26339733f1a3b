"""What training makes of a core: python -m tests.benchmarks.training

    torch.nn.GRU   torch's own layer and a head, trained as `fit` trains: chunk by chunk, the state carried, pinball
                   loss, gradients clipped, AdamW
    fused          our GRU through `unroll`, which calls torch's kernel over the same weights
    unrolled       our GRU sample by sample through `step`, the arithmetic that is exported: how cells without a
                   kernel are trained
    forecaster     the whole forecaster with it, as `fit` trains it on the same streams: line, levers and masks

All in one run and in turn, by processor time, the median of several goes: samples per second, and how many times as
many as torch's layer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from training.cells import CELLS
from training.cells.base import Network
from training.fit.bptt import Bptt
from training.fit.processes import ALONE
from training.fit.state import Training
from training.graph import Detector, DetectorShape
from training.graph.forecaster import INPUTS, QUERY
from training.settings import FitSettings
from training.spans import Span

LEVELS = torch.tensor([0.01, 0.1, 0.5, 0.9, 0.99])
FLOORS = {"unrolled": 0.5, "fused": 0.8}

Unroll = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def bare(network: nn.Module, unroll: Unroll, hidden: int, x: Tensor, target: Tensor, chunk: int) -> None:
    """One epoch of a layer and a head over one batch."""
    head = nn.Linear(hidden, len(LEVELS))
    parameters = [*network.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters)
    state = torch.zeros(len(x), hidden)
    for at in range(0, x.shape[1], chunk):
        outputs, state = unroll(x[:, at : at + chunk], state)
        error = target[:, at : at + chunk, None] - head(outputs)
        loss = torch.maximum(LEVELS * error, (LEVELS - 1) * error).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        state = state.detach()


def ways(hidden: int, streams: int, samples: int, chunk: int) -> dict[str, Callable[[], object]]:
    """Each way of training, as something to be timed."""
    torch.manual_seed(0)
    width = Detector(DetectorShape(hidden=hidden)).forecaster.cell.inputs
    x, target = torch.randn(streams, samples, width), torch.randn(streams, samples)
    theirs, ours = nn.GRU(width, hidden, batch_first=True), CELLS["gru"](width, hidden)

    def by_layer(part: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, last = theirs(part, state.unsqueeze(0))
        return outputs, last[0]

    def by_step(part: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return Network.unroll(ours, part, state)

    return {
        "torch.nn.GRU": lambda: bare(theirs, by_layer, hidden, x, target, chunk),
        "fused": lambda: bare(ours, ours.unroll, hidden, x, target, chunk),
        "unrolled": lambda: bare(ours, by_step, hidden, x, target, chunk),
        "forecaster": whole(hidden, streams, samples, chunk),
    }


def whole(hidden: int, streams: int, samples: int, chunk: int) -> Callable[[], object]:
    """An epoch of the forecaster over streams of one channel, by `fit`'s own pass."""
    settings = FitSettings(batch=streams, chunk=chunk)
    training = Training(Detector(DetectorShape(hidden=hidden)).forecaster, settings)
    passes, there = Bptt(training, LEVELS, settings, ALONE), torch.ones(samples, 1, dtype=torch.bool)
    spans = [
        Span(torch.randn(samples, 1, INPUTS), torch.randn(samples, 1, QUERY), torch.randn(samples, 1), there, there)
        for _ in range(streams)
    ]
    return lambda: list(passes.train(spans))


def main() -> None:
    """Print the table; the exit status says whether the floors are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"hidden": 64, "streams": 32, "samples": 512, "chunk": 64, "repeats": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = ways(asked.hidden, asked.streams, asked.samples, asked.chunk)
    took: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(asked.repeats):
        for name, act in found.items():
            began = time.process_time()
            act()
            took[name].append(time.process_time() - began)
    theirs = median(took["torch.nn.GRU"])
    shares = {name: theirs / median(seconds) for name, seconds in took.items()}
    print(f"GRU-{asked.hidden}, {asked.streams} streams, chunks of {asked.chunk}, one thread")
    for name, share in shares.items():
        rate = asked.streams * asked.samples / median(took[name])
        floor = f"  at least {FLOORS[name]:.1f}x" if name in FLOORS else ""
        print(f"{name:>14} {rate:>10,.0f} samples/s {share:>6.2f}x{floor}")
    raise SystemExit(any(shares[name] < floor for name, floor in FLOORS.items()))


if __name__ == "__main__":
    main()
