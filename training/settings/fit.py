"""How it learns."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from training.settings.base import Count, Positive, Section, Share

Price: TypeAlias = Annotated[float, Field(ge=0)]


class FitSettings(Section):
    """Back-propagation through time."""

    epochs: Annotated[int, Field(ge=0)] = 30
    """Most passes over the data; 0 leaves the weights as they start, and only calibrates and exports."""
    patience: Count = 5
    """Epochs without a better validation loss before training stops; the best weights are put back."""
    validation_share: Share = 0.2
    """The last part of each stream's time, never trained on: it stops the training and calibrates the detector."""

    bptt: Literal["truncated", "full"] = "truncated"
    """truncated: a gradient goes back `back` samples; full: to the beginning of its segment of 64 chunks."""
    chunk: Annotated[int, Field(ge=2)] = 64
    """k1: samples from one step of the optimiser to the next; the hidden state is carried across."""
    back: Annotated[int, Field(ge=2)] | None = None
    """k2: samples that a gradient goes back, a multiple of `chunk`; null is `chunk`. Time grows with it."""
    recompute: Count | None = None
    """Gradient checkpointing: keep only every so manieth hidden state and compute what lies between again, which takes
    less memory and a third more time; null keeps all."""
    batch: Count = 32
    """Streams trained side by side."""
    padding: Share = 0.5
    """Share of a batch that may be padding: with 0.1, only streams of nearly equal length lie side by side."""
    curriculum: Annotated[int, Field(ge=0)] = 0
    """Epochs during which stretches grow from a chunk to whole segments; 0 begins with whole ones."""

    optimiser: Literal["sgd", "rmsprop", "adam", "adamw"] = "adamw"
    """How weights follow gradients."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of sgd and rmsprop."""
    weight_decay: Price | None = None
    """Of adamw, apart from the gradient; null is 1e-4. The other optimisers have `l2`."""
    l1: Price = 0.0
    """Price of the sizes of weights, in the loss."""
    l2: Price = 0.0
    """Price of the squares of weights, in the loss."""

    learning_rate: Positive = 3e-3
    """The highest; `train --find-learning-rate` proposes one."""
    schedule: Literal["constant", "step", "exponential", "cosine", "cyclical", "one_cycle", "plateau"] = "cosine"
    """How the rate moves over the epochs."""
    warm_up: Price = 0.0
    """Epochs during which the rate rises from nothing, whatever the schedule."""
    lowest: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the rate that cosine ends with, cyclical and one_cycle begin with, and plateau does not go below."""
    decay: Share = 0.5
    """What step, exponential and plateau multiply the rate by."""
    cycle: Count = 5
    """Epochs of a triangle of cyclical, between two falls of step and exponential, and of plateau's patience."""

    clip: Literal["norm", "value", "auto", "none"] = "norm"
    """norm: longer gradients are scaled down to `clip_norm`; value: each number is kept within `clip_value`; auto: by
    norm, at `clip_usual` times the running norm."""
    clip_norm: Positive = 1.0
    """Longest gradient, for `clip: norm`."""
    clip_value: Positive = 0.1
    """Largest number of a gradient, for `clip: value`."""
    clip_usual: Annotated[float, Field(ge=1)] = 2.0
    """Times the running norm that a gradient may be long, for `clip: auto`."""

    seed: int = 7
    """The same seed on the same machine gives the same weights."""
    threads: Count = 1
    """Threads of torch; more help with hundreds of hidden units. Another number may give other last digits."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where weights are trained; the rest of training stays on the CPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: products in half precision, on a GPU only; weights stay float32."""

    @model_validator(mode="after")
    def _fits_together(self) -> FitSettings:
        if self.back is not None and self.bptt == "full":
            raise ValueError(f"expected back or bptt: full, got both (back: {self.back}); leave one out")
        if self.back is not None and self.back % self.chunk:
            raise ValueError(f"expected back to be a multiple of chunk ({self.chunk}), got {self.back}")
        if self.weight_decay is not None and self.optimiser != "adamw":
            raise ValueError(f"expected weight_decay with adamw alone, got it with {self.optimiser}; use l2 instead")
        if self.momentum and self.optimiser in ("adam", "adamw"):
            raise ValueError(f"expected momentum with sgd or rmsprop, got it with {self.optimiser}, which has its own")
        if self.precision == "bfloat16" and self.device == "cpu":
            raise ValueError("expected precision: bfloat16 with device: cuda, got it with cpu; leave precision out")
        return self
