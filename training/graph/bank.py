"""Evidence bank: what a channel has been doing, on several time scales, as 16 (`light`) or 42 (`full`) features.

*Averages* over half-lives of 4, 16, 64 and 256 periods, all of unit-free quantities, so that nothing here depends on
the channel's unit:

    level     z                        where it is
    wobble    (z - level average)^2    how far it spreads about that
    change    |g|                      how rough it is
    bend      |g - g before|           how jagged it is
    trend     g                        where it is going
    skew      z^3                      to which side it leans
    energy    r^2                      how far it is from its forecast

*Memories* hold the shape of the last 8, 32 and 128 samples as 4, 4 and 8 Legendre coefficients: the linear system whose
state is the projection of a sliding window of its input (Voelker, Kajic and Eliasmith, Legendre Memory Units, 2019),
discretised by zero-order hold.

Features are logarithms of what is positive, signed logarithms of what has a sign, and the memories as they stand:

    light    9 positive, 7 signed
    full    13 positive, 13 signed, 16 of the memories
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from training.graph.layout import SAFE_LOG, Field

Profile: TypeAlias = Literal["light", "full"]
FEATURES: dict[Profile, int] = {"light": 16, "full": 42}

_HALF_LIVES = (4, 16, 64, 256)  # periods
_WINDOWS = {8: 4, 32: 4, 128: 8}  # samples: coefficients of the memories
_CLIP_LEVEL, _CLIP_SHAPE, _CLIP_CHANGE = 30.0, 10.0, 100.0
_NEVER_DENORMAL = 1e-6  # averages of an exact 0 would decay into denormal floats, which are slow
_QUANTITIES = ("level", "change", "bend", "trend", "skew", "energy")  # wobble is made apart
_FLOOR = {"wobble": 1e-4, "change": 0.02, "bend": 0.02, "energy": 0.01}  # added under a logarithm
_POWER = {"wobble": 0.5, "energy": 0.5}  # squares count as their roots


def _each(quantity: str) -> list[tuple[str, int]]:
    return [(quantity, half) for half in _HALF_LIVES]


# Positive averages, then signed ones; (quantity, half-life).
_POSITIVE: dict[Profile, list[tuple[str, int]]] = {"light": [*_each("wobble"), *_each("change"), ("energy", 64)]}
_POSITIVE["full"] = [*_POSITIVE["light"], *_each("bend")]
_SIGNED: dict[Profile, list[tuple[str, int]]] = {"light": _each("level")}
_SIGNED["full"] = [*_SIGNED["light"], *_each("trend"), ("skew", 16), ("skew", 256)]
LEVEL_16 = slice(len(_POSITIVE["light"]) + 1, len(_POSITIVE["light"]) + 2)
"""Where the level over 16 periods stands among the light bank's averages."""


class Heard(NamedTuple):
    """What a bank hears of a sample; every tensor (..., 1)."""

    z: Tensor
    """Level in deviations."""
    g: Tensor
    """Change in change scales."""
    y: Tensor
    """The same, in the change scale from before the sample."""
    residual: Tensor
    """From the forecast, in half bands."""
    steps: Tensor
    """Periods since the sample before."""
    count: Tensor
    """Samples before."""


class Bank(nn.Module):
    """The averages and memories of a channel, and the features made of them; `of` begins the names of its fields."""

    spread: Tensor
    place: Tensor
    forgetting: Tensor
    floor: Tensor
    power: Tensor
    gain: Tensor
    pad: Tensor
    keeps: Tensor
    takes: Tensor

    def __init__(self, profile: Profile, of: str = "") -> None:
        super().__init__()
        self.profile: Profile = profile
        positive, signed = _POSITIVE[profile], _SIGNED[profile]
        averages = positive + signed
        self.positive = len(positive)
        self.averages, self.last_g, self.memories = f"{of}averages", f"{of}last_g", f"{of}memories"
        memories = [Field(self.memories, sum(_WINDOWS.values()))] if profile == "full" else []
        self.fields = (Field(self.averages, len(averages)), Field(self.last_g), *memories)
        # Products with constant matrices widen numbers to features: ONNX Runtime is slower at broadcasting short rows.
        self._constant("spread", [[float(name == one) for name, _ in averages] for one in _QUANTITIES])
        self._constant("place", [[float(each == ("wobble", half)) for each in averages] for half in _HALF_LIVES])
        self._constant("forgetting", [[-math.log(2) / half for _, half in averages], [-1.0] * len(averages)])
        self._constant("floor", [_FLOOR[name] for name, _ in positive])
        self._constant("power", [_POWER.get(name, 1.0) for name, _ in positive])
        self._constant("pad", [1.0] * (-(len(averages) + 3) % SAFE_LOG))
        self._constant("gain", [math.sqrt(half) if name == "trend" else 1.0 for name, half in signed])
        keeps, takes = _memories()
        self.register_buffer("keeps", keeps, persistent=False)
        self.register_buffer("takes", takes, persistent=False)

    def _constant(self, name: str, numbers: list[float] | list[list[float]]) -> None:
        self.register_buffer(name, torch.tensor(numbers), persistent=False)

    def forward(self, heard: Heard, old: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Take one sample.

        Returns:
            The features (..., 16 or 42), and the fields after this sample.
        """
        z, g = heard.z.clamp(-_CLIP_LEVEL, _CLIP_LEVEL), heard.g.clamp(-_CLIP_CHANGE, _CLIP_CHANGE)
        shape, r = z.clamp(-_CLIP_SHAPE, _CLIP_SHAPE), heard.residual
        bend = (g - old[self.last_g]).abs()
        quantities = torch.cat([z, g.abs(), bend, g, shape * shape * shape, r * r], dim=-1)
        youth = 1 / heard.count.clamp(min=0.02)  # averages of a new stream are nearly plain means
        decay = (torch.cat([heard.steps, youth], dim=-1) @ self.forgetting).exp()
        averages = old[self.averages]
        wobble = z - averages[..., self.positive : self.positive + len(_HALF_LIVES)]
        now = (quantities + _NEVER_DENORMAL) @ self.spread + decay * ((wobble * wobble) @ self.place)
        averages = now + decay * (averages - now)
        new = {self.averages: averages, self.last_g: g}
        features = self._features(averages, torch.cat([z, heard.y, r], dim=-1))
        if self.memories in old:
            memories = old[self.memories] @ self.keeps + (shape + _NEVER_DENORMAL) @ self.takes
            new[self.memories] = memories
            features = torch.cat([features, memories], dim=-1)
        return features, new

    def _features(self, averages: Tensor, now: Tensor) -> Tensor:
        """Logarithms, of 16 numbers or 32 at once: of other widths they would depend on the wave."""
        positive, signed = averages.split([self.positive, averages.shape[-1] - self.positive], dim=-1)
        signed = signed * self.gain
        level, others = signed.split([len(_HALF_LIVES), signed.shape[-1] - len(_HALF_LIVES)], dim=-1)
        signed = torch.cat([level, now, others], dim=-1)
        under = torch.cat(
            [positive.clamp(min=0.0) + self.floor, signed.abs() + 1.0, self.pad.expand(*now.shape[:-1], -1)], dim=-1
        )
        logs = under.log()
        positive, signs = self.power * logs[..., : self.positive], signed.sign()
        return torch.cat([positive, signs * logs[..., self.positive : self.positive + signs.shape[-1]]], dim=-1)


def _memories() -> tuple[Tensor, Tensor]:
    """What the memories keep of themselves (16, 16) and take of a sample (1, 16): l A' + x b'."""
    blocks, entries = [], []
    for window, order in _WINDOWS.items():
        i = torch.arange(order, dtype=torch.float64)
        sign = torch.where(i[:, None] < i, -1.0, (-1.0) ** (i[:, None] - i + 1))
        rate = (2 * i + 1) / window
        A, b = rate[:, None] * sign, rate * (-1.0) ** i
        kept = torch.matrix_exp(A)
        blocks.append(kept.T)
        entries.append(torch.linalg.solve(A, (kept - torch.eye(order, dtype=torch.float64)) @ b))
    return torch.block_diag(*blocks).float(), torch.cat(entries)[None].float()
