"""Scale, layout and priors, each for what it is there for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from detector.errors import ConfigurationError
from training.graph import Detector, DetectorShape
from training.graph.layout import Field, Layout
from training.graph.scale import Reading, Scale


def walk_scale(values: Tensor, each: Callable[[int, Reading], None] | None = None) -> dict[str, Tensor]:
    """Feed values (T,) to a scale; gives back its fields."""
    scale = Scale()
    layout = Layout("channel", list(Scale.FIELDS))
    fields = layout.split(layout.initial().view(1, 1, -1))
    for t, value in enumerate(values.double()):
        reading, fields = scale(value.view(1, 1, 1), torch.ones(1, 1, 1), torch.ones(1, 1, 1), fields)
        if each is not None:
            each(t, reading)
    return fields


def test_scale_learns_mean_spread_and_change() -> None:
    """On noise of mean 100 and spread 5, the statistics are those, and the change scale is 2 / sqrt(pi) spreads."""
    torch.manual_seed(0)
    known = walk_scale(torch.randn(4000) * 5 + 100)
    assert float(known["mean_high"] + known["mean_low"]) == pytest.approx(100, abs=0.5)
    assert float(known["variance"].sqrt()) == pytest.approx(5, rel=0.1)
    assert float(known["change_scale"]) == pytest.approx(5 * 1.128, rel=0.1)


def test_one_outlier_moves_little() -> None:
    """A single value a million spreads away changes the spread by less than a tenth."""
    torch.manual_seed(0)
    values = torch.randn(2000)
    before = walk_scale(values)
    values[1000] = 1e6
    after = walk_scale(values)
    for name in ("variance", "change_scale"):
        assert float(after[name]) == pytest.approx(float(before[name]), rel=0.1)


def test_a_scale_that_is_too_small_escapes() -> None:
    """After 500 constant samples a channel that begins to move has a fitting scale within 500 more."""
    torch.manual_seed(0)
    values = torch.cat([torch.full((500,), 3.0), 3 + torch.randn(500)])
    readings: dict[int, Reading] = {}
    known = walk_scale(values, lambda t, reading: readings.update({t: reading}))
    assert float(known["change_scale"]) > 0.3
    assert float(readings[999].g.abs()) < 8
    assert float(readings[499].z) == 0


def test_units_do_not_matter() -> None:
    """Scaled by a power of two and shifted, a channel gives the same unit-free readings."""
    torch.manual_seed(0)
    values = torch.randn(300).double()
    plain: list[Reading] = []
    other: list[Reading] = []
    walk_scale(values, lambda _, reading: plain.append(reading))
    walk_scale(values * 2.0**20, lambda _, reading: other.append(reading))
    for name in ("y", "z", "g", "ratio", "back"):
        mine, theirs = (torch.cat([getattr(reading, name) for reading in each[1:]]) for each in (plain, other))
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_priors_are_where_a_new_stream_starts() -> None:
    """What calibration writes is found in the initial row, for every channel of an `any` detector."""
    detector = Detector(DetectorShape(hidden=4))
    detector.set_priors(joint={"excess": torch.tensor([0.7])}, channel={"feature_mean": torch.arange(16.0)})
    known = detector.fields(detector.initial_row(2)[None])
    assert float(known["excess"]) == pytest.approx(0.7)
    assert known["feature_mean"][0].tolist() == [list(range(16))] * 2


def test_priors_may_differ_by_fixed_channel() -> None:
    """A fixed detector keeps an initial block for each channel."""
    detector = Detector(DetectorShape(mode="fixed", channels=("a", "b"), hidden=4))
    detector.set_priors(channel={"band_factor": torch.tensor([[1.5], [2.5]])})
    assert detector.fields(detector.initial_row(2)[None])["band_factor"].flatten().tolist() == [1.5, 2.5]


def test_a_shape_that_makes_no_sense_is_refused() -> None:
    """Fixed channels need names, any channels have none, and a cell must be known."""
    for wrong in ({"mode": "fixed"}, {"channels": ("a",)}, {"cell": "transformer"}):
        with pytest.raises(ConfigurationError, match="model: c"):
            DetectorShape(**wrong)


def test_a_layout_knows_every_float_once() -> None:
    """Splitting and joining are inverse, and what is described fills the block without gaps."""
    layout = Layout("channel", [Field("one"), Field("none", 0), Field("three", 3, (1.0, 2.0, 3.0))])
    block = torch.arange(4.0)
    assert torch.equal(layout.join(layout.split(block)), block)
    assert layout.initial().tolist() == [0, 1, 2, 3]
    assert [(entry["offset"], entry["shape"]) for entry in layout.describe()] == [(0, []), (1, [3])]
