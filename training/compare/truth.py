"""Streams of which it is known what is wrong: what detection is measured on, the same for every candidate.

    labels      the later span of the user's own streams, with a column that says what was wrong
    plant       other pumps of the demo's plant, with the faults that it knows of
    injected    the later span of the user's own streams, with faults put in on purpose

Only what comes after the cut is measured, or all but the warm-up of pumps that no candidate has seen. What is injected
shows whether a candidate notices what its forecast rules out; it is no substitute for labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from detector.demo.plant import CHANNELS, Plant
from detector.errors import InputError
from detector.records import Bytes, Float64, Int64
from detector.scoring.times import time_column
from detector.tables import numeric_columns, read_columns
from training.compare.injected import inject
from training.data.files import read_files, resolve
from training.data.load import History
from training.data.series import Series, cut, period_s
from training.evaluate.suites.case import Case
from training.settings import DataSettings, TrainSettings
from training.settings.data import PlantData

Origin: TypeAlias = Literal["labels", "plant", "injected"]

_MOST_CELLS = 400_000  # values that a candidate scores: more would change little and take minutes
_HISTORY = 4_000  # samples before the cut that a stream is given to learn from
_OTHER_PUMPS = 1_000  # added to the plant's seed
_SUITE = "compare"


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known."""

    origin: Origin
    cases: list[Case]

    @property
    def events(self) -> int:
        """How many there are to be found."""
        return sum(len(case.events) for case in self.cases)


def without_labels(settings: TrainSettings, column: str | None) -> TrainSettings:
    """The same configuration with the column of labels left out of what is learnt.

    Raises:
        InputError: there is no such column, or it is a channel.
    """
    if column is None:
        return settings
    data = settings.data
    if not data.paths:
        raise InputError("--labels", "needs files", expected="data.paths", got="none")
    first = resolve(data.paths)[0]
    names = read_columns(first)
    if column not in names:
        raise InputError(first, f"column {column!r} is missing", expected=f"one of {', '.join(names)}")
    if column in (data.channels or ()):
        raise InputError("--labels", f"column {column!r} is a channel", expected="a column that nothing is learnt from")
    others = {column, data.stream, time_column(names, data.time)}
    channels = data.channels or [name for name in numeric_columns(first) if name not in others]
    return settings.model_copy(update={"data": data.model_copy(update={"channels": channels})})


def find_truth(settings: TrainSettings, history: History, labels: str | None, seed: int) -> Truth:
    """What is known of these streams.

    Args:
        settings: Where history comes from, without the labels.
        history: What candidates learn from.
        labels: The column that says what was wrong; None where there is none.
        seed: Of the faults that are put in.
    """
    if labels is not None:
        return Truth("labels", _fewer(_labelled(settings, labels)))
    if settings.data.plant is not None and not settings.data.paths:
        truth = Truth("plant", _fewer(_pumps(settings.data.plant)))
        if truth.events:
            return truth
    later = [one for one in history.series if one.cut < len(one)]
    return Truth("injected", _fewer([_case(*inject(one, [seed, at]), one.cut) for at, one in enumerate(later)]))


def _labelled(settings: TrainSettings, column: str) -> list[Case]:
    """The user's streams as cases; the column is read like a channel, so that its rows are the samples' own."""
    channels = [*(settings.data.channels or ()), column]
    data: DataSettings = settings.data.model_copy(update={"channels": channels})
    cases = []
    for one in cut(read_files(data, Counter()), settings.fit.validation_share):
        told = np.nan_to_num(one.values[:, -1])
        if wrong := set(np.unique(told)) - {0.0, 1.0}:
            raise InputError(f"stream {one.stream}", f"column {column!r}", expected="0 or 1", got=min(wrong))
        bare = replace(one, channels=one.channels[:-1], values=one.values[:, :-1])
        cases.append(_case(bare, told.astype(np.uint8), one.cut))
    return cases


def _pumps(data: PlantData) -> list[Case]:
    """Pumps that nothing was learnt from, with their faults."""
    plant = Plant(streams=data.streams, seed=data.seed + _OTHER_PUMPS)
    faults, chunks = plant.faults(data.hours), list(plant.samples(data.hours))
    stream, event_ns, values = (np.concatenate(part) for part in zip(*chunks, strict=True))
    cases = []
    for number, name in enumerate(plant.names):
        rows = stream == number
        time_ns: Int64 = event_ns[rows]
        labels = np.zeros(len(time_ns), np.uint8)
        for fault in (fault for fault in faults if fault.stream == number):
            labels[(time_ns >= fault.start_ns) & (time_ns <= fault.end_ns)] = 1
        cases.append(_case(Series(name, CHANNELS, time_ns, values[rows], 0), labels, 0))
    return cases


def _case(one: Series, labels: Bytes, begin: int) -> Case:
    """A stream from a while before `begin`, the first row that is measured."""
    first = max(0, begin - _HISTORY)
    time_ns, values, labels = one.time_ns[first:], one.values[first:], labels[first:]
    return Case(
        suite=_SUITE,
        family=_SUITE,
        name=one.stream,
        split="dev",
        time_ns=time_ns,
        values=values,
        labels=labels,
        train=0,
        channels=one.channels,
        period_s=period_s([one]) or None,
        begin=begin - first,
        target=_most_changed(values, labels),
    )


def _most_changed(values: Float64, labels: Bytes) -> int:
    """The channel that differs most while something is wrong, in units of its usual spread: the one to draw."""
    told = labels != 0
    if not told.any() or told.all():
        return 0
    usual = np.nan_to_num(values[~told])
    centre, spread = np.median(usual, axis=0), np.std(usual, axis=0) + 1e-12
    return int(np.argmax(np.mean(np.abs(np.nan_to_num(values[told]) - centre) / spread, axis=0)))


def _fewer(cases: Sequence[Case]) -> list[Case]:
    """As many as are worth their time: those with events first."""
    ordered = [case for case in cases if case.events] + [case for case in cases if not case.events]
    cells = np.cumsum([case.values.size for case in ordered])
    return ordered[: max(1, int(np.searchsorted(cells, _MOST_CELLS, side="right")))]
