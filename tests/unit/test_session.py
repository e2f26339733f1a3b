"""The door to ONNX Runtime: what it promises, and how it says what is missing."""

from __future__ import annotations

import dataclasses
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from detector.errors import BundleError, ConfigurationError
from detector.model.bundle import Bundle, read_bundle
from detector.model.session import Session, _random_wave

pytest.importorskip("onnxruntime")
import onnxruntime

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module", params=["any", "fixed"])
def session(request: pytest.FixtureRequest) -> Session:
    return Session(read_bundle(GOLDEN / f"tiny-{request.param}.onnx"), "cpu")


def test_shapes_and_types_are_those_of_the_contract(session: Session) -> None:
    """A step gives every output in the shape and type that the contract names."""
    said = session.step(*_random_wave(session.bundle, 5, 3))
    assert said.score.shape == (3,)
    assert said.blame.shape == said.expected.shape == said.lower.shape == said.upper.shape == (3, 5)
    assert said.next_state.shape == (3, session.bundle.row_floats(5))
    assert {said.score.dtype, said.blame.dtype, said.next_state.dtype} == {np.dtype(np.float32)}
    assert {said.expected.dtype, said.lower.dtype, said.upper.dtype} == {np.dtype(np.float64)}


def test_self_test_holds_on_this_machine(session: Session) -> None:
    """A row's bits do not depend on its wave, here."""
    session.self_test(5)


def test_self_test_finds_rows_that_lean_on_their_neighbours(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a step whose last bit depends on the size of its wave fails the self-test."""
    honest = session.step

    def leaning(values: np.ndarray, *others: np.ndarray) -> object:
        said = honest(values, *others)
        said.score[:] = np.nextafter(said.score, np.float32(len(values)), dtype=np.float32)
        return said

    monkeypatch.setattr(session, "step", leaning)
    with pytest.raises(BundleError, match="score of a row depends on the wave it is in"):
        session.self_test(5)


def test_threads_share_a_session(session: Session) -> None:
    """Waves on several threads at once give the bits that they give one after another."""
    waves = [tuple(part[np.arange(64) >= i] for part in _random_wave(session.bundle, 5, 64)) for i in range(4)]
    expected = [session.step(*wave).next_state.tobytes() for wave in waves]
    got: list[list[bytes]] = [[] for _ in waves]

    def work(which: int) -> None:
        got[which] = [session.step(*waves[which]).next_state.tobytes() for _ in range(20)]

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert got == [[bits] * 20 for bits in expected]


def test_numerics_name_runtime_provider_and_processor(session: Session) -> None:
    """The fingerprint names what decides the bits, and is the same for every bundle."""
    other = Session(read_bundle(GOLDEN / "tiny-any.onnx"), "cpu")
    assert session.numerics == other.numerics
    assert session.numerics.startswith(f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider ")


def test_missing_provider_says_what_to_install(any_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is asked for and missing is an error, never a silent fall-back."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigurationError, match=r"cuda: expected .*CUDAExecutionProvider.*tidewarden\[gpu\]"):
        Session(any_bundle, "cuda")
    assert Session(any_bundle, "auto").provider == "CPUExecutionProvider"


def test_provider_that_does_not_start_is_an_error(any_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA that is listed but cannot start: ONNX Runtime would go on with the CPU; we do not."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda model, options, providers: real(model, options, providers=both[1:])
    )
    with pytest.raises(ConfigurationError, match="did not start"):
        Session(any_bundle, "cuda")


def test_missing_runtime_says_what_to_install(any_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ONNX Runtime the error names both extras."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigurationError, match=r"not installed .*tidewarden\[cpu\], or tidewarden\[gpu\]"):
        Session(any_bundle)


def test_graph_that_does_not_load(any_bundle: Bundle) -> None:
    """What ONNX Runtime refuses is a bundle error with the file's name."""
    with pytest.raises(BundleError, match=r"tiny-any\.onnx: ONNX Runtime cannot load"):
        Session(dataclasses.replace(any_bundle, model_bytes=b"\x08\x08"))


def test_graph_that_does_not_fit_its_metadata(any_bundle: Bundle) -> None:
    """A row of another length than the metadata promise, or inputs that they do not name, are refused at once."""
    fixed = read_bundle(GOLDEN / "tiny-fixed.onnx")
    with pytest.raises(BundleError, match=r"row of the graph: expected \d+ floats, got \d+"):
        Session(dataclasses.replace(fixed, joint=fixed.joint + 1))
    with pytest.raises(BundleError, match=r"graph's inputs: expected .*setpoint"):
        Session(dataclasses.replace(any_bundle, inputs={"setpoint": None}))


@pytest.fixture(scope="module")
def any_bundle() -> Bundle:
    return read_bundle(GOLDEN / "tiny-any.onnx")
