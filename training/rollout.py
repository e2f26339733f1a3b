"""The whole detector over whole streams, through `step`: what calibration measures and the report draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from detector.records import Float64
from training.data import batches
from training.data.batches import Block
from training.data.series import Series
from training.graph.detector import Detector

_BEFORE, _AFTER = 2_500, 2_500  # samples around the cut: more would not change what is measured
_MOST_STREAMS = 512  # streams that are looked at, evenly chosen
_SIDE_BY_SIDE = 256

Watch: TypeAlias = Callable[[Sequence[int]], Iterator[int]]
"""Shows progress over a sequence."""

Step: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Sequence[Tensor]]
"""Carries a sample of each of B streams, as `Detector.step` does; whoever has the graph can be quicker."""


@dataclass(frozen=True, slots=True)
class Run:
    """What the detector said of one stream's later span, warm-up left out; n samples, C channels."""

    series: Series
    """The later span alone."""
    score: Float64
    """(n,) nines."""
    expected: Float64
    """(n, C) raw units, as the two below."""
    lower: Float64
    upper: Float64

    def part(self, when: slice) -> Run:
        """Some samples of it."""
        series = replace(self.series, time_ns=self.series.time_ns[when], values=self.series.values[when])
        return Run(series, self.score[when], self.expected[when], self.lower[when], self.upper[when])

    @property
    def inside(self) -> Float64:
        """(n, C) 1 inside the band, 0 outside, NaN where missing."""
        values = self.series.values
        return np.where(np.isnan(values), np.nan, (values >= self.lower) & (values <= self.upper))


def choose(series: Sequence[Series], zone: str) -> list[Block]:
    """Streams to run, a stretch around the cut of each, those of like length side by side.

    Streams with fewer channels than their neighbours are given some that are never observed, which changes nothing.
    """
    later = [_stretch(one) for one in series if one.cut < len(one)]
    later = sorted(later[:: -(-len(later) // _MOST_STREAMS)], key=len)
    return [batches.block(later[at : at + _SIDE_BY_SIDE], zone) for at in range(0, len(later), _SIDE_BY_SIDE)]


def _stretch(one: Series) -> Series:
    start, stop = max(0, one.cut - _BEFORE), min(len(one), one.cut + _AFTER)
    return replace(one, time_ns=one.time_ns[start:stop], values=one.values[start:stop], cut=one.cut - start)


@torch.no_grad()
def roll(
    detector: Detector, chosen: Sequence[Block], watch: Watch, step: Step | None = None
) -> Iterator[tuple[list[Run], Tensor]]:
    """Run the detector over blocks of streams.

    Args:
        detector: As it is to be measured.
        chosen: What `choose` gave.
        watch: Shows progress over the samples of all blocks.
        step: What carries a sample, if not the detector itself.

    Yields:
        Per block its runs, and the rows at the end of its streams (N, S).
    """
    ticks = iter(watch(range(sum(one.values.shape[1] for one in chosen))))
    for block in chosen:
        outputs, rows = _steps(detector, block, ticks, step or detector.step)
        yield [run for row in range(len(block.series)) if (run := _run(detector, block, row, outputs))], rows
    next(ticks, None)  # lets the bar see the last one


def _steps(detector: Detector, block: Block, ticks: Iterator[int], step: Step) -> tuple[dict[str, Tensor], Tensor]:
    values, observed, elapsed, clock = map(torch.from_numpy, (block.values, block.observed, block.elapsed, block.clock))
    rows = detector.initial_row(values.shape[2]).repeat(len(values), 1)
    kept: list[Tensor] = []
    for t, _ in zip(range(values.shape[1]), ticks, strict=False):
        *said, next_rows = step(values[:, t], observed[:, t], elapsed[:, t, None], clock[:, t], rows)
        rows = torch.where(observed[:, t].any(dim=1, keepdim=True), next_rows, rows)  # padding is no sample
        if not kept:  # a place for each, at once: thousands of small tensors between large rows would split up the heap
            kept = [one.new_empty((len(one), values.shape[1], *one.shape[1:])) for one in said]
        for place, one in zip(kept, said, strict=True):
            place[:, t] = one
    return dict(zip(("score", "blame", "expected", "lower", "upper"), kept, strict=True)), rows


def _run(detector: Detector, block: Block, row: int, outputs: dict[str, Tensor]) -> Run | None:
    one = block.series[row]
    later = slice(max(one.cut, detector.shape.warm_up), len(one))
    if later.start >= later.stop:
        return None
    series = replace(one, time_ns=one.time_ns[later], values=one.values[later], cut=0)
    score = outputs["score"][row, later, 0].double().numpy()
    expected, lower, upper = (
        outputs[name][row, later, : len(one.channels)].numpy() for name in ("expected", "lower", "upper")
    )
    return Run(series, score, expected, lower, upper)
