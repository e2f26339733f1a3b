"""What learns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from detector.errors import ConfigurationError
from training.settings.base import Section

_AROUND = {"mode", "direction", "profile", "start", "warm_up", "band_level"}  # keys that are not the network's


class ModelSettings(Section):
    """The forecaster and what the detector around it needs to know."""

    mode: Literal["any", "fixed"] = "any"
    """any: weights shared by the channels, serves any number of them; fixed: a joint forecaster of named channels."""
    direction: Literal["forward", "both"] = "forward"
    """forward: from the past alone, as a stream needs it; both: history is read from both ends, to fill its gaps and to
    label it, offline (docs/impute.md). For `both` there is no bundle, and mode is fixed."""
    profile: Literal["light", "full"] = "full"
    """How much evidence is kept: light, 24 numbers of each channel; full, 48 more of each stream."""
    shape: str = "stack"
    """How the network is put together: `stack`, cells on top of each other; `hierarchical`, two such stacks, the upper
    one slower; `conv`, a convolution in front of them; `attention`, attention to their past behind; `hybrid`, both;
    `transformer`; and two baselines without recurrence, `window` and `memoryless`."""
    cell: str = "gru"
    """The recurrent cell: `gru`, `lstm`, `lstm-peephole`, `slstm`, `rnn`, `rnn-relu` or `rnn-leaky`."""
    layers: Annotated[int, Field(ge=1, le=8)] = 1
    """Cells on top of each other, or whatever the shape is made of."""
    hidden: Annotated[int, Field(ge=1, le=1024)] = 32
    """Hidden units of each."""
    every: Annotated[int, Field(ge=2, le=1024)] = 8
    """Samples from one tick of the upper level to the next. For `hierarchical`."""
    reach: Annotated[int, Field(ge=1, le=256)] = 8
    """Samples that a window or a convolution sees. For `window`, `conv`, `hybrid`."""
    memory: Annotated[int, Field(ge=1, le=256)] = 16
    """Samples that attention looks back on. For `attention`, `hybrid`, `transformer`."""
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    """Parts of attention, a divisor of `hidden`. For `transformer`."""
    residual: bool = False
    """Add to each layer's output its input. For two layers or more, as the next four."""
    norm: Literal["none", "layer", "batch"] = "none"
    """Normalise what goes from layer to layer: each sample by itself, or by the batch (running figures when in use)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of what goes from layer to layer that is left out in training."""
    variational: bool = False
    """Leave the same out for a whole chunk."""
    zoneout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How likely a unit of a cell stays as it was, in training; in use all do by as much. Slower to train."""
    decay: bool = False
    """Let cells forget while nothing comes, each unit at a pace of its own (GRU-D); for irregular streams. Slower to
    train."""
    initial: tuple[str, ...] = ()
    """How weights start: any of `xavier`, `he`, `orthogonal`, `identity`, `forget`, `chrono`; none is torch's way."""
    line: bool = True
    """Let a network of mode `any` also hear the last 32 levels and 8 changes of its channel as they were; false leaves
    it to its own memory, as the baselines always are."""
    start: str | None = None
    """Where the forecaster's weights start: `default` for the universal bundle's, or the weights.pt of another run;
    null starts from chance. What the network is made of must be that of the start."""
    warm_up: Annotated[int, Field(ge=8)] = 128
    """Samples of a new stream during which the score is 0."""
    band_level: Annotated[float, Field(gt=0.5, lt=1)] = 0.98
    """The probability that `lower`..`upper` is to hold."""

    @model_validator(mode="after")
    def _goes_together(self) -> ModelSettings:
        from training.shapes import Architecture, check  # torch takes seconds: only where there is something to check

        if self.mode == "fixed" and not self.line:
            raise ValueError("expected line: false with mode any, got it with fixed, which has no line; leave it out")
        if self.direction == "both" and self.mode == "any":
            raise ValueError("expected mode: fixed with direction: both, which knows its channels by name, got any")
        try:
            check(Architecture(**self.network()))
        except ConfigurationError as error:
            raise ValueError(f"{error.what} {error.expected}, got {error.got}") from None
        return self

    def network(self) -> dict[str, Any]:
        """The keys of the network, for `Architecture`."""
        return self.model_dump(exclude=_AROUND)
