"""What detection is measured on: labels where there are any, the plant's faults, or faults put in on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from detector.errors import InputError
from training.compare.injected import inject
from training.compare.truth import find_truth, without_labels
from training.data.load import load_history
from training.data.series import Series
from training.settings import TrainSettings


def series(samples: int = 1_000, channels: int = 2) -> Series:
    """Sines that nobody doubts, the last fifth of them later."""
    at = np.arange(samples)
    values = np.stack([np.sin(at / 9 + c) for c in range(channels)], axis=1)
    values[5] = np.nan
    return Series("s", tuple(f"c{c}" for c in range(channels)), at * 10**9, values, 8 * samples // 10)


def test_faults_are_put_in_after_the_cut_and_nowhere_else() -> None:
    """What is labelled differs from what was, all else is as it was; the same seed puts in the same."""
    one = series()
    faulty, labels = inject(one, [7, 0])
    changed = ~((one.values == faulty.values) | np.isnan(one.values)).all(axis=1)
    assert labels[: one.cut].sum() == 0
    assert not changed[labels == 0].any()
    assert changed[labels == 1].mean() > 0.5
    again, same = inject(one, [7, 0])
    assert np.array_equal(again.values, faulty.values, equal_nan=True)
    assert np.array_equal(same, labels)
    assert not np.array_equal(inject(one, [8, 0])[1], labels)


@pytest.mark.parametrize("samples", [2, 40, 5_000])
def test_faults_fit_into_any_stream(samples: int) -> None:
    """A constant one, a short one, a long one: something is wrong, and not everything."""
    one = Series("s", ("c",), np.arange(samples), np.full((samples, 1), 3.0), samples // 2)
    for seed in range(20):
        faulty, labels = inject(one, [seed])
        assert 0 < labels[one.cut :].sum() <= max(1, 0.5 * (samples - one.cut))
        assert np.isfinite(faulty.values).all()


def labelled(folder: Path, wrong: str = "1") -> Path:
    """Two streams in a file; something is wrong with the second one, early and late."""
    lines = ["time,stream,flow,label"]
    for second in range(200):
        for stream in ("a", "b"):
            told = wrong if stream == "b" and second in (20, 180, 181) else "0"
            lines.append(f"{second},{stream},{np.sin(second / 7):.3f},{told}")
    path = folder / "a.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def settings(path: Path, **data: object) -> TrainSettings:
    return TrainSettings.model_validate(
        {"name": "a", "data": {"paths": [str(path)], "stream": "stream", "time_unit": "s", **data}}
    )


def test_labels_are_no_channel_and_count_after_the_cut(tmp_path: Path) -> None:
    """Nothing is learnt from them; what was wrong before the cut is history."""
    known = without_labels(settings(labelled(tmp_path)), "label")
    assert known.data.channels == ["flow"]
    history = load_history(known)
    assert history.channels == ("flow",)
    truth = find_truth(known, history, "label", 7)
    assert (truth.origin, truth.events) == ("labels", 1)
    first = truth.cases[0]
    assert (first.name, first.channels) == ("b", ("flow",))
    assert first.begin == 160
    assert first.events == ((180, 182),)


@pytest.mark.parametrize(
    ("column", "wrong", "data", "message"),
    [
        ("labels", "1", {}, "column 'labels' is missing: expected one of time, stream, flow, label"),
        ("flow", "1", {"channels": ["flow"]}, "'flow' is a channel"),
        ("label", "2", {}, "stream b: column 'label': expected 0 or 1, got 2"),
    ],
)
def test_a_column_that_is_none_of_labels_is_refused(
    tmp_path: Path, column: str, wrong: str, data: dict[str, object], message: str
) -> None:
    """It is missing, something is learnt from it, or it holds something else than 0 and 1."""
    given = settings(labelled(tmp_path, wrong), **data)

    def look() -> None:
        known = without_labels(given, column)
        find_truth(known, load_history(known), column, 7)

    with pytest.raises(InputError, match=message):
        look()


def test_the_plant_knows_its_faults() -> None:
    """Other pumps than those that are learnt from; where they have no fault, some are put in."""
    plant = TrainSettings.model_validate({"name": "a", "data": {"plant": {"streams": 4, "hours": 6}}})
    history = load_history(plant)
    truth = find_truth(plant, history, None, 7)
    assert truth.origin == "plant"
    assert truth.events > 0
    assert not np.array_equal(truth.cases[0].values[:50], history.series[0].values[:50], equal_nan=True)
    short = TrainSettings.model_validate({"name": "a", "data": {"plant": {"streams": 2, "hours": 1}}})
    assert find_truth(short, load_history(short), None, 7).origin == "injected"
