"""Stretches of streams as the forecaster sees them: standardised once, cut up, padded side by side.

Axes: N streams of a batch, T samples, C channels, F inputs, G what is known when the next sample is asked for.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.data.batches import Block, blocks
from training.data.series import Series
from training.graph.detector import Detector
from training.settings import FitSettings

_SEGMENT_CHUNKS = 64  # a longer stream is cut into segments of so many chunks, trained side by side
_LEAD_CHUNKS = 8  # chunks that the hidden state is given to settle before the validation span counts


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one stream, or several padded side by side (then N comes first)."""

    inputs: Tensor
    """(T, C, F)"""
    query: Tensor
    """(T, C, G)"""
    target: Tensor
    """(T, C) the change to be forecast, in units of the running change scale."""
    observed: Tensor
    """(T, C) False where missing or padding."""
    counted: Tensor
    """(T, C) True where the target counts in the loss."""

    streams: tuple[str, ...] = ()
    """Which streams these are, for messages."""

    def part(self, when: slice) -> Span:
        """Some samples of one stream."""
        return self._each(lambda tensor: tensor[when])

    def pieces(self, length: int) -> Iterator[Span]:
        """One stream, `length` samples at a time."""
        for at in range(0, len(self.target), length):
            yield self.part(slice(at, at + length))

    def samples(self, when: slice) -> Span:
        """Some samples of streams side by side."""
        return self._each(lambda tensor: tensor[:, when])

    def chunks(self, length: int) -> Iterator[Span]:
        """Streams side by side, `length` samples at a time."""
        for at in range(0, self.target.shape[1], length):
            yield self.samples(slice(at, at + length))

    def rows(self, which: Sequence[int]) -> Span:
        """Some of the streams side by side."""
        return replace(self._each(lambda tensor: tensor[which]), streams=tuple(self.streams[row] for row in which))

    def to(self, device: str) -> Span:
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Span:
        return replace(self, **{name: change(getattr(self, name)) for name in _TENSORS})


_TENSORS = tuple(field.name for field in fields(Span) if field.name != "streams")


def standardise(
    detector: Detector, series: Sequence[Series], zone: str, settings: FitSettings, watch: Watch = iter
) -> tuple[list[Span], list[Span]]:
    """Send every stream through the running scale.

    Returns:
        Spans to train on, and spans to validate on; these begin with a lead that does not count.
    """
    train: list[Span] = []
    validation: list[Span] = []
    for block in watch(list(blocks(series, zone, settings.batch))):
        for one, whole in zip(block.series, _prepare(detector, block), strict=True):
            train += _segments(whole, one.cut, settings.chunk)
            if one.cut < len(one):
                validation.append(_later(whole, one, settings.chunk))
    return train, validation


Watch = Callable[[Sequence[Block]], Iterable[Block]]
"""Shows progress over a list."""


def _prepare(detector: Detector, block: Block) -> Iterator[Span]:
    arrays = (block.values, block.observed, block.elapsed, block.clock)
    prepared = detector.prepare(*map(torch.from_numpy, arrays))
    for row, one in enumerate(block.series):
        yield Span(*(tensor[row, : len(one)] for tensor in prepared), streams=(one.stream,))


def _segments(whole: Span, cut: int, chunk: int) -> list[Span]:
    longest = _SEGMENT_CHUNKS * chunk
    return [whole.part(slice(at, min(at + longest, cut))) for at in range(0, cut, longest)]


def _later(whole: Span, one: Series, chunk: int) -> Span:
    start = max(0, one.cut - _LEAD_CHUNKS * chunk)
    later = whole.part(slice(start, len(one)))
    is_later = torch.arange(start, len(one)) >= one.cut
    return replace(later, counted=later.counted & is_later[:, None])


def batches(
    spans: Sequence[Span], most: int, rng: np.random.Generator | None = None, most_padding: float = 0.5
) -> list[list[Span]]:
    """Spans with as many channels and of like length, `most` at a time; in random order where a generator is given.

    Args:
        spans: Of one stream each.
        most: Spans of a batch.
        rng: For the order.
        most_padding: Share of a batch that may be padding: lengths are grouped by powers of 1 / (1 - most_padding).
    """
    groups: dict[tuple[int, int], list[Span]] = defaultdict(list)
    for at in range(len(spans)) if rng is None else rng.permutation(len(spans)):
        samples, channels = spans[at].target.shape
        groups[channels, int(math.log2(samples) / -math.log2(1 - most_padding))].append(spans[at])
    batched = [group[at : at + most] for group in groups.values() for at in range(0, len(group), most)]
    return batched if rng is None else [batched[at] for at in rng.permutation(len(batched))]


def side_by_side(spans: Sequence[Span]) -> Span:
    """Pad spans to the longest of them."""
    padded = (pad_sequence([getattr(span, name) for span in spans], batch_first=True) for name in _TENSORS)
    return Span(*padded, streams=tuple(stream for span in spans for stream in span.streams))
