"""Feed-forward networks on the last few samples: baselines, and the convolution in front of a recurrence.

    window      y = tanh(W_L ... tanh(W_1 [x_t, x_t-1, ..., x_t-k+1] + b_1) ...)      remembers k samples, and no more
    memoryless  the same with k = 1: from one to one; what the others are better is what memory is worth

One layer of it at every sample is a causal convolution over time with a kernel of k samples.
"""

from __future__ import annotations

from torch import Tensor, nn

from training.cells import Network
from training.shapes.base import Architecture, register
from training.shapes.past import Past, last_of


class Window(Network):
    """Feed-forward layers on the last samples; state = those samples, newest first.

    Args:
        inputs: Width of a sample.
        hidden: Units of each layer.
        reach: Samples that it sees.
        layers: Feed-forward layers.
    """

    def __init__(self, inputs: int, hidden: int, reach: int, layers: int = 1) -> None:
        super().__init__(inputs, hidden, reach * inputs)
        self.past = Past(reach, inputs)
        widths = [reach * inputs] + [hidden] * (layers - 1)
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(width, hidden), nn.Tanh()) for width in widths))

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One sample."""
        return self.past.push(x, state)

    def output(self, state: Tensor) -> Tensor:
        """What the layers make of the samples."""
        said: Tensor = self.layers(state)
        return said

    def unroll(self, x: Tensor, state: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T samples at once."""
        seen = self.past.unroll(x, state)
        return self.output(seen), last_of(seen, lengths)


def _window(asked: Architecture, inputs: int, _: slice) -> Network:
    return Window(inputs, asked.hidden, asked.reach, asked.layers)


def _memoryless(asked: Architecture, inputs: int, _: slice) -> Network:
    return Window(inputs, asked.hidden, 1, asked.layers)


register("window", _window, "reach", is_baseline=True)
register("memoryless", _memoryless, is_baseline=True)
