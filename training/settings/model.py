"""What learns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from training.settings.base import Section


class ModelSettings(Section):
    """The forecaster and what the detector around it needs to know."""

    mode: Literal["any", "fixed"] = "any"
    """any: weights shared by the channels, serves any number of them; fixed: a joint forecaster of named channels."""
    profile: Literal["light", "full"] = "full"
    """How much evidence is kept: light, 24 numbers of each channel; full, 48 more of each stream."""
    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent cell."""
    layers: Annotated[int, Field(ge=1, le=8)] = 1
    """Cells on top of each other."""
    hidden: Annotated[int, Field(ge=1, le=1024)] = 32
    """Hidden units of each."""
    start: str | None = None
    """Where the forecaster's weights start: `default` for the universal bundle's, or the weights.pt of another run;
    null starts from chance. Mode, cell, layers and hidden must be those of the start."""
    warm_up: Annotated[int, Field(ge=8)] = 128
    """Samples of a new stream during which the score is 0."""
    band_level: Annotated[float, Field(gt=0.5, lt=1)] = 0.98
    """The probability that `lower`..`upper` is to hold."""
