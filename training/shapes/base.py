"""What a network is to be, and the registry of shapes that make one of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeAlias

from detector.errors import ConfigurationError
from training.cells import CELLS, Network
from training.cells.initialise import INITIALS
from training.cells.wrapped import Decay, Zoneout

_NO_GAPS = slice(0, 0)


@dataclass(frozen=True)
class Architecture:
    """Everything that decides a network's structure; training/settings/model.py says what each key means."""

    shape: str = "stack"
    cell: str = "gru"
    layers: int = 1
    hidden: int = 32
    every: int = 8
    reach: int = 8
    memory: int = 16
    heads: int = 4
    residual: bool = False
    norm: str = "none"
    dropout: float = 0.0
    variational: bool = False
    zoneout: float = 0.0
    decay: bool = False
    initial: tuple[str, ...] = ()
    line: bool = True

    @property
    def has_line(self) -> bool:
        """Whether the forecaster around the network remembers the last levels by itself: never for a baseline."""
        return self.line and not SHAPES[self.shape].is_baseline


Make: TypeAlias = Callable[[Architecture, int, slice], Network]
"""Takes what is asked for, the width of a sample, and which of its numbers say how long it was waited for."""


class Shape(NamedTuple):
    """A way to put layers together."""

    make: Make
    uses: frozenset[str]
    """Keys of the architecture that mean something to it, beside `layers`, `hidden`, `initial` and `line`."""
    is_baseline: bool = False
    """Shows what memory is worth, so it is to have none beside its own."""


SHAPES: dict[str, Shape] = {}
"""Every shape by the name that configuration uses."""

_BETWEEN = {"residual", "norm", "dropout", "variational"}  # what stands between layers
_GROUPS = {"between": _BETWEEN, "cell": {"cell", "zoneout"}}
_ALWAYS = {"shape", "layers", "hidden", "initial", "line"}


def register(name: str, make: Make, *uses: str, is_baseline: bool = False) -> None:
    """Give a shape its name in configurations; each file of this folder does so for its own.

    Args:
        name: The name.
        make: Builds the network.
        uses: Keys that mean something to it; `between` stands for residual, norm, dropout and variational.
        is_baseline: It is to show what memory is worth.
    """
    keys = frozenset().union(*(_GROUPS.get(key, {key}) for key in uses))
    SHAPES[name] = Shape(make, keys, is_baseline)


def build(asked: Architecture, inputs: int, gaps: slice = _NO_GAPS) -> Network:
    """Make a network.

    Args:
        asked: What it is to be.
        inputs: Width of a sample.
        gaps: Which of a sample's numbers say how long it was waited for, each d / (1 + d) of d periods.

    Raises:
        ConfigurationError: a name that does not exist, or keys that do not go together.
    """
    check(asked)
    network = SHAPES[asked.shape].make(asked, inputs, gaps)
    for name in asked.initial:
        INITIALS[name](network)
    return network


def cells_of(asked: Architecture, inputs: int, gaps: slice = _NO_GAPS) -> list[Network]:
    """The cells that are asked for, bottom first, with what is to be around them."""
    layers: list[Network] = []
    for number in range(asked.layers):
        cell = CELLS[asked.cell](asked.hidden if number else inputs, asked.hidden)
        layers.append(Zoneout(cell, asked.zoneout) if asked.zoneout else cell)
    if asked.decay:
        layers[0] = Decay(layers[0], gaps)
    return layers


def check(asked: Architecture) -> None:
    """Raise ConfigurationError where a name does not exist or keys do not go together."""
    names: list[tuple[str, str, Mapping[str, object]]] = [("shape", asked.shape, SHAPES), ("cell", asked.cell, CELLS)]
    for key, name, known in [*names, *(("initial", name, INITIALS) for name in asked.initial)]:
        if name not in known:
            raise ConfigurationError("model", key, expected=f"one of {', '.join(known)}", got=name)
    _refuse_what_is_not_used(asked)
    if asked.layers == 1 and asked.shape in ("stack", "hierarchical"):
        for key in ("residual", "norm", "dropout"):
            if getattr(asked, key) != getattr(Architecture, key):
                expected = "used with two layers at least, for it stands between them"
                raise ConfigurationError("model", key, expected=expected, got="one")
    if asked.variational and not asked.dropout:
        raise ConfigurationError("model", "variational", expected="a dropout above 0", got=asked.dropout)
    if asked.shape == "transformer" and asked.hidden % asked.heads:
        raise ConfigurationError("model", "heads", expected=f"a divisor of hidden, {asked.hidden}", got=asked.heads)


def _refuse_what_is_not_used(asked: Architecture) -> None:
    """A key that would change nothing is a misunderstanding: say so before hours of training."""
    uses = SHAPES[asked.shape].uses | _ALWAYS
    for field in fields(Architecture):
        value = getattr(asked, field.name)
        if field.name not in uses and value != field.default:
            takers = ", ".join(name for name, shape in SHAPES.items() if field.name in shape.uses)
            expected = f"{field.default} (shape {asked.shape} does not use it, but {takers})"
            raise ConfigurationError("model", field.name, expected=expected, got=value)
