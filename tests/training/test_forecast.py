"""Trajectories from one state: as wide as the future turns out, and the same for the same seed."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from detector.cli import main
from detector.errors import InputError
from detector.model.session import Session
from detector.records import Float64
from detector.scoring import open_bundle
from training.data.series import Series
from training.forecast.trajectories import Trajectories, follow

STREAMS, KNOWN, HORIZON = 12, 600, 24
PERIOD_NS = 60 * 10**9


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(open_bundle("default"))


@pytest.fixture(scope="module")
def walks() -> Float64:
    """Random walks, (STREAMS, KNOWN + HORIZON): nobody knows where they go, everybody how fast they spread."""
    return np.random.default_rng(5).standard_normal((STREAMS, KNOWN + HORIZON)).cumsum(axis=1) * 3 + 50


@pytest.fixture(scope="module")
def found(session: Session, walks: Float64) -> list[Trajectories]:
    return follow(session, [known(walk, f"walk-{at}") for at, walk in enumerate(walks)], HORIZON, paths=100)


def known(values: Float64, name: str = "a") -> Series:
    values = values[:KNOWN, None]
    return Series(name, ("v",), np.arange(len(values)) * PERIOD_NS, values, len(values))


def inside(lower: Float64, upper: Float64, walks: Float64) -> float:
    """The share of what came in the later half of the horizon that lies between two bounds (STREAMS, HORIZON)."""
    came, late = walks[:, KNOWN:], slice(HORIZON // 2, None)
    return float(np.mean((came >= lower)[:, late] & (came <= upper)[:, late]))


def test_the_fan_holds_what_came(found: list[Trajectories], walks: Float64) -> None:
    """About 80 % of the future lies between 10 % and 90 %; what a single step is sure of would hold little of it."""
    fan = np.stack([one.quantiles([0.1, 0.9])[..., 0] for one in found], axis=1)
    assert 0.55 <= inside(*fan, walks) <= 0.97
    around_last = walks[:, KNOWN - 1 : KNOWN] + fan[:, :, :1] - fan[:, :, :1].mean(axis=0)
    assert inside(*np.broadcast_to(around_last, fan.shape), walks) < 0.4


def test_a_forecast_is_a_function_of_history_and_seed(
    session: Session, found: list[Trajectories], walks: Float64
) -> None:
    """Neither neighbours nor being asked twice move a number; another seed does. Times go on at the stream's pace."""
    again = follow(session, [known(walks[0], "walk-0")], HORIZON, paths=100)[0]
    assert np.array_equal(again.values, found[0].values)
    other = follow(session, [known(walks[0], "walk-0")], HORIZON, paths=100, seed=1)[0]
    assert not np.array_equal(other.values, found[0].values)
    assert again.time_ns.tolist() == [(KNOWN + at) * PERIOD_NS for at in range(HORIZON)]


def test_the_command_writes_a_table_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row per sample and channel, quantiles in order; the page names the stream; the samples left out are told."""
    rows = "".join(f"{60 * at},{np.sin(at / 5):.3f},{at % 7}\n" for at in range(300))
    (tmp_path / "pump.csv").write_text(f"time,flow,steps\n{rows}0,1,1\n", encoding="utf-8")
    output, page = tmp_path / "ahead.csv", tmp_path / "ahead.html"
    told = ["--input", str(tmp_path / "pump.csv"), "--time-unit", "s", "--output", str(output), "--plot", str(page)]
    with pytest.raises(SystemExit) as ended:
        main(["forecast", *told, "--horizon", "5", "--paths", "20"])
    assert not ended.value.code
    with output.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["channel"] for row in table] == ["flow", "steps"] * 5
    assert table[0]["time"] == "1970-01-01T05:00:00.000Z"
    for row in table:
        quantiles = [float(value) for name, value in row.items() if name.startswith("q")]
        assert quantiles == sorted(quantiles)
        assert len(set(quantiles)) > 1
    assert "pump.csv" in page.read_text(encoding="utf-8")
    assert "1 late" in capsys.readouterr().err


def test_one_sample_is_no_history(session: Session) -> None:
    """Without a period nobody knows when the next sample is due; the stream is named."""
    with pytest.raises(InputError, match=r"stream a.*two samples or more, got 1"):
        follow(session, [known(np.ones(1))], HORIZON)
