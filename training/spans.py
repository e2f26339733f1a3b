"""Stretches of streams as the forecaster sees them: standardised once, cut up, padded side by side.

A stream that lies on disk is cut up first: its stretches are read and standardised when their turn comes, every time,
each with a scale of its own that has settled on some samples before it. So memory holds one batch, however long it is.

Axes: N streams of a batch, T samples, C channels, F inputs, G what is known when the next sample is asked for.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.data.batches import Block, blocks
from training.data.batches import block as side_by_side_raw
from training.data.series import Series
from training.graph.detector import Detector
from training.settings import FitSettings

_SEGMENT_CHUNKS = 64  # a longer stream is cut into segments of so many chunks, trained side by side
_LEAD_CHUNKS = 8  # chunks that the hidden state is given to settle before the validation span counts
_SETTLE = 512  # samples that the scale of a stretch is given, where it begins in the midst of its stream
_SOME_CELLS = 2_000_000  # samples times channels that are read from disk at once, or where all would be too many
_SOME_AT_ONCE = 32


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

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and channels of one stream."""
        samples, channels = self.target.shape
        return samples, channels

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


@dataclass(frozen=True, slots=True)
class Stretch:
    """A span that lies on disk still."""

    series: Series
    prepare: Callable[[Sequence[Series]], Iterator[Span]]
    settle: int
    """From this sample on it is read, so that the scale has settled."""
    start: int
    """The span's first sample."""
    counted: int
    """The first one whose target counts."""
    stop: int

    @property
    def streams(self) -> tuple[str, ...]:
        """Which stream it is of."""
        return (self.series.stream,)

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and channels."""
        return self.stop - self.start, len(self.series.channels)

    @property
    def read_cells(self) -> int:
        """How much is read for it."""
        return (self.stop - self.settle) * len(self.series.channels)

    def pieces(self, length: int) -> Iterator[Stretch]:
        """`length` samples at a time, but not fewer than are read before them."""
        length = max(length, _SETTLE)
        for at in range(self.start, self.stop, length):
            settle = max(0, at - _SETTLE)
            yield replace(self, settle=settle, start=at, counted=at, stop=min(at + length, self.stop))


AnySpan: TypeAlias = Span | Stretch


def loaded(spans: Sequence[AnySpan]) -> list[Span]:
    """Spans of one stream each, in memory; those on disk are read and standardised side by side."""
    there = [span for span in spans if isinstance(span, Stretch)]
    if not there:
        return [span for span in spans if isinstance(span, Span)]
    wholes = there[0].prepare([span.series.between(span.settle, span.stop) for span in there])
    found = iter([_cut_out(span, whole) for span, whole in zip(there, wholes, strict=True)])
    return [next(found) if isinstance(span, Stretch) else span for span in spans]


def _cut_out(span: Stretch, whole: Span) -> Span:
    part = whole.part(slice(span.start - span.settle, span.stop - span.settle))
    is_later = torch.arange(span.start, span.stop) >= span.counted
    return replace(part, counted=part.counted & is_later[:, None])


def some(spans: Sequence[AnySpan]) -> list[Span]:
    """All spans that are in memory; of those on disk as many, evenly chosen, as are no trouble."""
    there = [span for span in spans if isinstance(span, Stretch)]
    few = there[:: max(1, -(-sum(math.prod(span.shape) for span in there) // _SOME_CELLS))]
    read = [span for batch in batches(few, _SOME_AT_ONCE) for span in loaded(batch)]
    return [span for span in spans if isinstance(span, Span)] + read


def standardise(
    detector: Detector, series: Sequence[Series], zone: str, settings: FitSettings, watch: Watch = iter
) -> tuple[list[AnySpan], list[AnySpan]]:
    """Send every stream through the running scale; those on disk later, as their stretches are asked for.

    Returns:
        Spans to train on, and spans to validate on; these begin with a lead that does not count.
    """
    train: list[AnySpan] = []
    validation: list[AnySpan] = []
    for block in watch(list(blocks([one for one in series if not one.is_stored], zone, settings.batch))):
        for one, whole in zip(block.series, _prepare(detector, block), strict=True):
            train += _segments(whole, one.cut, settings.chunk)
            if one.cut < len(one):
                validation.append(_later(whole, one, settings.chunk))

    def prepare(parts: Sequence[Series]) -> Iterator[Span]:
        return _prepare(detector, side_by_side_raw(list(parts), zone))

    for one in series:
        if one.is_stored:
            longest, lead = _longest(one, settings), _LEAD_CHUNKS * settings.chunk
            train += _stretches(one, prepare, slice(0, one.cut), longest, lead=0)
            validation += _stretches(one, prepare, slice(one.cut, len(one)), longest, lead)
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


def _longest(one: Series, settings: FitSettings) -> int:
    """Samples of a stretch on disk: a segment, or fewer where a batch of them would be too much at once."""
    chunks = _SOME_CELLS // (settings.batch * len(one.channels) * settings.chunk)
    return settings.chunk * min(_SEGMENT_CHUNKS, max(_LEAD_CHUNKS, chunks))


def _stretches(
    one: Series, prepare: Callable[[Sequence[Series]], Iterator[Span]], when: slice, longest: int, lead: int
) -> list[Stretch]:
    """Segments of a stream on disk, each after a lead of samples that do not count."""
    found = []
    for at in range(when.start, when.stop, longest):
        start = max(0, at - lead)
        found.append(Stretch(one, prepare, max(0, start - _SETTLE), start, at, min(at + longest, when.stop)))
    return found


def _later(whole: Span, one: Series, chunk: int) -> Span:
    start = max(0, one.cut - _LEAD_CHUNKS * chunk)
    later = whole.part(slice(start, len(one)))
    is_later = torch.arange(start, len(one)) >= one.cut
    return replace(later, counted=later.counted & is_later[:, None])


def batches(
    spans: Sequence[AnySpan], most: int, rng: np.random.Generator | None = None, most_padding: float = 0.5
) -> list[list[AnySpan]]:
    """Spans with as many channels and of like length, `most` at a time; in random order where a generator is given.

    Args:
        spans: Of one stream each.
        most: Spans of a batch.
        rng: For the order.
        most_padding: Share of a batch that may be padding: lengths are grouped by powers of 1 / (1 - most_padding).
    """
    groups: dict[tuple[int, int], list[AnySpan]] = defaultdict(list)
    for at in range(len(spans)) if rng is None else rng.permutation(len(spans)):
        samples, channels = spans[at].shape
        groups[channels, int(math.log2(samples) / -math.log2(1 - most_padding))].append(spans[at])
    batched = [group[at : at + most] for group in groups.values() for at in range(0, len(group), most)]
    return batched if rng is None else [batched[at] for at in rng.permutation(len(batched))]


def side_by_side(spans: Sequence[AnySpan]) -> Span:
    """Pad spans to the longest of them."""
    there = loaded(spans)
    padded = (pad_sequence([getattr(span, name) for span in there], batch_first=True) for name in _TENSORS)
    return Span(*padded, streams=tuple(stream for span in there for stream in span.streams))


def all_side_by_side(plan: Sequence[Sequence[AnySpan]]) -> Iterator[Span]:
    """Each batch of a plan, padded; several are read from disk at once where that is no trouble, which is quicker."""
    for group in _read_together(plan):
        spans = deque(loaded([span for batch in group for span in batch]))  # forgotten as they are padded
        yield from (side_by_side([spans.popleft() for _ in batch]) for batch in group)


def _read_together(plan: Sequence[Sequence[AnySpan]]) -> Iterator[list[Sequence[AnySpan]]]:
    group: list[Sequence[AnySpan]] = []
    held, alike = 0, None
    for batch in plan:
        cells = sum(span.read_cells for span in batch if isinstance(span, Stretch))
        channels = batch[0].shape[1]
        if group and (held + cells > _SOME_CELLS or channels != alike):
            yield group
            group, held = [], 0
        group, held, alike = [*group, batch], held + cells, channels
    if group:
        yield group
