"""The only door to ONNX Runtime: runs a bundle's `step` on waves of rows.

A session is set up so that what it computes for a row depends on that row alone: one thread per call, sequential,
constant weights prepacked. Parallelism is several waves at once, each call on its own thread. `self_test` proves it
on the machine at hand before the daemon reports ready.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.errors import BundleError, ConfigurationError
from detector.model.bundle import Bundle
from detector.model.further import LEARNING, ROLE, ROLES, Extra, Repeated
from detector.records import Float32, Float64

INPUTS = ("values", "observed", "elapsed", "clock", "state")
OUTPUTS = ("score", "blame", "expected", "lower", "upper", "next_state")

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_FLOAT64 = {"values", "expected", "lower", "upper"}
_NOTHING: Mapping[str, Float32] = MappingProxyType({})
_ERRORS = 3  # ONNX Runtime's log level; it warns of what is normal here
_TEST_ROWS, _TEST_SIZES = 64, (7, 64, 256)


class Wave(NamedTuple):
    """What a step takes; see docs/contract.md."""

    values: Float64
    """(B, C) raw units."""
    observed: Float32
    """(B, C)."""
    elapsed: Float32
    """(B, 1) seconds."""
    clock: Float32
    """(B, K)."""
    state: Float32
    """(B, S)."""


class StepOutput(NamedTuple):
    """What came of a wave; see docs/contract.md."""

    score: Float32
    """(B,) nines."""
    blame: Float32
    """(B, C)."""
    expected: Float64
    """(B, C) raw units, as lower and upper."""
    lower: Float64
    upper: Float64
    next_state: Float32
    """(B, S)."""


class Session:
    """A bundle ready to run. Safe to call from several threads at once.

    Args:
        bundle: What to run.
        device: `cpu`, `cuda`, or `auto`: CUDA where ONNX Runtime has it, else the CPU.
    """

    def __init__(self, bundle: Bundle, device: Literal["auto", "cpu", "cuda"] = "cpu") -> None:
        ort = _runtime()
        self.bundle = bundle
        self.provider = _choose_provider(ort, device)
        self.numerics = _fingerprint(ort.__version__, self.provider)
        """Names everything besides the bundle that decides the bits: equal text, equal bits."""
        self._defaults: dict[tuple[str, int], Repeated] = {}
        try:
            self._session = ort.InferenceSession(bundle.model_bytes, _options(ort), providers=[self.provider])
        except Exception as error:  # ONNX Runtime's own classes are not importable by name in every version
            raise BundleError(bundle.path, "ONNX Runtime cannot load the graph", got=error) from error
        if self.provider not in self._session.get_providers():
            # ONNX Runtime would go on with another provider and only log it.
            raise _missing(device, f"{self.provider} did not start; see ONNX Runtime's message above")
        self._check_signature()

    def step(
        self,
        values: Float64,
        observed: Float32,
        elapsed: Float32,
        clock: Float32,
        state: Float32,
        further: Mapping[str, Float32] = _NOTHING,
    ) -> StepOutput:
        """Carry one wave: values (B, C), observed (B, C), elapsed (B, 1), clock (B, 4), state (B, S).

        `further` holds those of the bundle's further inputs of which something is said, each (B, width); the others
        are at their default.
        """
        feed = {"values": values, "observed": observed, "elapsed": elapsed, "clock": clock, "state": state}
        for name, extra in self.bundle.inputs.items():
            said = further.get(name)
            feed[name] = self._default(name, extra, *values.shape) if said is None else said
        if further and not further.keys() <= self.bundle.inputs.keys():
            expected = sorted(self.bundle.inputs)
            raise BundleError(self.bundle.path, "further inputs", expected=expected, got=sorted(further))
        score, *others = self._session.run(OUTPUTS, feed)
        return StepOutput(score.reshape(-1), *others)

    def _default(self, name: str, extra: Extra, rows: int, channels: int) -> Float32:
        """A further input of which nothing is said, (rows, width)."""
        width = extra.width(channels)
        repeated = self._defaults.get((name, width))
        if repeated is None:
            repeated = self._defaults[name, width] = Repeated(np.full(width, extra.default, np.float32))
        return repeated.rows(rows)

    def self_test(self, channels: int) -> None:
        """Prove that a row's bits do not depend on its wave, here and now; raises BundleError where they do."""
        rows, further = self._grown(channels), _random_further(self.bundle, channels, _TEST_ROWS)
        alone = [self._outputs(rows, further, np.array([row])) for row in range(_TEST_ROWS)]
        for size in _TEST_SIZES:
            pick = np.arange(size) * 11 % _TEST_ROWS
            for name, got, *expected in zip(
                OUTPUTS, self._outputs(rows, further, pick), *(alone[row] for row in pick), strict=True
            ):
                if got.tobytes() != np.concatenate(expected).tobytes():
                    raise BundleError(
                        self.bundle.path,
                        f"{name} of a row depends on the wave it is in (wave of {size})",
                        expected="the same bits as alone",
                        hint=f"not to be used on this machine: {self.numerics}",
                    )

    def _grown(self, channels: int) -> Wave:
        """A wave for rows that are past their warm-up, for before it there is no score to compare."""
        wave = _random_wave(self.bundle, channels, _TEST_ROWS)
        for seed in range(min(self.bundle.warm_up, 1_000) + 10):
            after = self.step(*wave).next_state
            wave = _random_wave(self.bundle, channels, _TEST_ROWS, seed)._replace(state=after)
        return wave

    def _outputs(self, rows: Wave, further: Mapping[str, Float32], pick: NDArray[np.intp]) -> StepOutput:
        said = {name: part[pick] for name, part in further.items()}
        return self.step(*Wave._make(part[pick] for part in rows), said)

    def _check_signature(self) -> None:
        """The graph must take and give what the contract says, with the row that the metadata promise."""
        given = {node.name: node for node in self._session.get_inputs()}
        taken = {node.name: node for node in self._session.get_outputs()}
        for names, nodes, kind in (
            ((*INPUTS, *self.bundle.inputs), given, "input"),
            ((*OUTPUTS, *self.bundle.outputs), taken, "output"),
        ):
            if set(names) != set(nodes):
                raise BundleError(self.bundle.path, f"graph's {kind}s", expected=sorted(names), got=sorted(nodes))
            for name in names:
                node, expected = nodes[name], "tensor(double)" if name in _FLOAT64 else "tensor(float)"
                if node.type != expected or len(node.shape) != 2:
                    got = f"{node.type} of shape {node.shape}"
                    raise BundleError(
                        self.bundle.path, f"graph's {kind} {name}", expected=f"{expected} of rank 2", got=got
                    )
        width = given["state"].shape[1]
        channels = self.bundle.channels
        if channels is not None and width != self.bundle.row_floats(len(channels)):
            floats = self.bundle.row_floats(len(channels))
            raise BundleError(self.bundle.path, "row of the graph", expected=f"{floats} floats", got=width)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError(
            "device",
            "ONNX Runtime is not installed",
            hint="install tidewarden[cpu], or tidewarden[gpu] for a machine with CUDA",
        ) from error
    return onnxruntime


def _choose_provider(ort: Any, device: str) -> str:
    available = ort.get_available_providers()
    if device == "auto":
        device = "cuda" if _PROVIDERS["cuda"] in available else "cpu"
    if _PROVIDERS[device] not in available:
        raise _missing(device, f"only {', '.join(available)}")
    return _PROVIDERS[device]


def _missing(device: str, got: str) -> ConfigurationError:
    extra = "gpu" if device in ("cuda", "auto") else "cpu"
    hint = f"install tidewarden[{extra}] in an environment without the other extra, or set device: cpu"
    return ConfigurationError(
        "device", device, expected=f"ONNX Runtime with {_PROVIDERS.get(device, device)}", got=got, hint=hint
    )


def _options(ort: Any) -> Any:
    options = ort.SessionOptions()
    # More threads would make the bits of a row depend on how a wave is cut among them.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Without it a wave of one row takes another path through the matrix product, and gets other bits.
    options.add_session_config_entry("session.disable_prepacking", "0")
    options.log_severity_level = _ERRORS
    return options


def _random_wave(bundle: Bundle, channels: int, rows: int, seed: int = 7) -> Wave:
    """A wave of unlike samples for new streams, the same on every machine."""
    random = np.random.default_rng(seed)
    observed = (random.uniform(size=(rows, channels)) < 0.9).astype(np.float32)
    observed[:, 0] = 1
    return Wave(
        random.normal(size=(rows, channels)) * 10.0 ** random.integers(-2, 4, (rows, 1)),
        observed,
        random.uniform(0.5, 90, (rows, 1)).astype(np.float32),
        random.uniform(-1, 1, (rows, bundle.clock_features)).astype(np.float32),
        np.tile(bundle.initial_row(channels), (rows, 1)),
    )


def _random_further(bundle: Bundle, channels: int, rows: int) -> dict[str, Float32]:
    """Rows of which unlike things are said: some learn, some do not, with roles of every kind."""
    random = np.random.default_rng(11)
    said = {
        LEARNING: random.integers(0, 2, (rows, 1)).astype(np.float32),
        ROLE: random.choice(np.array(list(ROLES.values()), np.float32), (rows, channels)),
    }
    return {name: part for name, part in said.items() if name in bundle.inputs}


def _fingerprint(version: str, provider: str) -> str:
    """Runtime, provider and the processor's family and abilities, on which ONNX Runtime chooses its kernels."""
    return f"onnxruntime {version} {provider} {platform.machine()} {_processor()}"


def _processor() -> str:
    """Vendor, family and a hash of the instruction sets; what of it the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return hashlib.sha256(platform.processor().encode()).hexdigest()[:12]
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = " ".join(sorted(facts.get("flags", facts.get("Features", "")).split()))
    vendor = facts.get("vendor_id", facts.get("CPU implementer", "unknown"))
    family = facts.get("cpu family", facts.get("CPU architecture", "0"))
    return f"{vendor}/{family}/{hashlib.sha256(flags.encode()).hexdigest()[:12]}"
