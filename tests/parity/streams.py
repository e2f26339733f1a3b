"""Streams walked through a session, for tests of what the graph does with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from detector.model.session import Session, StepOutput
from detector.records import Float32, Float64


def walk(
    session: Session,
    values: Float64,
    observed: Float32 | None = None,
    *,
    row: Float32 | None = None,
    each: Callable[[int, StepOutput], None] | None = None,
) -> StepOutput:
    """Walk one stream (T, C), a sample a minute, and give the last step's output; `each` sees all of them."""
    state = (session.bundle.initial_row(values.shape[1]) if row is None else row)[None]
    output = None
    for t, sample in enumerate(values):
        seen = np.ones((1, values.shape[1]), np.float32) if observed is None else observed[t : t + 1]
        elapsed = np.full((1, 1), 60.0 if t or row is not None else 0.0, np.float32)
        output = session.step(sample[None], seen, elapsed, np.zeros((1, 4), np.float32), state)
        state = output.next_state
        if each is not None:
            each(t, output)
    assert output is not None
    return output


def side_by_side(
    session: Session,
    values: Float64,
    observed: Float32 | None = None,
    *,
    rows: Float32 | None = None,
    **further: Float32,
) -> list[StepOutput]:
    """Walk B streams (T, B, C), a sample a minute; `further` holds inputs (T, B, width)."""
    T, B, C = values.shape
    state = np.tile(session.bundle.initial_row(C), (B, 1)) if rows is None else rows
    seen = np.ones(values.shape, np.float32) if observed is None else observed
    clock, outputs = np.zeros((B, 4), np.float32), []
    for t in range(T):
        elapsed = np.full((B, 1), 60 if t or rows is not None else 0, np.float32)
        said = {name: part[t] for name, part in further.items()}
        outputs.append(session.step(values[t], seen[t], elapsed, clock, state, said))
        state = outputs[-1].next_state
    return outputs


def fields(session: Session, output: StepOutput) -> dict[str, Any]:
    """The first row after a step, named."""
    names = [f"c{i}" for i in range(output.blame.shape[1])]
    return session.bundle.explain(output.next_state[0], names)
