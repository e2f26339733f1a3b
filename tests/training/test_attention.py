"""What a network attends to is told for every forecast, as the running detector has it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("plotly")
pytest.importorskip("torch")

import torch
from torch import Tensor

from training.attention import LookedBack, heat_maps, look_back, write_csv
from training.data import batches
from training.data.series import Series
from training.graph import Detector, DetectorShape
from training.rollout import Run

T, CUT, MEMORY = 60, 30, 5
CHANNELS = ("flow", "pressure")


def detector(**shape: object) -> Detector:
    torch.manual_seed(2)
    made = Detector(DetectorShape(hidden=6, profile="light", **shape))
    for weight in made.forecaster.parameters():
        torch.nn.init.normal_(weight, std=0.6)
    return made


@pytest.fixture
def series() -> list[Series]:
    """Two streams of two channels with holes, and a third that nobody asks about."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, T, 2))
    values[rng.uniform(size=values.shape) < 0.2] = np.nan
    values[:, 0] = 1
    time_ns = np.arange(T, dtype=np.int64) * 10_000_000_000
    return [Series(name, CHANNELS, time_ns, one, CUT) for name, one in zip("abc", values, strict=True)]


def asked(series: list[Series]) -> list[Run]:
    """Stretches of the first two."""
    nothing = np.zeros((T, 2))
    runs = [Run(one, nothing[:, 0], nothing, nothing, nothing) for one in series[:2]]
    return [run.part(slice(CUT, CUT + 20)) for run in runs]


@pytest.mark.parametrize("mode", ["any", "fixed"])
def test_the_weights_are_those_that_the_row_holds(mode: str, series: list[Series]) -> None:
    """For each sample: what the state before it, as `step` has left it, gives to each of the last ones."""
    one = detector(mode=mode, channels=CHANNELS if mode == "fixed" else None, shape="attention", memory=MEMORY)
    looked = look_back(one, asked(series), series, "UTC")
    assert [found.stream for found in looked] == ["a", "b"]
    for found, stream in zip(looked, series, strict=False):
        assert found.channels == (CHANNELS if mode == "any" else ("all channels",))
        assert (found.time_ns == stream.time_ns[CUT : CUT + 20]).all()
        expected = torch.stack(list(weights_in_rows(one, stream)))[CUT : CUT + 20]
        torch.testing.assert_close(torch.from_numpy(found.weights), expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.weights.sum(axis=-1), 1, rtol=1e-5)
        assert np.ptp(found.weights, axis=0).max() > 0.01  # they follow what happens


def weights_in_rows(one: Detector, stream: Series) -> list[Tensor]:
    """(C, k) before each sample, from the rows of the whole detector."""
    block = batches.block([stream], "UTC")
    values, observed, elapsed, clock = map(torch.from_numpy, (block.values, block.observed, block.elapsed, block.clock))
    rows, found, attention = one.initial_row(2)[None], [], one.forecaster.cell.layers[-1]
    start = one.forecaster.cell.state_width - attention.state_width
    with torch.no_grad():
        for t in range(T):
            state = one.fields(rows)["hidden"].reshape(-1, one.forecaster.hidden_width)
            found.append(attention.weights(state[:, start : start + attention.state_width]))
            if observed[:, t].any():
                rows = one.step(values[:, t], observed[:, t], elapsed[:, t, None], clock[:, t], rows).next_state
    return found


def test_what_is_not_there_yet_counts_for_nothing(series: list[Series]) -> None:
    """At the first samples there is nothing to look back on, then one sample, then two."""
    one = detector(shape="attention", memory=MEMORY)
    whole = [Run(series[0], np.zeros(T), *np.zeros((3, T, 2)))]
    (found,) = look_back(one, whole, series, "UTC")
    assert not found.weights[0].any()
    assert (found.weights[1] == [1, 0, 0, 0, 0]).all()
    there = (found.weights > 0).sum(axis=-1)
    assert (there[-1] == MEMORY).all()
    assert (np.diff(there, axis=0) >= 0).all()


def test_a_network_that_does_not_attend_explains_nothing(series: list[Series]) -> None:
    """There are no weights to tell of, and nothing is made up."""
    for shape in ({}, {"layers": 2}, {"shape": "conv"}):
        assert look_back(detector(**shape), asked(series), series, "UTC") == []


def test_the_weights_are_left_for_programs_and_drawn_for_people(tmp_path: Path) -> None:
    """A CSV row for each sample and channel, newest first; a map for each channel."""
    weights = np.random.default_rng(0).dirichlet(np.ones(MEMORY), (3, 2)).astype(np.float32)
    one = LookedBack("p", CHANNELS, np.array([10, 20, 30]), weights)
    write_csv(tmp_path / "attention.csv", [one])
    rows = list(csv.DictReader((tmp_path / "attention.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["stream"], row["time_ns"], row["channel"]) for row in rows[:3]] == [
        ("p", "10", "flow"), ("p", "10", "pressure"), ("p", "20", "flow"),
    ]  # fmt: skip
    assert [float(rows[1][str(back)]) for back in range(1, 6)] == pytest.approx(weights[0, 1].tolist(), rel=1e-3)
    figure = heat_maps(one)
    assert [trace.z.shape for trace in figure.data] == [(MEMORY, 3)] * 2
