"""Short stretches before long ones (Bengio et al. 2009).

What lies a few samples back is learnt first, from many short stretches that each begin with an empty memory; from epoch
to epoch they become longer, until after `fit.curriculum` epochs they are whole. No sample is left out at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.settings import FitSettings
from training.spans import AnySpan


def stretches(spans: Sequence[AnySpan], epoch: int, settings: FitSettings) -> list[AnySpan]:
    """The spans as this epoch (from 1) is to see them: cut to its length, from a chunk upward by equal factors."""
    longest = max(span.shape[0] for span in spans)
    if epoch > settings.curriculum or longest <= settings.chunk:
        return list(spans)
    done = (epoch - 1) / settings.curriculum
    length = round(settings.chunk * (longest / settings.chunk) ** done)
    return [piece for span in spans for piece in span.pieces(length)]
