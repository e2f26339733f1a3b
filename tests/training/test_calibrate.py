"""What is measured after training is what the detector does, and a new stream starts from it."""

from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from rich.console import Console

from training.calibrate import Calibration, _clusters, calibrate
from training.data.series import Series
from training.graph import Detector, DetectorShape
from training.progress import Progress
from training.rollout import Run, choose, roll
from training.settings import TrainSettings

SETTINGS = TrainSettings.model_validate({"name": "a", "data": {"paths": ["a.csv"]}})


def noise(streams: int, channels: int = 1, samples: int = 800, seed: int = 0) -> list[Series]:
    """Noise about a level, each channel in units of its own."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(streams):
        values = rng.standard_normal((samples, channels)) * 10.0 ** rng.uniform(-3, 3, channels)
        time_ns = np.arange(samples) * 1_000_000_000
        found.append(Series(f"s{number}", tuple(f"c{c}" for c in range(channels)), time_ns, values, samples // 2))
    return found


def detector(**shape: object) -> Detector:
    torch.manual_seed(0)
    return Detector(DetectorShape(hidden=4, warm_up=64, period_s=1.0, **shape)).eval()


def calibrated(made: Detector, series: list[Series]) -> Calibration:
    return calibrate(made, series, SETTINGS, Progress(Console(file=io.StringIO())))


def rolled(made: Detector, series: list[Series]) -> list[Run]:
    return [run for runs, _ in roll(made, choose(series, "UTC"), iter) for run in runs]


def test_calibration_says_what_is_so() -> None:
    """On noise as it was measured on, the band holds what it promises; scores of the very young err to the calm."""
    made = detector()
    calibrated(made, noise(24))
    fresh = rolled(made, noise(24, seed=1))
    score = np.concatenate([run.score for run in fresh])
    inside = np.concatenate([run.inside for run in fresh])
    assert np.mean(inside) == pytest.approx(0.98, abs=0.01)
    for nines in (1, 2):
        assert np.mean(score >= nines) < 1.5 * 10.0**-nines
    assert np.mean(score >= 0.5) > 0.04


def test_a_new_stream_starts_from_what_was_measured() -> None:
    """Feature statistics go into the initial row; trained weights stay as they are, and nothing is counted yet."""
    made = detector()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    calibrated(made, noise(8))
    after = made.state_dict()
    assert float(made.fields(made.initial_row(1)[None])["reached"].max()) == 0.0
    assert not torch.equal(before["initial_channel"], after["initial_channel"])
    assert not torch.equal(before["initial_joint"], after["initial_joint"])
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("initial_"))


def test_who_goes_on_from_another_run_takes_no_feature_to_be_steadier() -> None:
    """Calibrated again on streams that hardly move, variances stay as wide as they were; from nothing they shrink."""
    calm = noise(3)
    for one in calm:
        one.values[:] = np.arange(len(one))[:, None]
    first, further = detector(), detector()
    calibrated(first, calm)
    calibrated(further, noise(3))
    before = variances(further)
    calibrated(further, calm)
    assert bool((variances(further) >= before).all())
    assert bool((variances(first) < before).any())


def variances(made: Detector) -> torch.Tensor:
    known = made.fields(made.initial_row(1)[None])
    return torch.cat([known[name].flatten() for name in ("feature_variance", "error_variance")])


def test_only_the_later_span_counts() -> None:
    """What stands before the cut brings the detector into its state, and is not measured."""
    runs = rolled(detector(), noise(3))
    assert [len(run.score) for run in runs] == [400, 400, 400]
    assert all(run.series.time_ns[0] == 400_000_000_000 for run in runs)


def test_neighbours_with_more_channels_change_nothing() -> None:
    """A stream run beside wider and longer ones says what it says alone: padding is never observed."""
    made, narrow = detector(), noise(1, channels=2)
    (alone,) = rolled(made, narrow)
    together = rolled(made, [*noise(3, channels=4, samples=900, seed=1), *narrow])
    (same,) = [run for run in together if run.series.channels == ("c0", "c1")]
    np.testing.assert_allclose(same.score, alone.score, atol=0.05)  # the solve magnifies the last bits
    np.testing.assert_allclose(same.expected, alone.expected, rtol=1e-5, atol=1e-6)
    assert same.expected.shape == (400, 2)


def test_fixed_channels_are_calibrated_too() -> None:
    """A joint detector goes the same way."""
    made = detector(mode="fixed", channels=("c0", "c1"))
    measured = calibrated(made, noise(8, channels=2))
    assert measured.samples == 8 * 400
    assert 0.9 < measured.coverage_worst <= measured.coverage < 1.0


def test_exceedances_are_counted_in_clusters() -> None:
    """Samples above the threshold fewer than ten samples apart are one alarm."""
    score = np.zeros(100_000)
    for start in range(1000, 100_000, 1000):
        score[[start, start + 3, start + 9]] = 8.0
    empty = np.zeros((len(score), 1))
    one = Series("s", ("a",), np.arange(len(score)), empty, 0)
    threshold, per_alarm = _clusters([Run(one, score, empty, empty, empty)], budget_per_day=1.0, period_s=1.0)
    assert per_alarm == pytest.approx(3.0)
    assert threshold == pytest.approx(np.log10(86_400 / 3))
