"""What a bundle says of itself, and how a file that is none is told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.errors import BundleError
from detector.model.bundle import METADATA_KEY, _protobuf_fields, read_bundle

GOLDEN = Path(__file__).parents[1] / "golden"
ANY, FIXED = GOLDEN / "tiny-any.onnx", GOLDEN / "tiny-fixed.onnx"
NAMES = ("flow", "head_pressure", "current", "vibration", "temperature")


def test_says_what_it_is() -> None:
    """A bundle's name, mode, channels and defaults come from its metadata, its hash from the whole file."""
    any_, fixed = read_bundle(ANY), read_bundle(FIXED)
    assert (any_.label, any_.mode, any_.channels) == ("tiny-any@1", "any", None)
    assert (fixed.label, fixed.mode, fixed.channels) == ("tiny-fixed@1", "fixed", NAMES)
    assert any_.sha256 == hashlib.sha256(ANY.read_bytes()).hexdigest()
    assert (any_.warm_up, any_.band_level, any_.period_s, any_.clock_features) == (128, 0.98, None, 4)
    assert (any_.budget_per_day, any_.exceedances_per_alarm, any_.threshold_nines) == (1.0, 3.0, None)
    assert any_.metadata["versions"]["onnxruntime"]


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_row_of_any_grows_with_channels(channels: int) -> None:
    """A row of an `any` bundle has joint + channels x per_channel floats, the same block for every channel."""
    bundle = read_bundle(ANY)
    row = bundle.initial_row(channels)
    assert row.dtype == np.float32
    assert row.shape == (bundle.row_floats(channels),) == (bundle.joint + channels * bundle.per_channel,)
    blocks = row[bundle.joint :].reshape(channels, -1)
    assert (blocks == blocks[0]).all()


def test_initial_row_is_a_copy() -> None:
    """Writing into an initial row changes no other."""
    bundle = read_bundle(ANY)
    bundle.initial_row(2)[:] = 7
    assert not (bundle.initial_row(2) == 7).all()


def test_number_of_channels_must_fit() -> None:
    """A fixed bundle takes its own number of channels, any bundle at least one."""
    with pytest.raises(BundleError, match="number of channels: expected 5, got 3"):
        read_bundle(FIXED).row_floats(3)
    with pytest.raises(BundleError, match="expected at least 1, got 0"):
        read_bundle(ANY).initial_row(0)


def test_explains_every_float_of_a_row() -> None:
    """`explain` names each float of a row exactly once, under its channel."""
    bundle = read_bundle(ANY)
    row = np.arange(bundle.row_floats(2), dtype=np.float32)
    said = bundle.explain(row, ["flow", "current"])
    assert list(said["channels"]) == ["flow", "current"]
    assert said["joint"]["samples"] == 0
    flat = [np.ravel(value) for block in (said["joint"], *said["channels"].values()) for value in block.values()]
    assert sorted(np.concatenate(flat)) == row.tolist()
    with pytest.raises(BundleError, match="row of another shape"):
        bundle.explain(row[:-1], ["flow", "current"])


def test_missing_file(tmp_path: Path) -> None:
    """A path without a file names the path and what to do."""
    with pytest.raises(BundleError, match=r"none\.onnx: cannot be read, got No such file"):
        read_bundle(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x00" * 64, b"PK\x03\x04" + b"z" * 50])
def test_other_files_are_no_bundle(tmp_path: Path, content: bytes) -> None:
    """An empty file, text, zeros, an archive: refused as no ONNX file."""
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"not a whole ONNX file|not an ONNX file"):
        read_bundle(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    """A file that was cut off anywhere is refused, with its size."""
    content = ANY.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BundleError, match="not a whole ONNX file"):
        read_bundle(path)


def test_damaged_graph(tmp_path: Path) -> None:
    """A single flipped bit among the weights is found by the graph's checksum."""
    content = bytearray(ANY.read_bytes())
    content[len(content) // 3] ^= 1
    path = tmp_path / "flipped.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"graph is damaged|not a whole ONNX file"):
        read_bundle(path)


def test_a_model_without_our_metadata(tmp_path: Path) -> None:
    """Another program's ONNX file is no bundle, and the message says what is missing."""
    graph = next(value for number, value in _protobuf_fields(memoryview(ANY.read_bytes())) if number == 7)
    path = tmp_path / "foreign.onnx"
    path.write_bytes(_field(7, bytes(graph)))
    with pytest.raises(BundleError, match="metadata under the key 'tidewarden'"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "metadata format: expected 1, got 2"),
        ({"warm_up": "long"}, r"metadata, got Expected `int`, got `str` - at `\$.warm_up`"),
        ({"warm_up": -1}, "metadata warm_up: expected 0 or more, got -1"),
        ({"band_level": 98}, "metadata band_level: expected between 0 and 1"),
        ({"state": {"joint": 9, "per_channel": 66}}, "row_layout of scope joint: expected 9 floats, got 5"),
        ({"channels": {"mode": "fixed"}}, "at least one name for fixed"),
        ({"channels": {"mode": "some"}}, "metadata, got Invalid enum value 'some'"),
        ({"initial": {"joint": "AAAA", "per_channel": "AAAA"}}, "initial.joint: expected 5 float32, got 3 bytes"),
        ({"initial": {"joint": "?", "per_channel": "AAAA"}}, "metadata initial.joint: expected base64"),
    ],
)  # fmt: skip
def test_metadata_that_does_not_hold(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """What is wrong in the metadata is named with its key, the expected and the found."""
    with pytest.raises(BundleError, match=message):
        read_bundle(_rewritten(tmp_path, change))


def test_unknown_metadata_are_kept(tmp_path: Path) -> None:
    """A key that a later version adds does no harm and can be seen."""
    assert read_bundle(_rewritten(tmp_path, {"colour": "blue"})).metadata["colour"] == "blue"


def _rewritten(folder: Path, change: dict[str, Any]) -> Path:
    """The golden bundle with other metadata."""
    parts = list(_protobuf_fields(memoryview(ANY.read_bytes())))
    graph = next(bytes(value) for number, value in parts if number == 7)
    document = {**read_bundle(ANY).metadata, **change}
    entry = _field(1, METADATA_KEY.encode()) + _field(2, json.dumps(document).encode())
    path = folder / "rewritten.onnx"
    path.write_bytes(_field(7, graph) + _field(14, entry))
    return path


def _field(number: int, content: bytes) -> bytes:
    """One length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
