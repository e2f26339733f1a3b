"""Does the forecaster earn its place? The same detector with and without it, on nonlinear dynamics.

    python -m tests.benchmarks.forecaster [--weights detector/bundles/default.pt] [--data DIR] [--keep DIR]

Six detectors that differ in nothing else: the forecaster as it was trained, one that learnt nothing (persistence), and
none, each with and without the predictor that every stream learns for itself. What is left out is left out of the
covariance: its features are 0, and so are their rows and columns in what a new stream starts from.

They score series that no training has seen: generated chaos (`training.synthetic.dynamics`), whose orbit is cut and
joined where it nearly meets itself (*seams*, as in MGAB), or is replaced for a while by what has the same values and
the same spectrum, but no law (*surrogates*); and, where public data is at hand, the first 40,000 rows of MGAB 1. Told
is VUS-PR of the nines. `--keep` leaves the six bundles in a folder, for `tidewarden evaluate --bundle`.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from detector.model.bundle import read_bundle
from detector.model.session import Session
from detector.records import Float32, Float64, Int64
from training.evaluate.measures.vus import period, vus_pr
from training.evaluate.suites import SUITES
from training.export import export
from training.graph.bank import Bank, Heard
from training.graph.detector import Detector
from training.graph.evidence import Normal
from training.graph.layout import Layout
from training.graph.predictor import FEATURES as PREDICTED
from training.run import detector_of
from training.synthetic.dynamics import DYNAMICS

_SEED = 90_001  # far from those of any training
_SAMPLES, _QUIET, _LABELLED = 12_000, 3_000, 150
_ANOMALIES = 4
_REFINED = 50  # rounds
_MGAB_ROWS = 40_000


class Labelled(NamedTuple):
    """A series of one channel and what is strange in it."""

    family: str
    values: Float64
    labels: Int64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=Path("detector/bundles/default.pt"))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("TIDEWARDEN_DATA", "../shared/data")))
    parser.add_argument("--series", type=int, default=52, help="of generated chaos")
    parser.add_argument("--keep", type=Path, help="a folder for the bundles")
    arguments = parser.parse_args()
    cases = [*generated(arguments.series), *mgab(arguments.data)]
    torch.set_num_threads(1)
    print("VUS-PR".ljust(40), *(f"{family:>13}" for family in _families(cases)))
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name, detector in variants(detector_of(arguments.weights)):
            path = folder / f"{name.replace(',', '').replace(' ', '-')}.onnx"
            bundle = export(detector, path, name=name, version="0")
            scores = nines(Session(read_bundle(bundle)), [case.values for case in cases])
            print(name.ljust(40), *(f"{mean:13.3f}" for mean in _means(cases, scores)), flush=True)


def generated(count: int) -> Iterator[Labelled]:
    """Chaos with `_ANOMALIES` strange places each: all of them seams, or all of them surrogates."""
    for number in range(count):
        rng = np.random.default_rng([_SEED, number])
        family, disturb = _DISTURBANCES[number % len(_DISTURBANCES)]
        orbit = DYNAMICS[number // len(_DISTURBANCES) % len(DYNAMICS)](rng, np.arange(2.0 * _SAMPLES))
        where = _QUIET + (_SAMPLES - _QUIET) / _ANOMALIES * (np.arange(_ANOMALIES) + rng.uniform(0.2, 0.8, _ANOMALIES))
        labels = np.zeros(_SAMPLES, np.int64)
        for at in where.astype(int):
            orbit, length = disturb(rng, orbit, at)
            labels[at : at + length] = 1
        yield Labelled(family, orbit[:_SAMPLES], labels)


def _seam(_: np.random.Generator, orbit: Float64, at: int) -> tuple[Float64, int]:
    """Leave out what lies between a sample and the like of it 100 to 1,000 samples later."""
    later = _alike(orbit, at, np.arange(at + 100, at + 1_000))
    return np.concatenate([orbit[:at], orbit[later:]]), _LABELLED


def _surrogate(rng: np.random.Generator, orbit: Float64, at: int) -> tuple[Float64, int]:
    """Put in place of a stretch one with the same spectrum and, nearly, the same values, but without the law.

    Phases at random, then the stretch's own values by rank (Theiler et al. 1992); from a sample to the like of it, so
    that the ends meet.
    """
    stretch = orbit[at : _alike(orbit, at, np.arange(at + 100, at + 300))]
    values, size = np.sort(stretch), np.abs(np.fft.rfft(stretch))
    made = rng.permutation(stretch)
    for _ in range(_REFINED):
        made = np.fft.irfft(size * np.exp(1j * np.angle(np.fft.rfft(made))), len(stretch))
        made = values[made.argsort().argsort()]
    start = np.abs(made - orbit[at]).argmin()  # it is a circle: begin where the orbit stands
    return np.concatenate([orbit[:at], np.roll(made, -start), orbit[at + len(made) :]]), len(made)


def _alike(orbit: Float64, at: int, later: Int64) -> int:
    """Which of the later samples is most like this one, in value and in change."""
    change = np.diff(orbit)
    unlike = np.abs(orbit[later] - orbit[at]) / orbit.std() + np.abs(change[later] - change[at]) / change.std()
    return int(later[unlike.argmin()])


_DISTURBANCES = (("seams", _seam), ("surrogates", _surrogate))


def mgab(data: Path) -> Iterator[Labelled]:
    """MGAB 1, on the dev side of the split, if it is at hand."""
    if SUITES["mgab"].is_below(data):
        for case in SUITES["mgab"].load(data, "1")[0]:
            yield Labelled("MGAB 1", case.values[:_MGAB_ROWS, 0], case.labels[:_MGAB_ROWS].astype(np.int64))


def variants(trained: Detector) -> Iterator[tuple[str, Detector]]:
    """The six detectors by name."""
    torch.manual_seed(_SEED)
    untrained = copy.deepcopy(trained)
    untrained.forecaster = Detector(trained.shape).forecaster
    for name, detector in ("trained", trained), ("untrained", untrained), ("no forecaster", trained):
        for predictor in True, False:
            kept = copy.deepcopy(detector)
            leave_out(kept, forecaster=name.startswith("no"), predictor=not predictor)
            yield f"{name}, {'with' if predictor else 'no'} predictor", kept


def leave_out(detector: Detector, *, forecaster: bool, predictor: bool) -> None:
    """Take evidence out of the covariances, in place."""
    own, together = detector.own, detector.together
    gone = _forecasts(own.bank) if forecaster else []
    own.normal = Kept(own.normal, _all_but(own.normal, gone))
    own.errors = Kept(own.errors, torch.full_like(own.errors.ones[0], float(not predictor)))
    kept = torch.cat([own.normal.kept, own.errors.kept])
    kept = torch.cat([kept, torch.zeros(own.covariance.width - len(kept))])
    known = detector.fields(detector.initial_row(1)[None])
    priors = {own.covariance.field.name: torch.outer(kept, kept)}
    if together:
        gone = _forecasts(together.bank) if forecaster else []
        errors = [*range(len(together.normal.ones[0]))][-PREDICTED:] if predictor else []
        together.normal = Kept(together.normal, _all_but(together.normal, [*gone, *errors]))
        kept = together.normal.kept
        priors[together.covariance.field.name] = torch.outer(kept, kept)
    priors = {name: known[name].flatten() * kept.flatten() for name, kept in priors.items()}
    detector.set_priors(priors, priors)


def _all_but(normal: Normal, gone: Sequence[int]) -> Tensor:
    kept = normal.ones[0].clone()
    kept[list(gone)] = 0.0
    return kept


def _forecasts(bank: Bank) -> list[int]:
    """Which features of a bank hear of the forecast: those that another residual changes."""
    old = Layout("", list(bank.fields)).split(Layout("", list(bank.fields)).initial()[None])
    one = torch.ones(1, 1)
    calm, off = (bank(Heard(one, one, one, residual * one, one, one), old)[0] for residual in (0.0, 2.0))
    return [int(at) for at in (calm != off)[0].nonzero()]


class Kept(Normal):
    """Standardises as another does, and sets what is left out to 0."""

    kept: Tensor

    def __init__(self, normal: Normal, kept: Tensor) -> None:
        nn.Module.__init__(self)
        self.mean, self.variance, self.names, self.fields = normal.mean, normal.variance, normal.names, normal.fields
        self.register_buffer("ones", normal.ones, persistent=False)
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, features: Tensor, rate: Tensor, old: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Standardise, then leave out."""
        z, statistics = super().forward(features, rate, old)
        return z * self.kept, statistics


def nines(session: Session, series: Sequence[Float64]) -> list[Float32]:
    """The scores of each series, all of them side by side."""
    order = sorted(range(len(series)), key=lambda at: -len(series[at]))
    scores = [np.zeros(len(values), np.float32) for values in series]
    rows = np.tile(session.bundle.initial_row(1), (len(series), 1))
    for t in range(len(series[order[0]])):
        going = [at for at in order if len(series[at]) > t]
        n = len(going)
        values = np.array([[series[at][t]] for at in going])
        elapsed = np.full((n, 1), float(t > 0), np.float32)
        out = session.step(values, np.ones((n, 1), np.float32), elapsed, np.zeros((n, 4), np.float32), rows[:n])
        rows = out.next_state
        for at, score in zip(going, out.score, strict=True):
            scores[at][t] = score
    return scores


def _families(cases: Sequence[Labelled]) -> list[str]:
    return list(dict.fromkeys(case.family for case in cases))


def _means(cases: Sequence[Labelled], scores: Sequence[Float32]) -> Iterator[float]:
    found = [vus_pr(case.labels, score, period(case.values)) for case, score in zip(cases, scores, strict=True)]
    for family in _families(cases):
        yield float(np.mean([one for one, case in zip(found, cases, strict=True) if case.family == family]))


if __name__ == "__main__":
    main()
