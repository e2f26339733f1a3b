"""All the history that a configuration asks for, cut into training and validation span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from detector.errors import InputError
from detector.records import Float64, Int64
from training.data.files import gather_files
from training.data.gather import Gathered, Room
from training.data.kafka import read_kafka
from training.data.prometheus import read_prometheus
from training.data.series import Series, Watch, accept, cut, period_s
from training.settings import DataSettings, TrainSettings
from training.synthetic import streams as synthetic

_NAMED = 3  # paths that a message names
_SHORTEST = 32  # samples: below this neither the scale nor the hidden state has anything to say


@dataclass(frozen=True, slots=True)
class History:
    """What training learns from."""

    series: list[Series]
    rejects: dict[str, int]
    """What the daemon would have refused, by reason."""
    period_s: float | None
    """Nominal; None where the streams have many and the detector is for any."""
    channels: tuple[str, ...] | None = None
    """The channels that all streams share; None where they differ."""

    @property
    def samples(self) -> int:
        """Of all streams."""
        return sum(map(len, self.series))


def load_history(settings: TrainSettings, watch: Watch = iter) -> History:
    """Read files, ask Prometheus and Kafka, and draw streams.

    Args:
        settings: What is asked for.
        watch: Shows progress over files, answers and partitions.

    Raises:
        ConfigurationError: a broker or Prometheus does not trust us.
        SourceError: a broker does not answer.
        InputError: a file or an answer cannot be used, or nothing is left to train on.
    """
    rejects: Counter[str] = Counter()
    share = settings.fit.validation_share
    data = settings.data
    room = Room(settings.output, data.memory_mb << 20)
    series = [one for source in _asked(data, Gathered(rejects, room), rejects, watch) for one in cut(source, share)]
    if data.plant is not None:
        plant = synthetic.pumps(data.plant.streams, data.plant.hours, data.plant.seed)
        series += cut(_accept_all(plant), share)
    if data.synthetic is not None:
        drawn = synthetic.streams(
            data.synthetic.streams, data.synthetic.samples, data.synthetic.channels, data.synthetic.seed
        )
        for one in _accept_all(drawn):  # each has a time of its own, hence its own cut
            series += cut([one], share)
    long_enough = [one for one in series if len(one) >= _SHORTEST]
    rejects["too_short"] += len(series) - len(long_enough)
    told = {reason: n for reason, n in rejects.items() if n}
    if not any(one.cut >= _SHORTEST for one in long_enough) or not any(one.cut < len(one) for one in long_enough):
        raise _too_little(series, settings, told)
    return _checked(long_enough, settings, told)


def _asked(data: DataSettings, gathered: Gathered, rejects: Counter[str], watch: Watch) -> Iterator[list[Series]]:
    """What each source has; they may speak of different years, hence each with a cut of its own."""
    now = datetime.now(UTC)
    gather_files(data, gathered, watch)
    yield gathered.series()
    if data.prometheus is not None:
        read_prometheus(data.prometheus, gathered, now, watch)
        yield gathered.series()
    if data.kafka is not None:
        read_kafka(data.kafka, data.channels, gathered, rejects, now, watch)
        yield gathered.series()


def _accept_all(drawn: Iterable[tuple[str, tuple[str, ...], Int64, Float64]]) -> list[Series]:
    accepted = (accept(*one, Counter()) for one in drawn)
    return [one for one in accepted if one is not None]


def _checked(series: list[Series], settings: TrainSettings, rejects: dict[str, int]) -> History:
    channels = {one.channels for one in series}
    if settings.model.mode == "fixed" and len(channels) > 1:
        raise InputError(
            "data", "streams differ in channels", expected="one set of channels, or model.mode: any", got=channels
        )
    if settings.model.mode == "fixed":
        _check_seen(series)
    return History(
        series, rejects, _nominal_period_s(series, settings.data), next(iter(channels)) if len(channels) == 1 else None
    )


def _check_seen(series: list[Series]) -> None:
    """A channel of a fixed bundle has to be there somewhere."""
    seen = np.any([~np.isnan(part.values).all(axis=0) for one in series for part in one.parts()], axis=0)
    if not seen.all():
        never = ", ".join(name for name, is_seen in zip(series[0].channels, seen, strict=True) if not is_seen)
        expected, hint = "a value in some stream", "leave it out of data.channels"
        raise InputError("data", f"channel {never}", expected=expected, got="none", hint=hint)


def _too_little(series: list[Series], settings: TrainSettings, rejects: dict[str, int]) -> InputError:
    longest = max(map(len, series), default=0)
    left_out = ", ".join(f"{reason} {count:,}" for reason, count in rejects.items())
    asked = [f"data.{name}" for name in ("prometheus", "kafka") if getattr(settings.data, name) is not None]
    return InputError(
        ", ".join([*settings.data.paths[:_NAMED], *asked]) or "data",
        "too little to train on",
        expected=f"a stream with {_SHORTEST} samples or more before the cut, and one with some after it",
        got=f"{len(series)} streams, the longest of {longest} samples; left out: {left_out or 'nothing'}",
        hint="more history; is data.time the right column, and data.stream?" if settings.data.paths else "more history",
    )


def _nominal_period_s(series: list[Series], data: DataSettings) -> float | None:
    if data.period_s is not None:
        return data.period_s
    return None if data.synthetic is not None else period_s(series)
