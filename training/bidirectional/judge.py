"""Labels a file: a row for each of its own, in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.errors import ConfigurationError, InputError
from detector.tables import Column, TableWriter
from training.bidirectional.estimate import stretch
from training.bidirectional.files import History, Stream
from training.bidirectional.label import Found, label, most_nines
from training.bidirectional.run import Run

_BAND = ("expected", "lower", "upper")
_RESULTS = ("score", "label", "channel", *_BAND)


def judge(run: Run, history: History, least: float) -> list[tuple[Stream, Found]]:
    """Score every stream.

    Args:
        run: What reads from both ends.
        history: A file.
        least: Nines from which on a sample is to be labelled.

    Raises:
        ConfigurationError: the run knows too few residuals for so rare a one.
    """
    if least > (most := most_nines(run.usual)):
        hint = "train on more history, or label from fewer nines"
        raise ConfigurationError("label", "--nines", expected=f"{most:.1f} at most, for this run", got=least, hint=hint)
    zone = run.settings.data.time_zone
    return [(one, label(run.model, stretch(one.time_ns, one.values, zone), run.usual)) for one in history.streams]


def write_table(
    path: Path, history: History, judged: Sequence[tuple[Stream, Found]], channels: Sequence[str], least: float
) -> int:
    """Write the file again, and beside each row its score, label and, of the strangest channel, what was expected.

    Returns:
        How many samples are labelled.

    Raises:
        InputError: the file has columns of these names.
    """
    if taken := [name for name in _RESULTS if name in history.columns]:
        raise InputError(history.path, "has columns of the results' names", expected=f"others than {', '.join(taken)}")
    numbers = {name: np.full(history.rows, np.nan) for name in ("score", *_BAND)}
    labels, strangest = [""] * history.rows, [""] * history.rows
    for stream, found in judged:
        seen = np.flatnonzero(~np.isnan(found.score))
        worst = np.nan_to_num(found.nines[seen], nan=-1.0).argmax(axis=1)
        rows = stream.rows[seen]
        numbers["score"][rows] = found.score[seen]
        for name, said in zip(_BAND, (found.estimate.centre, found.estimate.lower, found.estimate.upper), strict=True):
            numbers[name][rows] = said[seen, worst]
        for row, c, score in zip(rows, worst, found.score[seen], strict=True):
            labels[row], strangest[row] = str(int(score >= least)), channels[c]
    results: dict[str, Column] = dict(
        zip(_RESULTS, (numbers["score"], labels, strangest, *(numbers[name] for name in _BAND)), strict=True)
    )
    columns: dict[str, Column] = {**history.columns, **results}
    with TableWriter(path) as table:
        table.write(columns)
    return labels.count("1")
