"""Ours trained on each series' own training part: a bundle that differs where it should, and a line in the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from detector.errors import BundleError, TidewardenError
from detector.model.bundle import Bundle, read_bundle
from detector.model.session import Session
from tests.evaluate import made_up
from training import export as exporter
from training.calibrate import calibrate
from training.evaluate import own_training
from training.evaluate.own_training import ROWS_MIN, ROWS_MOST, is_eligible, trained
from training.evaluate.run import OWN_TRAINING, Options, evaluate
from training.evaluate.suites import Case
from training.graph.detector import Detector, DetectorShape
from training.proofs import check_parity

ROWS = 600


def weights(bundle: Bundle) -> dict[str, np.ndarray]:
    graph = onnx.load_from_string(bundle.model_bytes).graph
    return {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small bundle of today's code."""
    torch.manual_seed(1)
    detector = Detector(DetectorShape(profile="light", hidden=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "prove", lambda *_: None)  # tests/parity does; it takes half a minute
        return read_bundle(exporter.export(detector, tmp_path_factory.mktemp("base") / "b.onnx", name="b", version="1"))


@pytest.fixture(scope="module")
def own(base: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    case = made_up.case(values=made_up.wave(ROWS), train=ROWS_MIN + 80)
    return trained(base, case, tmp_path_factory.mktemp("own"))


def test_its_weights_and_its_start_are_its_own_and_nothing_else(base: Bundle, own: Bundle) -> None:
    """The forecaster's weights and the initial row have changed; constants, operators and layout have not."""
    before, after = weights(base), weights(own)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("forecaster.") for name in changed)
    assert not np.array_equal(base.initial_row(1), own.initial_row(1))
    assert own.row_layout == base.row_layout
    assert own.graph_sha256 != base.graph_sha256


def test_a_bundle_whose_weights_are_not_the_trained_ones_fails_its_proof(own: Bundle) -> None:
    """What was put into the graph is compared with torch: other weights there are found out."""
    detector = own_training._detector(own, onnx.load_from_string(own.model_bytes))
    check_parity(detector, Session(own), channels=1, steps=200)
    with torch.no_grad():
        detector.forecaster.head.bias.add_(1.0)
    with pytest.raises(BundleError, match="in torch and in ONNX Runtime"):
        check_parity(detector, Session(own), channels=1, steps=200)


def test_calibration_through_the_graph_is_that_through_torch(base: Bundle) -> None:
    """New streams start from the same row, whoever took the steps; and from another than before."""
    history = own_training._history(made_up.case(values=made_up.wave(ROWS), train=ROWS_MIN))
    begun, plain, quick = (own_training._detector(base, onnx.load_from_string(base.model_bytes)) for _ in range(3))
    calibrate(plain, history, own_training.SETTINGS, made_up.quiet())
    calibrate(quick, history, own_training.SETTINGS, made_up.quiet(), own_training._step(Session(base)))
    torch.testing.assert_close(quick.initial_channel, plain.initial_channel, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(quick.initial_channel, begun.initial_channel, rtol=1e-3, atol=1e-3)


def test_a_bundle_of_other_code_is_refused(base: Bundle, tmp_path: Path) -> None:
    """One whose rows are not those of today's detector, and one that does not say what it is made of."""
    case = made_up.case(values=made_up.wave(ROWS), train=ROWS_MIN)
    with pytest.raises(BundleError, match="training cannot start from it: expected a bundle that this version's"):
        trained(replace(base, joint=base.joint + 1), case, tmp_path)
    with pytest.raises(BundleError, match="training cannot start from it"):
        trained(read_bundle(made_up.ANY), case, tmp_path)


def test_too_short_and_too_long_series_are_left_out() -> None:
    """A training part that leaves nothing to calibrate on, or none, and a series that would cost minutes."""
    long = made_up.wave(ROWS_MOST + 1)
    assert is_eligible(made_up.case(values=made_up.wave(ROWS), train=ROWS_MIN))
    assert not is_eligible(made_up.case(values=made_up.wave(ROWS), train=ROWS_MIN - 1))
    assert not is_eligible(made_up.case(values=made_up.wave(ROWS), train=0))
    assert not is_eligible(made_up.case(values=long, train=1_000))


def test_it_stands_in_the_table_and_a_failure_costs_its_series_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One series is trained for, one cannot be: a line over the first, a reason for the second, ours over both."""
    names = ("001_UCR_id_1_Medical_tr_350_1st_300", "002_UCR_id_2_Sensor_tr_360_1st_300")
    made_up.tsb_ad(tmp_path / "tsb_ad" / "U", names)

    def fails_for_the_second(bundle: Bundle, case: Case, folder: Path) -> Bundle:
        if case.name == names[1]:
            raise TidewardenError("fit", "the loss is no longer finite")
        return bundle

    monkeypatch.setattr(own_training, "trained", fails_for_the_second)
    options = Options(
        suites=("tsb-ad-u",),
        data=tmp_path / "tsb_ad",
        bundle=str(made_up.ANY),
        output=tmp_path / "out",
        own_training=True,
        budget_per_day=200.0,
    )
    (result,) = evaluate(options, made_up.quiet())
    row = next(row for row in result.rows if row.method == OWN_TRAINING)
    ours = next(row for row in result.rows if row.method == f"tidewarden, where {OWN_TRAINING} ran")
    assert row.figures["VUS-PR"].number == 1
    assert row.figures["VUS-PR"] == ours.figures["VUS-PR"]  # the stub left the bundle as it was
    (refusal,) = result.refusals
    assert (refusal.case, refusal.reason) == (names[1], "own training: fit: the loss is no longer finite")
    assert len(result.cases) == 2
