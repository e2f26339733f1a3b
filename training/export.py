"""Export: a detector becomes one ONNX file with its metadata, or an error that says why it must not.

`export` converts `Detector.step` by `torch.onnx.export(dynamo=True)` with a dynamic number of rows (and of channels
for `any`), writes the metadata of docs/contract.md, and then has the file proved (proofs.py) on the very runtime
and settings of the daemon, before it gets its name: a bundle that exists has passed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import logging
import platform
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import onnx
import onnxruntime
import torch
from torch import Tensor

from detector import __version__
from detector.model.bundle import FORMAT, METADATA_KEY, read_bundle
from detector.model.further import KNOWN
from detector.model.session import INPUTS, OUTPUTS
from training.graph import Detector
from training.graph.detector import CLOCK_FEATURES
from training.proofs import prove

OPSET = 20
_BROADCASTING = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Greater", "Less", "LessOrEqual", "GreaterOrEqual"}
TOLERANCE = {"score": 0.05, "state": 0.01}


def export(
    detector: Detector, path: Path | str, *, name: str, version: str, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Write a proved bundle.

    Args:
        detector: What to export; its parameters and priors as they are.
        path: Where the file goes; an existing one is replaced only by one that passed.
        name: Which detector this is.
        version: Which version of it.
        metadata: Further keys of the contract: `decide`, `data`, `commit`, `calibration`, `description`.

    Raises:
        BundleError: the graph failed a proof; nothing is left behind.
    """
    path = Path(path)
    detector.eval()
    model = _convert(detector)
    document = _document(detector, name, version, metadata or {}, _graph_checksum(model))
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(document, sort_keys=True)})
    draft = path.with_name(path.name + ".draft")
    try:
        draft.write_bytes(model.SerializeToString())
        prove(detector, read_bundle(draft))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _convert(detector: Detector) -> onnx.ModelProto:
    """Turn `step` into a graph of standard operators, rows dynamic, channels too for `any`."""
    shape = detector.shape
    channels = len(shape.channels) if shape.channels else 5
    rows = 7
    sample = (
        torch.zeros(rows, channels, dtype=torch.float64),
        torch.ones(rows, channels),
        torch.ones(rows, 1),
        torch.zeros(rows, CLOCK_FEATURES),
        detector.initial_row(channels).repeat(rows, 1),
        torch.ones(rows, 1),
        torch.zeros(rows, channels),
    )
    B = torch.export.Dim("B", min=1, max=1 << 20)
    free: dict[int, Any] = {0: B}
    by_channel, row = free, free
    if shape.mode == "any":
        C = torch.export.Dim("C", min=1, max=1 << 12)
        by_channel, row = {0: B, 1: C}, {0: B, 1: detector.channel_width * C + detector.joint_width}
    with _quiet():
        program = torch.onnx.export(
            detector,
            sample,
            dynamo=True,
            opset_version=OPSET,
            input_names=[*INPUTS, *KNOWN],
            output_names=list(OUTPUTS),
            dynamic_shapes=(by_channel, by_channel, free, free, row, free, by_channel),
            verbose=False,
        )
    model = program.model_proto
    for node in (*model.graph.node, *model.graph.value_info):
        node.ClearField("metadata_props")  # the exporter's stack traces: paths of this machine, and twice the size
        node.ClearField("doc_string")
    _sum_squares(model.graph)
    _lift_scalars(model.graph)
    return model


def _sum_squares(graph: onnx.GraphProto) -> None:
    """Let one operator square and sum, where the exporter writes two."""
    made = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "ReduceSum":
            product = made.get(node.input[0])
            if product is not None and product.op_type == "Mul" and product.input[0] == product.input[1]:
                node.op_type, node.input[0] = "ReduceSumSquare", product.input[0]
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    unread = [node for node in graph.node if not read.intersection(node.output)]
    for node in unread:
        graph.node.remove(node)


def _lift_scalars(graph: onnx.GraphProto) -> None:
    """Give scalar constants the rank of what they meet.

    ONNX Runtime 1.31 adds () to (1024, 1, 1) in 7 us, row by row, and (1, 1, 1) to it in 0.3 us.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.input, *graph.value_info)}
    for node in graph.node:
        if node.op_type not in _BROADCASTING:
            continue
        rank = max(ranks.get(name, 0) for name in node.input)
        for position, name in enumerate(node.input):
            if rank and name in constants and not constants[name].dims:
                lifted = f"{name}_rank_{rank}"
                if lifted not in constants:
                    constants[lifted] = graph.initializer.add()
                    constants[lifted].CopyFrom(constants[name])
                    constants[lifted].name = lifted
                    constants[lifted].dims.extend([1] * rank)
                node.input[position] = lifted
    used = {name for node in graph.node for name in node.input}
    unused = [tensor for tensor in graph.initializer if tensor.name not in used]
    for tensor in unused:  # ONNX Runtime would warn of each
        graph.initializer.remove(tensor)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns and prints about itself; what matters of it is proved afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _graph_checksum(model: onnx.ModelProto) -> str:
    return hashlib.sha256(model.graph.SerializeToString()).hexdigest()


def _document(
    detector: Detector, name: str, version: str, further: Mapping[str, Any], graph_sha256: str
) -> dict[str, Any]:
    shape = detector.shape
    channels = list(shape.channels) if shape.channels else None
    return {
        "format": FORMAT,
        "name": name,
        "version": version,
        "channels": {
            "mode": shape.mode,
            "names": channels,
            "units": list(shape.units) if shape.units else None,
            "kinds": ["number"] * len(channels) if channels else None,
        },
        "state": {"joint": detector.joint_width, "per_channel": detector.channel_width},
        "row_layout": detector.row_layout(),
        "initial": {"joint": _base64(detector.initial_joint), "per_channel": _base64(detector.initial_channel)},
        "clock_features": CLOCK_FEATURES,
        "inputs": msgspec.to_builtins(KNOWN),
        "outputs": {},
        "period_s": shape.period_s,
        "warm_up": shape.warm_up,
        "band_level": shape.band_level,
        "decide": {"budget_per_day": 1.0, "exceedances_per_alarm": 3.0, "threshold_nines": None},
        "tolerance": TOLERANCE,
        "versions": {
            "tidewarden": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
        },
        "graph_sha256": graph_sha256,
        "shape": shape.as_dict(),
        **further,
    }


def _base64(tensor: Tensor) -> str:
    return base64.b64encode(tensor.detach().cpu().numpy().astype("<f4").tobytes()).decode()
