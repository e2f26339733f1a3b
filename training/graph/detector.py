"""The detector: one pure function from a sample and a row of memory to a score and the next row.

    step(values, observed, elapsed, clock, state, learning, role)
        -> (score, blame, expected, lower, upper, next_state)

`step` is the only definition of the arithmetic: it is exported as it stands (docs/contract.md), and training
unrolls its parts over time. The dataflow, in reading order:

    Scale > Forecaster > Coverage > Bank > Evidence, Roles    per channel, in the channel's block of the row
    Joint evidence > Tail                                     per stream, in the joint block

Every tensor of a channel is (B, C, width), every joint one (B, 1, width).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from detector.errors import ConfigurationError
from training.graph.band import Coverage
from training.graph.bank import Heard, Profile
from training.graph.evidence import rate_of
from training.graph.forecaster import Forecaster, JointForecaster, SharedForecaster
from training.graph.joint import Joint, Said
from training.graph.layout import Field, Layout
from training.graph.own import OwnEvidence
from training.graph.roles import Roles
from training.graph.scale import COUNT_MAX, MEMORY, Reading, Scale
from training.graph.tail import Tail
from training.shapes import Architecture, check

CLOCK_FEATURES = 4
TRUSTED_AFTER = 16  # samples of a channel before its scale means enough to learn a forecast from

_GAP_MAX = 4.0  # periods that evidence forgets for; more, and a single sample after a long gap would be all of it
_ELAPSED_MAX = 1e9  # seconds
_PERIOD_WEIGHT = 100.0  # samples that a nominal period counts for
_OWN_STEPS = {"light": 8, "full": 3}  # of a channel alone; in `full` it counts for a quarter
_WEAKEST = 1e-3  # of a distance; below it nobody cares; keeps shares finite
_STRANGEST = 0.25  # what the strangest target alone counts for beside all of them together
_LASTING, _DOUBT = 0.15, 3.0  # what a nat of a level away from its usual one counts for, beyond the first three
_YOUNG = 200.0  # samples at which a stream is half as sure as it will be
_NETWORK_CLIP = 8.0  # of everything unit-free that the network hears


@dataclass(frozen=True)
class DetectorShape(Architecture):
    """Everything that decides a detector's structure, before any weight; of the forecaster's network, Architecture."""

    mode: Literal["any", "fixed"] = "any"
    channels: tuple[str, ...] | None = None
    """Names in order; None for `any`."""
    units: tuple[str, ...] | None = None
    profile: Profile = "full"
    """How much evidence is kept of a stream: docs/accuracy.md has the cost and the worth of each."""
    warm_up: int = 128
    """Samples of a new stream during which the score is 0."""
    band_level: float = 0.98
    """Share of samples that the band is to hold."""
    period_s: float | None = None
    """Nominal seconds between samples; None learns it from each stream."""

    def __post_init__(self) -> None:
        if (self.mode == "fixed") != bool(self.channels):
            expected = "names for mode fixed, none for mode any"
            raise ConfigurationError("model", "channels", expected=expected, got=self.channels)
        check(self)

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """What the forecaster's five quantiles stand for."""
        outer = (1 - self.band_level) / 2
        return (outer, 0.1, 0.5, 0.9, 1 - outer)

    def as_dict(self) -> dict[str, Any]:
        """For metadata and weights files."""
        return asdict(self)


class StepOutput(NamedTuple):
    """What `step` returns, in the contract's order."""

    score: Tensor
    blame: Tensor
    expected: Tensor
    lower: Tensor
    upper: Tensor
    next_state: Tensor


class Prepared(NamedTuple):
    """A stretch of streams as the forecaster sees it, for training; N streams, T samples."""

    inputs: Tensor
    """(N, T, C, INPUTS)."""
    query: Tensor
    """(N, T, C, QUERY)."""
    target: Tensor
    """(N, T, C) the change to be forecast, in change scales."""
    mask: Tensor
    """(N, T, C) bool, observed."""
    trusted: Tensor
    """(N, T, C) bool, observed and with scale enough to learn from."""


class Detector(nn.Module):
    """Scale, forecaster, coverage, evidence and tail, composed."""

    def __init__(self, shape: DetectorShape) -> None:
        super().__init__()
        self.shape = shape
        self.scale, self.roles, self.tail = Scale(), Roles(), Tail()
        self.coverage = Coverage(shape.band_level)
        self.forecaster = _make_forecaster(shape)
        self.own = OwnEvidence(_OWN_STEPS[shape.profile])
        self.together = Joint() if shape.profile == "full" else None
        memory = Field("hidden", self.forecaster.hidden_width)
        shared = shape.mode == "any"
        # `since` stands first: it alone moves on while its channel is not observed.
        self.since = Layout("channel", [Field("since")])
        self.channel = Layout("channel", [*Scale.FIELDS, *Coverage.FIELDS, *Roles.fields, *self.own.fields])
        # The widest fields are cut off and put back in one piece each: copies of them are what the row costs.
        self.wide = Layout("channel", [*self.own.wide, *([memory] if shared else [])])
        period = Field("period", initial=shape.period_s or 0.0)
        joint = [Field("samples"), period, *Tail.FIELDS]
        self.joint = Layout("joint", [*joint, *([] if shared else [memory])])
        self.evidence = self.together.layout if self.together else Layout("joint", [])
        self.matrix = Layout("joint", [self.together.covariance.field] if self.together else [])
        parts = (self.joint, self.evidence, self.matrix)
        self.register_buffer("initial_joint", torch.cat([layout.initial() for layout in parts]))
        blocks = 1 if shared else len(shape.channels or ())
        parts = (self.since, self.channel, self.wide)
        initial = torch.cat([layout.initial() for layout in parts])
        self.register_buffer("initial_channel", initial.repeat(blocks, 1))

    initial_joint: Tensor
    initial_channel: Tensor

    @property
    def joint_width(self) -> int:
        """Floats of the joint block: b of the contract."""
        return self.joint.width + self.evidence.width + self.matrix.width

    @property
    def channel_width(self) -> int:
        """Floats of one channel's block: a of the contract."""
        return 1 + self.channel.width + self.wide.width

    def initial_row(self, channels: int) -> Tensor:
        """A new stream's row (S,)."""
        blocks = self.initial_channel.expand(channels, -1) if self.shape.mode == "any" else self.initial_channel
        return torch.cat([self.initial_joint, blocks.flatten()])

    def row_layout(self) -> list[dict[str, Any]]:
        """The row's fields, for the metadata."""
        return [
            {**entry, "offset": start + entry["offset"]}
            for layout, start in self._blocks()
            for entry in layout.describe()
        ]

    def _blocks(self) -> list[tuple[Layout, int]]:
        """The layouts of the row's parts and where each begins in its scope."""
        scopes = (self.joint, self.evidence, self.matrix), (self.since, self.channel, self.wide)
        return [
            (layout, sum(before.width for before in layouts[:place]))
            for layouts in scopes
            for place, layout in enumerate(layouts)
        ]

    def forward(
        self,
        values: Tensor,
        observed: Tensor,
        elapsed: Tensor,
        clock: Tensor,
        state: Tensor,
        learning: Tensor,
        role: Tensor,
    ) -> tuple[Tensor, ...]:
        """`step`, as the exporter calls it."""
        return tuple(self.step(values, observed, elapsed, clock, state, learning, role))

    def step(
        self,
        values: Tensor,
        observed: Tensor,
        elapsed: Tensor,
        clock: Tensor,
        state: Tensor,
        learning: Tensor | None = None,
        role: Tensor | None = None,
    ) -> StepOutput:
        """Carry one sample of each of B streams; see docs/contract.md for every tensor."""
        learning = torch.ones_like(elapsed) if learning is None else learning
        role = torch.zeros_like(observed) if role is None else role
        learning, role = learning.unsqueeze(1), role.unsqueeze(-1)
        widths = [self.joint.width, self.evidence.width, self.matrix.width, state.shape[1] - self.joint_width]
        small, together, matrix, blocks = state.unsqueeze(1).split(widths, dim=-1)
        joint = self.joint.split(small)
        blocks = blocks.unflatten(-1, (values.shape[1], self.channel_width)).squeeze(1)
        since, rest, *wide = blocks.split([1, self.channel.width, *self.wide.widths], dim=-1)
        channel = self.channel.split(rest) | dict(zip(self.wide.fields, wide, strict=True))

        elapsed, clock = elapsed.unsqueeze(1).clamp(0.0, _ELAPSED_MAX), clock.unsqueeze(1)
        period = self._period(elapsed, joint)
        since = since + elapsed

        # What each channel says.
        reading, new = self.scale(values.unsqueeze(-1), observed.unsqueeze(-1), learning, channel)
        inputs, timing, levers = _inputs(reading), _timing(since, period, clock), (reading.back, reading.momentum)
        hidden = channel["hidden"] if self.shape.mode == "any" else joint["hidden"]
        forecast, hidden = self.forecaster.step(inputs, timing, levers, hidden)
        band, factor = self.coverage(reading.y, forecast.centre, forecast.widths, channel["band_factor"])
        new["band_factor"] = channel["band_factor"] + learning * (factor - channel["band_factor"])
        steps = (since / period.clamp(min=1e-9)).clamp(max=_GAP_MAX)
        heard = Heard(reading.z, reading.g, reading.y, band.residual, steps, reading.count)
        rate = learning * reading.known.float() * rate_of(reading.count)
        own, evidence = self.own(heard, rate, channel)
        role, roles = self.roles(values.unsqueeze(-1), reading, role, learning, channel)
        new |= evidence | roles

        # What the targets say together.
        target = role * reading.known.float()
        present = target.amax(dim=1, keepdim=True)
        pace = learning * present * rate_of(joint["samples"])
        own = own._replace(q=own.q * target)
        over = torch.ones_like(observed).unsqueeze(1)
        said = Said(heard, own, role, present, over)
        q, shares, together, matrix = self._judge(said, pace, together, matrix)
        age = joint["samples"] - self.shape.warm_up
        live = (age + 1).clamp(0.0, 1.0) * present
        # Statistics of few samples are too small: a young stream is less sure.
        u = q.sqrt() * (joint["samples"] / (joint["samples"] + _YOUNG))
        score, new_joint = self.tail(u, live, joint, learning)
        new_joint |= {"samples": (joint["samples"] + 1).clamp(max=COUNT_MAX), "period": period}
        if self.shape.mode == "any":
            new["hidden"] = torch.where(reading.known, hidden, channel["hidden"])
        else:
            new_joint["hidden"] = hidden

        next_rest = torch.where(reading.known, self.channel.join(new), rest)
        since = since * (1 - reading.known.float())
        joint_after = self.joint.join(new_joint)
        blocks = torch.cat([since, next_rest, *(new[name] for name in self.wide.fields)], dim=-1)
        return StepOutput(
            score=score.squeeze(-1),
            blame=_blame(shares, reading.known.float()).squeeze(-1),
            expected=_raw(reading, forecast.centre),
            lower=_raw(reading, forecast.centre - band.down),
            upper=_raw(reading, forecast.centre + band.up),
            next_state=torch.cat([part.flatten(1) for part in (joint_after, together, matrix, blocks)], dim=1),
        )

    def _period(self, elapsed: Tensor, joint: dict[str, Tensor]) -> Tensor:
        """The stream's own mean elapsed; a single gap counts for ten periods at most."""
        samples, period = joint["samples"], joint["period"]
        weight = _PERIOD_WEIGHT if self.shape.period_s else 0.0
        # Nothing elapsed before the first sample: its rate is 0.
        rate = samples.clamp(max=1.0) / (samples + weight).clamp(1.0, MEMORY)
        counted = torch.where(samples > 1, torch.minimum(elapsed, 10 * period), elapsed)
        return period + rate * (counted - period)

    def _judge(self, said: Said, rate: Tensor, block: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weigh all targets together, the strangest of them alone, and how far they are from their usual levels.

        Args:
            said: By the channels.
            rate: (B, 1, 1) at which the stream learns.
            block: (B, 1, width) the joint evidence; (B, 1, 0) for `light`.
            matrix: (B, 1, K * K) the joint covariance; (B, 1, 0) for `light`.

        Returns:
            The distance (B, 1, 1), the channels' parts of it (B, C, 1), and block and matrix after this sample.
        """
        lasting = said.target * (said.own.nats - _DOUBT).clamp(min=0.0)
        n, q = _total(said.target), _total(lasting)
        weight = _LASTING / n.clamp(min=1.0)
        lasting, q = weight * lasting, weight * q
        strangest = said.own.q.amax(dim=1, keepdim=True)
        alone = said.own.q * (said.own.q >= strangest).float()
        if self.together is None:
            return q + strangest, lasting + alone, block, matrix
        together, block, matrix = self.together(said, rate, block, matrix)
        q, shares = q + _STRANGEST * strangest, lasting + _STRANGEST * alone
        return q + together.q, shares + together.shares, block, matrix

    @torch.no_grad()
    def prepare(self, values: Tensor, observed: Tensor, elapsed: Tensor, clock: Tensor) -> Prepared:
        """Run only the scale over T samples, all streams and channels at once, for training the forecaster.

        Args:
            values: (N, T, C) float64, raw units; whole streams from their first sample.
            observed: (N, T, C) float32.
            elapsed: (N, T) float32 seconds.
            clock: (N, T, K) float32.
        """
        N, T, C = values.shape
        row = self.initial_row(C).expand(N, -1)
        joint = self.joint.split(row[:, : self.joint.width].unsqueeze(1))
        block = row[:, self.joint_width :].reshape(N, C, self.channel_width)
        since, channel = block[..., :1], self.channel.split(block[..., 1 : 1 + self.channel.width])
        steps, learning = [], torch.ones(1, 1, 1)
        for t in range(T):
            now = elapsed[:, t, None, None].clamp(0.0, _ELAPSED_MAX)
            period = self._period(now, joint)
            reading, new = self.scale(values[:, t, :, None], observed[:, t, :, None], learning, channel)
            trusted = reading.known & (reading.count >= TRUSTED_AFTER)
            timing = _timing(since + now, period, clock[:, t, None])
            query = torch.cat([timing, reading.back, reading.momentum], dim=-1)
            steps.append((_inputs(reading), query, reading.y, reading.known, trusted))
            accepted = reading.known.any(dim=1, keepdim=True)  # a sample with nothing observed is none
            since = torch.where(accepted, (since + now) * (1 - reading.known.float()), since)
            channel |= {name: torch.where(reading.known, new[name], channel[name]) for name in new}
            moved = {"samples": (joint["samples"] + 1).clamp(max=COUNT_MAX), "period": period}
            joint |= {name: torch.where(accepted, moved[name], joint[name]) for name in moved}
        inputs, query, target, mask, trusted = (torch.stack(part, dim=1) for part in zip(*steps, strict=True))
        return Prepared(inputs, query, target.squeeze(-1), mask.squeeze(-1), trusted.squeeze(-1))

    @torch.no_grad()
    def set_priors(self, joint: dict[str, Tensor] | None = None, channel: dict[str, Tensor] | None = None) -> None:
        """Write what calibration learnt into the initial row.

        Args:
            joint: New initial values of joint fields by name, such as the tail's; each (width,).
            channel: The same for a channel's fields, (width,), or (C, width) for fixed channels.
        """
        values = {**(joint or {}), **(channel or {})}
        for layout, start in self._blocks():
            block = self.initial_joint if layout.scope == "joint" else self.initial_channel
            for name in values.keys() & layout.fields.keys():
                offset = start + layout.offset(name)
                block[..., offset : offset + layout.fields[name].width] = values[name]

    def fields(self, rows: Tensor) -> dict[str, Tensor]:
        """Name the contents of rows (N, S): joint fields (N, width), channel fields (N, C, width)."""
        blocks = rows[:, self.joint_width :].unflatten(1, (-1, self.channel_width))
        return {
            **Layout("joint", [*self.joint, *self.evidence, *self.matrix]).split(rows[:, : self.joint_width]),
            **Layout("channel", [*self.since, *self.channel, *self.wide]).split(blocks),
        }


def _make_forecaster(shape: DetectorShape) -> Forecaster:
    return SharedForecaster(shape) if shape.mode == "any" else JointForecaster(shape, len(shape.channels or ()))


def _inputs(reading: Reading) -> Tensor:
    """What the cell hears of a sample (..., C, INPUTS); a channel that is not observed stands where it last stood."""
    z, g = (one.clamp(-_NETWORK_CLIP, _NETWORK_CLIP) for one in (reading.z, reading.g))
    return torch.cat([z, g, reading.ratio, reading.rate.sqrt(), reading.known.float()], dim=-1)


def _timing(since: Tensor, period: Tensor, clock: Tensor) -> Tensor:
    """What is known of a sample before it is seen (..., C, TIMING): the gap, one half when regular, and the clock."""
    gap = since / (since + period).clamp(min=1e-9)
    return torch.cat([gap, clock.expand(*gap.shape[:-1], CLOCK_FEATURES)], dim=-1)


def _blame(shares: Tensor, known: Tensor) -> Tensor:
    """Shares (B, C, 1) of 1 among the channels that were observed."""
    shares = shares.clamp(min=_WEAKEST) * known
    return shares / _total(shares).clamp(min=_WEAKEST)


def _total(parts: Tensor) -> Tensor:
    """Sum over channels (B, 1, 1) of what is not negative (B, C, 1).

    As a norm: in ONNX Runtime it depends on nothing but the row, as a sum does, and takes a tenth of a product's time.
    """
    return torch.linalg.vector_norm(parts.squeeze(-1), ord=1, dim=-1, keepdim=True).unsqueeze(-1)


def _raw(reading: Reading, forecast: Tensor) -> Tensor:
    """Take a forecast from change scales back to raw units (..., C)."""
    return (reading.base + (reading.unit * forecast).double()).squeeze(-1)
