"""Further inputs: how a bundle declares them, what a session feeds, and what a configuration may ask of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector import bundles
from detector.engine import Detector
from detector.errors import BundleError, ConfigurationError
from detector.model.bundle import Bundle, read_bundle
from detector.model.further import KNOWN, Extra, Repeated, fault_of
from detector.model.session import Session, _random_wave
from detector.scoring import engine_factory, score_arrays
from detector.settings import DetectorSettings
from tests.golden import learner

GOLDEN = Path(__file__).parents[1] / "golden"
OLD = read_bundle(GOLDEN / "tiny-any.onnx")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(learner.PATH)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Session:
    return Session(bundle)


# The session ----------------------------------------------------------------------------------------------------------


def test_a_bundle_declares_what_its_graph_takes(bundle: Bundle) -> None:
    """One float a row, or one for every channel; bundles of before declare none."""
    assert bundle.inputs == KNOWN
    assert [bundle.inputs[name].width(7) for name in ("learning", "role")] == [1, 7]
    assert Extra([3], "float32", 0.0).width(7) == 3
    assert OLD.inputs == {}


@pytest.mark.parametrize("channels", [1, 2, 5, 64])
def test_rows_of_which_unlike_things_are_said_have_their_own_bits(session: Session, channels: int) -> None:
    """The self-test mixes rows that learn and rows that do not, with roles of every kind."""
    session.self_test(channels)


def test_control_a_row_that_takes_its_neighbours_role_is_caught(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: a step in which the first row's inputs are everybody's fails the self-test."""
    honest = session.step

    def leaning(*wave: Any) -> Any:
        *given, further = wave if len(wave) == 6 else (*wave, {})
        return honest(*given, {name: np.repeat(part[:1], len(part), axis=0) for name, part in further.items()})

    monkeypatch.setattr(session, "step", leaning)
    with pytest.raises(BundleError, match="depends on the wave it is in"):
        session.self_test(3)


@pytest.mark.parametrize("channels", [3, 2, 1])
def test_what_is_not_said_is_the_default(session: Session, channels: int) -> None:
    """Bit for bit, for any channels in any order; what is said of one input leaves the other at its default."""
    wave = _random_wave(session.bundle, channels, 5)
    all_said = {"learning": np.ones((5, 1), np.float32), "role": np.zeros((5, channels), np.float32)}
    for said in ({}, {"learning": all_said["learning"]}, all_said):
        assert same(session.step(*wave, said), session.step(*wave))
    assert not same(session.step(*wave, {"learning": 0 * all_said["learning"]}), session.step(*wave))


def test_defaults_are_made_once_for_many_waves() -> None:
    """A wave of a size that was there before takes no memory anew, and none can write to what others read."""
    repeated = Repeated(np.float32([1, 2]))
    large = repeated.rows(100)
    assert large.tolist() == [[1, 2]] * 100
    assert np.shares_memory(repeated.rows(7), large)
    assert repeated.rows(7).flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        repeated.rows(7)[0] = 0


def test_what_the_graph_does_not_take_is_refused(session: Session) -> None:
    """Instead of being lost without a word."""
    wave = _random_wave(session.bundle, 2, 1)
    with pytest.raises(BundleError, match=r"further inputs: expected \['learning', 'role'\], got \['rule'\]"):
        session.step(*wave, {"rule": np.zeros((1, 1), np.float32)})


@pytest.mark.parametrize(
    ("name", "extra", "expected"),
    [
        ("setpoint", Extra([4], "float32", 0.5), None),
        ("setpoint", Extra([], "float64", 0.5), "type float32"),
        ("setpoint", Extra(["C", 2], "float32", 0.5), 'shape [], [n] or ["C"]'),
        ("setpoint", Extra([0], "float32", 0.5), 'shape [], [n] or ["C"]'),
        ("setpoint", Extra([], "float32"), "a number as default"),
        ("learning", Extra([], "float32", 0.0), str(KNOWN["learning"])),
        ("role", Extra([], "float32", 0.0), str(KNOWN["role"])),
    ],
)
def test_a_declaration_must_make_sense(name: str, extra: Extra, expected: str | None) -> None:
    """Of rank 2 with the wave's axis, float32, with a default; those that the daemon feeds as the contract has them."""
    fault = fault_of(name, extra)
    assert (fault and fault[0]) == expected


# The configuration ----------------------------------------------------------------------------------------------------


def made(bundle: Bundle, **settings: Any) -> Detector:
    """A detector that is not run."""
    return Detector("pumps", DetectorSettings(**settings), bundle, session=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"roles": {"flow": "target"}}, "roles: tiny-any@1 cannot follow it: expected a bundle with the input 'role'"),
        ({"freeze": [{"stream": "a", "from": 5}]}, "freeze: tiny-any@1 .* the input 'learning', got one with no furth"),
    ],
)
def test_a_bundle_without_the_input_refuses(setting: dict[str, Any], message: str) -> None:
    """Before anything starts, and says which bundle can; without the setting it works as ever."""
    with pytest.raises(ConfigurationError, match=rf"detectors\.pumps\.{message}.*\(take one in the box \(.*default"):
        made(OLD, **setting)
    made(OLD)


def test_roles_must_be_of_channels_that_are_there(bundle: Bundle) -> None:
    """Where they are known; and something must be left to judge by."""
    made(bundle, roles={"anything": "context"})
    made(bundle, roles={"flow": "target"}, channels=["flow", "load"])
    with pytest.raises(ConfigurationError, match="roles: channel: expected one of flow, load, got flwo"):
        made(bundle, roles={"flwo": "target"}, channels=["flow", "load"])
    with pytest.raises(ConfigurationError, match="nothing is left to judge by"):
        made(bundle, roles={"flow": "context", "load": "context"}, channels=["flow", "load"])


def test_context_is_not_judged_and_targets_are(bundle: Bundle) -> None:
    """A step in a channel scores unless the channel is context; the blame falls on the others then."""
    values = np.zeros((40, 2))
    values[30:, 1] = 8.0
    feed = {"pump": (np.arange(40) * 10**9, values)}

    def score(**roles: str) -> Any:
        settings = DetectorSettings(roles=roles, channels=["flow", "load"])
        return score_arrays(engine_factory(bundle, settings, detail=True), feed, ["flow", "load"], detail=True)["pump"]

    for roles in ({}, {"load": "target"}, {"load": "auto"}, {"flow": "context"}):
        found = score(**roles)
        assert found.score[30] == 8
        assert found.detail.blame[30].tolist() == [0, 1]
    found = score(load="context")
    assert not found.score.any()
    assert found.detail.blame[30].tolist() == [1, 0]


def test_bundles_in_the_box_have_names() -> None:
    """Any file in the box; a word that is none of them is told what there is, a path is taken as one."""
    assert "default" in bundles.in_the_box()
    assert bundles.locate("default") == bundles.default_path()
    assert bundles.locate("./default") == Path("default")
    assert bundles.locate("some/where.onnx") == Path("some/where.onnx")
    with pytest.raises(BundleError, match="lihgt: no such bundle: expected a path, or one in the box: default"):
        bundles.locate("lihgt")


def same(one: Any, other: Any) -> bool:
    """Whether two outputs are equal, bit for bit."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))
