"""What the exporter writes, and what it refuses to write."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from detector.errors import BundleError
from detector.model.session import INPUTS, OUTPUTS, _options
from tests.parity.conftest import Exported
from training import export as exporter
from training.proofs import Feed, check_finite, check_invariance, check_parity, hostile, ordinary, prove, take

METADATA = {
    "format", "name", "version", "channels", "state", "row_layout", "initial", "clock_features", "inputs", "outputs",
    "period_s", "warm_up", "band_level", "decide", "tolerance", "versions", "graph_sha256",
}  # fmt: skip


def test_file_is_one_graph_of_standard_operators(exported: Exported) -> None:
    """A bundle holds standard operators only, passes ONNX's own checker and names no path of this machine."""
    model = onnx.load(exported.bundle.path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", exporter.OPSET)]
    assert not model.functions
    assert {tensor.name for tensor in model.graph.initializer} <= {
        name for node in model.graph.node for name in node.input
    }
    assert [value.name for value in model.graph.input] == [*INPUTS, *exported.bundle.inputs]
    assert [value.name for value in model.graph.output] == list(OUTPUTS)
    assert b"/training/" not in exported.bundle.model_bytes


def test_metadata_hold_what_the_contract_names(exported: Exported) -> None:
    """Every required key is there, and the initial row is the detector's own."""
    assert exported.bundle.metadata.keys() >= METADATA
    blocks = base64.b64decode(exported.bundle.metadata["initial"]["per_channel"])
    assert np.frombuffer(blocks, "<f4").tobytes() == exported.detector.initial_channel.numpy().tobytes()
    channels = 3
    row = exported.detector.initial_row(channels).numpy()
    assert exported.bundle.initial_row(channels).tobytes() == row.tobytes()


def test_a_row_means_the_same_to_torch_and_to_the_daemon(exported: Exported) -> None:
    """`explain` finds in a row what the detector's own `fields` finds."""
    row = torch.arange(exported.bundle.row_floats(3), dtype=torch.float32)
    known = exported.detector.fields(row[None])
    said = exported.bundle.explain(row.numpy(), ["a", "b", "c"])
    for scope, values in (("joint", said["joint"]), ("channel", said["channels"]["b"])):
        for name, value in values.items():
            tensor = known[name][0] if scope == "joint" else known[name][0, 1]
            assert np.ravel(value).tolist() == tensor.tolist(), name


def test_running_on_their_own_they_stay_together(exported: Exported) -> None:
    """Torch and ONNX Runtime, each on its own memory for 400 samples, agree at the end within the tolerance."""
    feed = ordinary(3, 400, rows=4)
    ours = theirs = np.tile(exported.bundle.initial_row(3), (4, 1))
    for t in range(400):
        sample = [part[t] for part in feed]
        with torch.inference_mode():
            torch_says = exported.detector.step(*map(torch.from_numpy, (*sample[:4], theirs, *sample[4:])))
        says = take(exported.session, sample, ours)
        theirs, ours = torch_says.next_state.numpy(), says.next_state
    tolerance = exported.bundle.tolerance
    assert np.allclose(theirs, ours, rtol=tolerance.state, atol=tolerance.state)
    assert np.allclose(torch_says.expected.numpy(), says.expected, rtol=1e-4)
    assert np.allclose(torch_says.score[:, 0].numpy(), says.score, atol=tolerance.score)


def test_another_detectors_graph_is_refused(exported: Exported) -> None:
    """Negative control: a graph whose weights differ a little from torch's fails the proof of parity."""
    other = copy.deepcopy(exported.detector)
    with torch.no_grad():
        next(other.forecaster.cell.parameters()).mul_(1.1)
        other.forecaster.head.weight.mul_(1.1)
    with pytest.raises(BundleError, match="state in torch and in ONNX Runtime"):
        check_parity(other, exported.session, 3, steps=50)


def test_a_refused_export_leaves_nothing_behind(
    any_gru: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a proof fails, an older bundle of that name stays and no other file does."""
    path = tmp_path / "bundle.onnx"
    path.write_text("older")
    broken = copy.deepcopy(any_gru.detector)
    with torch.no_grad():
        broken.forecaster.head.bias.fill_(float("nan"))
    poisoned = onnx.load(any_gru.bundle.path)
    bias = next(tensor for tensor in poisoned.graph.initializer if tensor.name == "forecaster.head.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(broken.forecaster.head.bias.detach().numpy(), bias.name))
    monkeypatch.setattr(exporter, "_convert", lambda _: poisoned)
    with pytest.raises(BundleError, match="expected finite, got NaN or infinity for constant"):
        exporter.export(broken, path, name="broken", version="1")
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_further_metadata_are_written(any_gru: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What training adds replaces the defaults."""
    model = onnx.load(any_gru.bundle.path)
    monkeypatch.setattr(exporter, "_convert", lambda _: model)
    monkeypatch.setattr(exporter, "prove", lambda *_: None)
    decide = {"budget_per_day": 2.0, "exceedances_per_alarm": 5.0, "threshold_nines": None}
    path = exporter.export(any_gru.detector, tmp_path / "b.onnx", name="n", version="3", metadata={"decide": decide})
    document = json.loads(onnx.load(path).metadata_props[0].value)
    assert (document["decide"], document["version"]) == (decide, "3")


def test_proofs_hold_for_more_channels(any_gru: Exported) -> None:
    """One `any` file serves 16 channels as well as those that the exporter tries."""
    state = check_finite(any_gru.session, 16, steps=100)
    assert np.isfinite(state).all()
    any_gru.session.self_test(16)


@pytest.mark.parametrize("feed", [ordinary(3, 100), hostile(3, 100)], ids=["ordinary", "hostile"])
def test_proofs_say_whatever_may_be_said(feed: Feed) -> None:
    """The streams that a bundle is proved by learn and rest, and channels have every role, at first and later."""
    for part in (feed.learning[:25], feed.learning[75:]):
        assert set(np.unique(part)) == {0, 1}
    for part in (feed.role[:25], feed.role[75:]):
        assert set(np.unique(part)) == {-1, 0, 1}


def test_prove_is_what_export_calls(fixed_lstm: Exported) -> None:
    """A bundle that exists passes its proofs again."""
    prove(fixed_lstm.detector, fixed_lstm.bundle)


REDUCTION = ("ReduceSum", 14)
LOGARITHM = ("Log", 1)


@pytest.mark.parametrize(("operator", "width"), [REDUCTION, LOGARITHM])
def test_the_proof_of_invariance_finds_what_breaks_it(operator: str, width: int) -> None:
    """Negative control: a sum over 14 floats, or a logarithm one float wide, is caught; so it would be in a graph."""
    session = _tiny_graph(operator)
    random = np.random.default_rng(3)
    wave = [random.uniform(0.1, 3, (257, width)).astype(np.float32)]
    with pytest.raises(BundleError, match="output 0 of a row depends on its wave"):
        check_invariance(lambda x: session.run(None, {"x": x}), wave, operator)


def test_the_proof_of_invariance_passes_what_holds() -> None:
    """The same with the forms that the graph uses instead: a norm, and whole vectors of logarithms."""
    random = np.random.default_rng(3)
    for operator, width in (("ReduceL2", 14), ("Log", 8)):
        session = _tiny_graph(operator)
        wave = [random.uniform(0.1, 3, (257, width)).astype(np.float32)]
        check_invariance(lambda x, run=session.run: run(None, {"x": x}), wave, operator)


def _tiny_graph(operator: str) -> onnxruntime.InferenceSession:
    """A graph of one operator, under the daemon's settings."""
    helper = onnx.helper
    inputs, attributes, constants = ["x"], {}, []
    if operator.startswith("Reduce"):
        inputs.append("axes")
        constants.append(helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1]))
        attributes["keepdims"] = 1
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"], **attributes)],
        operator,
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["B", "W"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["B", None])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", exporter.OPSET)], ir_version=10)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), _options(onnxruntime), providers=["CPUExecutionProvider"]
    )
