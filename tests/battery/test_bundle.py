"""Every network leaves torch: exported, proved on the daemon's runtime, and run by the daemon's engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from detector.errors import BundleError
from detector.model.bundle import read_bundle
from detector.model.session import Session
from detector.scoring import engine_factory, open_bundle, score_arrays
from detector.settings import DetectorSettings
from tests.battery.networks import NETWORKS
from tests.battery.probe import Probe
from training.cells import CELLS, Cell
from training.cells.rnn import Rnn
from training.export import export
from training.graph.detector import DetectorShape
from training.proofs import ordinary, take
from training.shapes import Architecture

STREAMS, SAMPLES, CHANNELS = 5, 120, 2
_WAVE = 256


@pytest.fixture(scope="module", params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def bundle(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parity, batch invariance and finiteness are proved by the export itself: without them there is no file."""
    return exported(NETWORKS[name], tmp_path_factory.mktemp("bundle"))


def exported(asked: Architecture, folder: Path) -> Path:
    torch.manual_seed(7)
    probe = Probe(DetectorShape(**asdict(asked) | {"warm_up": 8}))
    return export(probe, folder / "probe.onnx", name="probe", version="1")


def test_a_network_is_exported_and_proved(
    name: str, bundle: Path, record_property: Callable[[str, object], None]
) -> None:
    """It is one graph of standard operators, small enough to read, and its memory is the one that was declared."""
    graph, session = onnx.load(bundle).graph, Session(read_bundle(bundle), "cpu")
    assert {node.domain for node in graph.node} == {""}
    assert len(graph.node) < 300
    record_property(f"{name}: nodes", str(len(graph.node)))
    record_property(f"{name}: bytes a channel", str(4 * session.bundle.per_channel))
    record_property(f"{name}: us a row", f"{_cost(session):.1f}")


def _cost(session: Session) -> float:
    """Microseconds of this process that a row takes, one channel wide, in a wave of many."""
    sample = [np.repeat(part[0], _WAVE // part.shape[1], axis=0) for part in ordinary(1, 1)]
    state = np.tile(session.bundle.initial_row(1), (_WAVE, 1))
    best = np.inf
    for _ in range(5):
        started = time.process_time()
        for _ in range(10):
            state = take(session, sample, state).next_state
        best = min(best, time.process_time() - started)
    return float(best) / 10 / _WAVE * 1e6


def test_the_daemons_engine_runs_it(bundle: Path) -> None:
    """Streams scored side by side have the bits of each alone, and something is found in every one."""
    engines = engine_factory(open_bundle(str(bundle)), DetectorSettings())
    streams = _streams()
    together = score_arrays(engines, streams, ["a", "b"])
    for key, stream in streams.items():
        alone = score_arrays(engines, {key: stream}, ["a", "b"])[key]
        assert alone.score.tobytes() == together[key].score.tobytes()
        assert np.isfinite(alone.score).all()
        assert alone.score.max() > 0


def _streams() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Event times in ns and values with holes, as `score_arrays` takes them."""
    random = np.random.default_rng(2)
    times = np.arange(SAMPLES, dtype=np.int64) * 60_000_000_000
    values = np.sin(np.arange(SAMPLES) / 5)[:, None] * random.uniform(1, 20, (STREAMS, 1, CHANNELS))
    values += random.normal(size=values.shape)
    values[random.uniform(size=values.shape) < 0.1] = np.nan
    return {f"s{row}": (times, one) for row, one in enumerate(values)}


class Looking(Rnn):
    """Looks at its wave: the bits of a logarithm five floats wide depend on it."""

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        return torch.log(super().step(x, state).abs() + 0.5)


class Growing(Rnn):
    """Doubles at every sample."""

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        return super().step(x, state) + 2 * state + 1


class Drifting(Rnn):
    """Computes something else once it has been exported."""

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        said = super().step(x, state)
        return 0.5 * said if torch.compiler.is_compiling() else said


UNFIT = {Looking: "depends on its wave", Growing: "finite", Drifting: "in torch and in ONNX Runtime"}


@pytest.mark.parametrize(("cell", "told"), UNFIT.items())
def test_an_unfit_network_gets_no_bundle(
    cell: type[Cell], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative controls: what looks at its neighbours, explodes, or is another one once exported is refused."""
    monkeypatch.setitem(CELLS, "unfit", cell)
    with pytest.raises(BundleError, match=told):
        exported(Architecture(cell="unfit", hidden=5), tmp_path)
    assert not list(tmp_path.iterdir())
