"""What is usual of a tail: the nines at each level of `training.graph.tail`, over streams of our own generators.

    python -m tests.benchmarks.usual [--weights detector/bundles/default.pt]

A new stream's levels start from these. They are the shares of all samples of 96 generated streams, pooled, that reach
each level of ln u once a stream has been seen for 500 samples beyond its warm-up; strangeness does not depend on the
tail, so that what is printed here may be written there without going round in circles. Beside them: the mean excess
over 0, and how often the tail's nines come on the same streams, as multiples of what they promise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from detector.records import Float32
from training.data.batches import block
from training.data.series import Series
from training.graph import tail
from training.graph.detector import Detector
from training.run import detector_of
from training.synthetic.streams import streams

_SEED = 77  # training's is 1
_STREAMS, _SAMPLES = 96, 12_000
_SETTLED = 628  # samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=Path("detector/bundles/default.pt"))
    torch.set_num_threads(1)
    u, score = strangeness(detector_of(parser.parse_args().weights))
    x = np.log(np.maximum(u[:, _SETTLED:], tail.LEAST))
    usual = [-np.log10(np.mean(x >= level)) for level in tail.LEVELS]
    print("levels  ", *(f"{level:6.2f}" for level in tail.LEVELS))
    print("nines   ", *(f"{nines:6.2f}" for nines in usual))
    print("kept    ", *(f"{nines:6.2f}" for nines in tail.USUAL))
    print(f"mean excess over 0: {x[x > 0].mean():.3f}; kept: {tail.EXCESS}")
    for nines in (1, 2, 3, 4):
        print(f"{nines} nines: {np.mean(score[:, _SETTLED:] >= nines) * 10**nines:.2f} times as often as promised")


@torch.inference_mode()
def strangeness(detector: Detector) -> tuple[Float32, Float32]:
    """Strangeness and nines (N, T) of generated streams of one channel."""
    detector.eval()
    heard: list[torch.Tensor] = []
    detector.tail.register_forward_pre_hook(lambda _, arguments: heard.append(arguments[0].flatten()))
    drawn = streams(_STREAMS, _SAMPLES, 1, _SEED)
    one = block([Series(name, names, at, values, 0) for name, names, at, values in drawn], "UTC")
    inputs = [torch.from_numpy(part) for part in (one.values, one.observed, one.elapsed[..., None], one.clock)]
    rows, scores = detector.initial_row(1).repeat(len(one.series), 1), []
    for at in range(_SAMPLES):
        out = detector.step(*(part[:, at] for part in inputs), rows)
        rows = out.next_state
        scores.append(out.score.flatten())
    return torch.stack(heard, dim=1).numpy(), torch.stack(scores, dim=1).numpy()


if __name__ == "__main__":
    main()
