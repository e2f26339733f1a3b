"""A training's report in a real browser, on a phone in the dark: whole, nothing empty, no text upon another."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("plotly")
pytest.importorskip("torch")

from tests.evaluate.browser import PAPER, PHONE, WALK, WIDTHS, Seen, browser
from training.attention import LookedBack
from training.calibrate import Calibration
from training.data.series import Series
from training.fit import Epoch, Fitted
from training.report import stretches, write_report
from training.rollout import Run

CHANNELS, N = ("flow", "<b>pressure</b>"), 900
IMAGES = '[...document.querySelectorAll(".plot")].map((plot) => plot.querySelectorAll("image").length)'


def run(name: str) -> Run:
    """A noisy sine that was expected, and one high score."""
    rng, at = np.random.default_rng(1), np.arange(N)
    expected = np.stack([np.sin(at / 20), 100 + np.cos(at / 30)], axis=1)
    series = Series(name, CHANNELS, 1_772_409_600_000_000_000 + at * 10_000_000_000, expected + 0.1, 0)
    score = rng.exponential(0.4, N)
    score[700] = 6
    return Run(series, score, expected, expected - 0.3, expected + 0.3)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The page of a training that nobody ran."""
    epochs = [
        Epoch(at, 0.3 / (1 + at), 0.31 / (1 + at), 4.0 * (at > 0), 30.0 * (at > 0), 0.5, 3e-3, 1.0) for at in range(9)
    ]
    reached = {name: [10.0 ** -(k**power) for k in range(1, 65)] for name, power in (("before", 0.5), ("after", 0.3))}
    realised = {nines / 2: 1.3 * 10 ** (-nines / 2) * (nines < 8) for nines in range(1, 13)}
    drawn = stretches([run("pump-01"), run("pump-02")])
    calibration = Calibration(1_800, 0.98, 0.97, 0.95, realised, 4.9, 2.0, 20_000, [])
    weights = np.random.default_rng(0).dirichlet(np.ones(12), (600, 2)).astype(np.float32)
    looked = [LookedBack(one.series.stream, CHANNELS, one.series.time_ns, weights) for one in drawn]
    metrics = {"data": {"streams": 2, "rejects": {}, "sha256": "5f" * 32}, "calibration": calibration.figures()}
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, "pumps 1", metrics, Fitted(epochs, epochs[-1], 0.2, reached), calibration, drawn, looked)
    with browser() as chromium:
        return chromium.visit(path, PHONE, WALK, WIDTHS, PAPER, IMAGES)


def test_every_plot_shows_something(seen: Seen) -> None:
    """Curves of training, norms, reach, promises; of each stream its forecasts, and what they look back on."""
    assert seen.errors == []
    shown = [
        (plot["section"], plot["lines"], images) for plot, images in zip(seen.answers[0], seen.answers[3], strict=True)
    ]
    streams = ("pump-01", "pump-02")
    about = {f"What these forecasts look back on: {name}": (0, 2) for name in streams}
    for section, lines, images in shown:
        assert (lines, images) == about.get(section, (lines, 0))
        assert lines + images >= 2
    assert [section for section, _, _ in shown[-4:]] == [
        f"{what}: {name}" for name in streams for what in ("Forecasts", "What these forecasts look back on")
    ]
    assert len(shown) == 8


def test_it_is_readable(seen: Seen) -> None:
    """No text lies upon another or beyond the screen, which is not scrolled sideways; ink is light on dark paper."""
    assert [overlap for plot in seen.answers[0] for overlap in plot["overlapping"]] == []
    assert [text for plot in seen.answers[0] for text in plot["outside"]] == []
    assert seen.answers[1][0] <= seen.answers[1][1]
    assert {ink for plot in seen.answers[0] for ink in plot["inks"]} == {seen.answers[2][1]}
