"""The smallest bundle that takes the further inputs; `python -m tests.golden.learner` made it.

Each channel has a mean, which it learns, and its last value, which it keeps whatever the operator says; the stream
counts its samples. A sample is as strange as the target farthest from its mean, one nine a unit; what is `auto`
counts as a target. Simple enough to say what must come out, and real enough for ONNX Runtime.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

PATH = Path(__file__).with_name("learner.onnx")
RATE = 0.125  # of the mean; as in the graph


_GRAPH = """
learner (
    double[B, C] values, float[B, C] observed, float[B, 1] elapsed, float[B, 4] clock, float[B, S] state,
    float[B, 1] learning, float[B, C] role
) => (
    float[B, 1] score, float[B, C] blame, double[B, C] expected, double[B, C] lower, double[B, C] upper,
    float[B, S] next_state
) <
    int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] end = {2147483648},
    int64[3] by_two = {0, -1, 2}, int64[2] flat = {0, -1},
    float half = {0.5}, float one_s = {1.0}, float most_samples = {16777216.0}, float most_nines = {15.0},
    float rate = {0.125}, float[2] off_on = {0.0, 1.0},
    double one_d = {1.0}, double low = {-1e15}, double high = {1e15}
> {
    samples = Slice (state, zero, one, one)
    rest = Slice (state, one, end, one)
    blocks = Reshape (rest, by_two)
    means, lasts = Split <axis = 2, num_outputs = 2> (blocks)
    mean = Squeeze (means, two)
    last = Squeeze (lasts, two)

    is_nan = IsNaN (values)
    is_number = Not (is_nan)
    is_there = Greater (observed, half)
    is_known = And (is_number, is_there)
    bounded = Clip (values, low, high)
    single = Cast <to = 1> (bounded)
    value = Where (is_known, single, mean)
    away = Sub (value, mean)

    distance = Abs (away)
    context = Neg (role)
    is_target = Less (context, half)
    weight = Cast <to = 1> (is_target)
    strange = Mul (distance, weight)
    worst = ReduceMax <keepdims = 1> (strange, one)
    score = Min (worst, most_nines)
    which = ArgMax <axis = 1, keepdims = 0> (strange)
    shape = Shape (values)
    channels = Gather (shape, one)
    blame = OneHot (which, channels, off_on)
    expected = Cast <to = 11> (mean)
    lower = Sub (expected, one_d)
    upper = Add (expected, one_d)

    own_rate = Mul (learning, rate)
    change = Mul (away, own_rate)
    next_mean = Add (mean, change)
    next_last = Where (is_known, single, last)
    next_means = Unsqueeze (next_mean, two)
    next_lasts = Unsqueeze (next_last, two)
    next_blocks = Concat <axis = 2> (next_means, next_lasts)
    next_rest = Reshape (next_blocks, flat)
    more = Add (samples, one_s)
    next_samples = Min (more, most_samples)
    next_state = Concat <axis = 1> (next_samples, next_rest)
}
"""


def main() -> None:
    """Write the bundle."""
    import onnx.parser  # not in the daemon's environment, which only reads the file

    graph = onnx.parser.parse_graph(_GRAPH)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    sha256 = hashlib.sha256(model.graph.SerializeToString()).hexdigest()
    onnx.helper.set_model_props(model, {"tidewarden": json.dumps(_document(sha256), sort_keys=True)})
    onnx.checker.check_model(model)
    PATH.write_bytes(model.SerializeToString())


def _document(sha256: str) -> dict[str, Any]:
    return {
        "format": 1,
        "name": "learner",
        "version": "1",
        "channels": {"mode": "any", "names": None, "units": None, "kinds": None},
        "state": {"joint": 1, "per_channel": 2},
        "row_layout": [
            {"name": "samples", "scope": "joint", "offset": 0, "shape": [], "version": 1},
            {"name": "mean", "scope": "channel", "offset": 0, "shape": [], "version": 1},
            {"name": "last", "scope": "channel", "offset": 1, "shape": [], "version": 1},
        ],
        "initial": {"joint": _floats(1), "per_channel": _floats(2)},
        "clock_features": 4,
        "inputs": {
            "learning": {"shape": [], "type": "float32", "default": 1.0},
            "role": {"shape": ["C"], "type": "float32", "default": 0.0},
        },
        "outputs": {},
        "period_s": None,
        "warm_up": 0,
        "band_level": 0.98,
        "decide": {"budget_per_day": 1.0, "exceedances_per_alarm": 1.0, "threshold_nines": 2.0},
        "tolerance": {"score": 1e-5, "state": 1e-5},
        "graph_sha256": sha256,
        "description": "A mean per channel; for tests.",
    }


def _floats(count: int) -> str:
    return base64.b64encode(np.zeros(count, "<f4").tobytes()).decode()


if __name__ == "__main__":
    main()
