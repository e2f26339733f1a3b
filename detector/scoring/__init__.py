"""Scoring without a daemon: history through the same engine, hence to the same numbers.

    score_files(engine_factory(bundle), ["plant/*.csv"], Path("scores.csv"))
    score_arrays(engine_factory(bundle), {"pump-01": (event_ns, values)}, ["flow", "current"])

`tidewarden score` is the first; evaluation and calibration call the second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from detector.bundles import locate
from detector.engine import Detector, Engine
from detector.errors import ConfigurationError
from detector.model.bundle import Bundle, read_bundle
from detector.model.session import Session
from detector.records import Bytes, Float32, Float64, Int64, Reason
from detector.scoring.files import Columns, Summary, Watcher, score_files
from detector.scoring.rows import SHARD, Detail, Part, Rows, Scorer
from detector.settings import DetectorSettings, EngineSettings, FreezeSettings, MatchSettings, RecordSettings

__all__ = [
    "Columns",
    "StreamScores",
    "Summary",
    "Watcher",
    "engine_factory",
    "open_bundle",
    "score_arrays",
    "score_files",
]

_ANY_NUMBER = 2**31


@dataclass(frozen=True, slots=True)
class StreamScores:
    """What was found of one stream's samples, n of them."""

    score: Float32
    """(n,) nines; 0 where the sample was rejected."""
    threshold: Float32
    """(n,) nines, in force for that sample."""
    anomaly: Bytes
    """(n,) 1 from the firing to the closing sample."""
    reasons: dict[int, Reason]
    """Why samples were rejected, by their place."""
    detail: Detail | None


def open_bundle(bundle: str | Path) -> Bundle:
    """Read a bundle, by the name of one in the box or by its path. Raises BundleError."""
    return read_bundle(locate(bundle))


def engine_factory(
    bundle: Bundle,
    settings: DetectorSettings | None = None,
    *,
    name: str = "default",
    detail: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
) -> Callable[[], Engine]:
    """Make engines that run one bundle on every stream they are given.

    Args:
        bundle: What to run.
        settings: How to decide, and in which time zone; None takes the bundle's defaults. Its `match` is ignored, and
            so are topic and partition of its freezes.
        name: The detector's name.
        detail: Whether scores carry forecasts and blame.
        device: Where the model runs.

    Raises:
        ConfigurationError: The bundle cannot follow the settings, or a freeze goes by offset, which files have none of.
    """
    settings = settings or DetectorSettings()
    settings = settings.model_copy(update={"match": MatchSettings(), "freeze": _anywhere(name, settings.freeze)})
    detector = Detector(name, settings, bundle, Session(bundle, device))
    return partial(
        Engine,
        SHARD,
        [detector],
        RecordSettings(),
        EngineSettings(max_streams=_ANY_NUMBER),
        scores_detail=detail,
        report_silence=False,
    )


def _anywhere(detector: str, rules: Sequence[FreezeSettings]) -> list[FreezeSettings]:
    """The freezes as they hold for streams of which no shard is known."""
    for at, rule in enumerate(rules):
        if rule.has_offset:
            raise ConfigurationError(
                f"detectors.{detector}.freeze.{at}",
                "stands by offset, and what is scored here has none",
                expected="times for from and until",
                got=f"offsets, of stream {rule.stream!r}",
                hint="say when instead, or score without this rule",
            )
    return [rule.model_copy(update={"topic": None, "partition": None}) for rule in rules]


def score_arrays(
    new_engine: Callable[[], Engine],
    streams: Mapping[str, tuple[Int64, Float64]],
    channels: Sequence[str],
    *,
    detail: bool = False,
    threads: int = 1,
) -> dict[str, StreamScores]:
    """Score streams in memory, all of them side by side.

    Args:
        new_engine: From `engine_factory`, with the same `detail`.
        streams: Per stream event times (n,) in Unix nanoseconds and values (n, C), NaN where missing.
        channels: Names of the C channels.
        detail: Whether to return forecasts and blame.
        threads: How many engines work side by side; the result is the same for any number.
    """
    parts = [Part(tuple(channels), values) for _, values in streams.values()]
    lengths = [len(values) for _, values in streams.values()]
    rows = Rows(
        parts=parts,
        streams=list(streams),
        stream=np.repeat(np.arange(len(parts)), lengths),
        event_ns=np.concatenate([event_ns for event_ns, _ in streams.values()]),
    )
    scores = Scorer(new_engine, threads=threads, detail=detail).score(rows)
    found, start = {}, 0
    for part, (stream, length) in enumerate(zip(streams, lengths, strict=True)):
        own = slice(start, start + length)
        found[stream] = StreamScores(
            score=scores.score[own],
            threshold=scores.threshold[own],
            anomaly=scores.anomaly[own],
            reasons={row - start: why for row, why in scores.reasons.items() if start <= row < start + length},
            detail=scores.details[part] if detail else None,
        )
        start += length
    return found
