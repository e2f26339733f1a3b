"""The smallest detector that the contract allows around a forecaster of any network.

The real one has a thousand nodes of scale, evidence and tail, and takes half a minute to export. This one has some
hundred, but the forecaster is the real one, and so are export, proofs, session and engine: what breaks is the network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.graph.detector import DetectorShape, StepOutput
from training.graph.forecaster import Forecast, SharedForecaster
from training.graph.layout import Field, Layout

_HALF = 10.0  # raw units at which a squashed value is half of the most
_FAR = 1e6


class Probe(nn.Module):
    """Scores how far a sample is outside its forecast; row = [samples | last value, hidden state of each channel].

    Args:
        shape: `any` channels.
    """

    def __init__(self, shape: DetectorShape) -> None:
        super().__init__()
        self.shape, self.forecaster = shape, SharedForecaster(shape)
        self.joint = Layout("joint", [Field("samples")])
        self.channel = Layout("channel", [Field("last"), Field("hidden", self.forecaster.hidden_width)])
        self.joint_width, self.channel_width = self.joint.width, self.channel.width
        self.register_buffer("initial_joint", self.joint.initial())
        self.register_buffer("initial_channel", self.channel.initial()[None])

    def initial_row(self, channels: int) -> Tensor:
        """A new stream's row."""
        return torch.cat([self.initial_joint, self.initial_channel.expand(channels, -1).flatten()])

    def row_layout(self) -> list[dict[str, Any]]:
        """For the metadata."""
        return self.joint.describe() + self.channel.describe()

    def step(self, *given: Tensor) -> StepOutput:
        """See docs/contract.md."""
        return self(*given)

    def forward(
        self,
        values: Tensor,
        observed: Tensor,
        elapsed: Tensor,
        clock: Tensor,
        state: Tensor,
        learning: Tensor,
        role: Tensor,
    ) -> StepOutput:
        """One sample of each row."""
        samples, blocks = state.split([1, state.shape[1] - 1], dim=-1)
        last, hidden = blocks.unflatten(1, (-1, self.channel_width)).split([1, self.channel_width - 1], dim=-1)
        known = ((observed > 0.5) & (values.abs() < _FAR)).unsqueeze(-1)
        x = torch.where(known, values.unsqueeze(-1).float(), last)
        seen = torch.ones_like(x) * (1 + 0 * (learning + role).unsqueeze(-1))  # takes what it need not look at
        inputs = torch.cat([_squashed(x), _squashed(x - last), seen, seen, known.float()], dim=-1)
        gap = (elapsed / (elapsed + 60.0)).unsqueeze(-1).expand_as(x)
        timing = torch.cat([gap, clock.unsqueeze(1).expand(*gap.shape[:2], -1)], dim=-1)
        forecast, after = self.forecaster.step(inputs, timing, (torch.zeros_like(x), torch.zeros_like(x)), hidden)
        return self._said(x, last, forecast, known.float(), samples, torch.where(known, after, hidden))

    def _said(
        self, x: Tensor, last: Tensor, forecast: Forecast, known: Tensor, samples: Tensor, hidden: Tensor
    ) -> StepOutput:
        expected, quantiles = last + forecast.centre, last + forecast.quantiles
        outside = (x - expected).abs() / (forecast.width + 1) * known + 1e-3
        total = outside.amax(dim=1)
        sharing = outside * known + 1e-6
        ones = torch.ones_like(x).transpose(1, 2)
        live = (samples + 1 - self.shape.warm_up).clamp(0, 1)
        blocks = torch.cat([x, hidden], dim=-1).flatten(1)
        raw = [one.squeeze(-1).double() for one in (expected, quantiles[..., :1], quantiles[..., -1:])]
        return StepOutput(
            score=live * total.clamp(max=20.0),
            blame=(sharing / (ones @ sharing)).squeeze(-1),
            expected=raw[0],
            lower=raw[1],
            upper=raw[2],
            next_state=torch.cat([(samples + 1).clamp(max=2.0**24), blocks], dim=1),
        )


def _squashed(x: Tensor) -> Tensor:
    return 8 * x / (x.abs() + _HALF)
