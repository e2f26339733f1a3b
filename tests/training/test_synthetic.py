"""Generated streams: reproducible, finite, and chaotic where they say so; what is learnt of some holds for others."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from detector.records import Float64
from training.graph import Detector, DetectorShape
from training.synthetic import dynamics
from training.synthetic.dynamics import DYNAMICS, chaotic_map, ikeda, lorenz, mackey_glass
from training.synthetic.rhythms import RHYTHMS
from training.synthetic.shapes import SHAPES, Shape
from training.synthetic.streams import KINDS, streams

NAMES = sorted({kind.__name__ for kind in KINDS})
BY_NAME = {kind.__name__: kind for kind in KINDS}
T = 1500


def drawn(kind: Shape, seed: int, samples: int = T) -> Float64:
    return kind(np.random.default_rng(seed), np.arange(float(samples)))


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_is_reproducible_finite_and_alive(name: str) -> None:
    """The same seed gives the same stream, another seed another one; nothing explodes, and nothing stands still."""
    for seed in range(4):
        x = drawn(BY_NAME[name], seed)
        assert x.shape == (T,)
        assert np.isfinite(x).all()
        assert np.array_equal(x, drawn(BY_NAME[name], seed))
        assert not np.array_equal(x, drawn(BY_NAME[name], seed + 100))
        assert x.std() > 1e-3 * (1 + abs(x.mean()))


@pytest.mark.parametrize("kind", list(dict.fromkeys(DYNAMICS)), ids=lambda kind: kind.__name__)
def test_dynamics_stay_on_their_attractor(kind: Shape) -> None:
    """A system's late values lie where its early ones did, and move as much."""
    for seed in range(4):
        early, late = np.split(drawn(kind, seed, 4000), 2)
        span = early.max() - early.min()
        assert early.min() - 0.6 * span < late.min() <= late.max() < early.max() + 0.6 * span
        assert 0.4 < np.abs(np.diff(late)).mean() / np.abs(np.diff(early)).mean() < 2.5


def divergence(x: Float64, ahead: int = 40, width: int = 6) -> float:
    """How many times further apart the futures of the nearest neighbours are than they were (Rosenstein 1993)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, width)[:-ahead]
    apart = []
    for i in range(0, len(windows), 25):
        distance = np.abs(windows - windows[i]).max(axis=1)
        distance[max(0, i - 100) : i + 100] = np.inf
        j = int(distance.argmin())
        now = np.abs(windows[i] - windows[j]).max()
        then = np.abs(x[i + ahead - width : i + ahead + width] - x[j + ahead - width : j + ahead + width]).max()
        apart.append(then / max(now, 1e-9))
    return float(np.median(apart))


@pytest.mark.parametrize("kind", [mackey_glass, ikeda, lorenz, chaotic_map], ids=lambda kind: kind.__name__)
def test_chaos_drives_neighbours_apart(kind: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, most systems' nearest pasts have futures that differ much more than they did."""
    monkeypatch.setattr(dynamics, "_read", lambda rng, orbit, hidden=0: orbit[:, 0])
    found = [divergence(drawn(kind, seed, 3000)) for seed in range(6)]
    assert np.median(found) > 2.0


def test_a_wave_does_not_drive_neighbours_apart() -> None:
    """The same measure finds no chaos in a wave: its neighbours stay neighbours."""
    t = np.arange(3000.0)
    assert divergence(np.sin(t / 7.3) + 0.5 * np.sin(2 * t / 7.3)) < 1.5


def test_every_kind_is_among_the_streams() -> None:
    """Shapes, rhythms and dynamics all occur, and all of them finite where they are observed."""
    assert {*SHAPES, *RHYTHMS, *DYNAMICS} == set(KINDS)
    found = [values for _, _, _, values in streams(len(KINDS), 300, 1, seed=3)]
    assert len(found) == len(KINDS)
    assert all(np.isfinite(one[~np.isnan(one)]).all() for one in found)


class TestForecasts:
    """What a forecaster is worth on chaotic maps of other seeds, against a line through the past."""

    SAMPLES = 900

    def prepared(self, detector: Detector, seeds: range) -> tuple[torch.Tensor, ...]:
        values = np.stack([drawn(chaotic_map, seed, self.SAMPLES) for seed in seeds])[..., None]
        shape = values.shape
        made = detector.prepare(
            torch.from_numpy(values), torch.ones(shape), torch.ones(shape[:2]), torch.zeros(*shape[:2], 4)
        )
        return made.inputs, made.query, made.mask, made.target

    def error(self, detector: Detector, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Mean size of the errors of each stream's last half, in change scales."""
        inputs, query, mask, target = given
        hidden = detector.forecaster.initial_hidden(len(inputs), 1)
        with torch.no_grad():
            quantiles, _ = detector.forecaster.unroll(inputs, query, mask, hidden)
        return (target - quantiles[..., 2])[:, self.SAMPLES // 2 :, 0].abs().mean(dim=1)

    def line(self, target: torch.Tensor) -> torch.Tensor:
        """The same of a linear autoregression over 16 changes, fitted to each stream's first half."""
        y = target[..., 0].clamp(-10, 10).double()
        past = y.unfold(1, 16, 1)[:, :-1]
        wanted = y[:, 16:, None]
        half = self.SAMPLES // 2 - 16
        x, t = past[:, 50:half], wanted[:, 50:half]
        w = torch.linalg.solve(x.transpose(1, 2) @ x + 0.1 * torch.eye(16), x.transpose(1, 2) @ t)
        return (wanted - past @ w)[:, half:, 0].abs().mean(dim=1).float()

    def test_forecasts_beat_a_line_and_the_last_value(self) -> None:
        """A few passes over some chaotic streams beat persistence and autoregression on others; no pass does not."""
        torch.manual_seed(0)
        detector = Detector(DetectorShape(hidden=16))
        inputs, query, mask, target = self.prepared(detector, range(32))
        others = self.prepared(detector, range(1000, 1016))
        start = detector.forecaster.initial_hidden(32, 1)
        with torch.no_grad():
            quiet = Detector(DetectorShape(hidden=16))
        untrained = self.error(quiet, others)
        optimiser = torch.optim.Adam(detector.forecaster.parameters(), lr=1e-2)
        for _ in range(6):
            hidden = start
            for at in range(0, self.SAMPLES, 100):
                part = slice(at, at + 100)
                quantiles, hidden = detector.forecaster.unroll(inputs[:, part], query[:, part], mask[:, part], hidden)
                error = (target[:, part] - quantiles[..., 2]).clamp(-20, 20).abs().mean(dim=1)
                optimiser.zero_grad()
                (error / (error.detach() + 0.05)).mean().backward()
                optimiser.step()
                hidden = hidden.detach()
        line, last = self.line(others[3]), others[3][:, self.SAMPLES // 2 :, 0].abs().mean(dim=1)
        trained = self.error(detector.eval(), others)

        def better(a: torch.Tensor, b: torch.Tensor) -> float:
            return float((a / b).log().mean().exp())

        assert better(trained, last) < 0.5
        assert better(trained, line) < 0.9
        assert better(untrained, last) > 0.9
        assert better(untrained, line) > 1.2
