"""How it learns."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from training.settings.base import Count, Positive, Section, Share


class FitSettings(Section):
    """Truncated back-propagation through time."""

    epochs: Annotated[int, Field(ge=0)] = 30
    """Most passes over the data; 0 leaves the weights as they start, and only calibrates and exports."""
    chunk: Annotated[int, Field(ge=2)] = 64
    """T: samples between two cuts of the gradient; the hidden state is carried across."""
    batch: Count = 32
    """Streams trained side by side."""
    learning_rate: Positive = 3e-3
    """Of AdamW at the beginning; it falls to a twentieth over `epochs`, along a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Of AdamW."""
    clip_norm: Positive = 1.0
    """Longest gradient; longer ones are scaled down to it."""
    patience: Count = 5
    """Epochs without a better validation loss before training stops."""
    validation_share: Share = 0.2
    """The last part of each stream's time, never trained on: it stops the training and calibrates the detector."""
    seed: int = 7
    """The same seed on the same machine gives the same weights."""
    threads: Count = 1
    """Threads of torch; more help with hundreds of hidden units. Another number may give other last digits."""
