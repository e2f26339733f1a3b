"""Training the forecaster, a file per concept.

    loop         epoch after epoch: a pass, a validation, the best weights kept
    bptt         a pass: back-propagation through time, full or truncated
    loss         what is made smaller
    optimisers   how weights follow gradients
    schedules    how the learning rate moves
    clipping     how long a gradient may be
    regularise   what large weights cost
    curriculum   short stretches before long ones
    state        all that training is between two epochs: to fall back to, and to go on from
    processes    several processes as one
    logs         the same figures for TensorBoard
    range_test   which learning rate to take
    reach        how far back gradients reach
    records      what training tells of itself

`loop` is the page to begin with.
"""

from __future__ import annotations

from training.fit.loop import fit
from training.fit.records import Epoch, Fitted

__all__ = ["Epoch", "Fitted", "fit"]
