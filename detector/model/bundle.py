"""The bundle: one ONNX file that is a whole detector, with its metadata (docs/contract.md).

`read_bundle` reads and checks it without ONNX Runtime: it finds the metadata among the file's top-level protobuf
fields, verifies the graph's checksum and the metadata's own consistency, and answers what the daemon asks: how long
a row is, what a new row holds, what the fields of a row are called. It never looks at the arithmetic; running it is
session.py's work.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from detector.errors import BundleError
from detector.model.further import Extra, fault_of
from detector.model.offline import check_streams
from detector.model.rows import RowField, RowLayout
from detector.records import Float32

FORMAT = 1
METADATA_KEY = "tidewarden"

_GRAPH, _METADATA = 7, 14  # ModelProto.graph and ModelProto.metadata_props
_EXPORT_AGAIN = "export the bundle again, or name the right file"


class _Channels(msgspec.Struct):
    mode: Literal["any", "fixed"]
    names: list[str] | None = None
    units: list[str | None] | None = None
    kinds: list[Literal["number"]] | None = None


class _State(msgspec.Struct):
    joint: int
    per_channel: int


class _Initial(msgspec.Struct):
    joint: str
    per_channel: str


class _Decide(msgspec.Struct):
    budget_per_day: float | None = 1.0
    exceedances_per_alarm: float = 3.0
    threshold_nines: float | None = None


class Tolerance(msgspec.Struct, frozen=True):
    """How closely another runtime must agree: score absolute, state relative."""

    score: float
    state: float


class _Metadata(msgspec.Struct):
    """The document under the key `tidewarden`; keys that this version does not know are kept and ignored."""

    format: int
    name: str
    version: str
    channels: _Channels
    state: _State
    row_layout: list[RowField]
    initial: _Initial
    graph_sha256: str
    warm_up: int
    band_level: float
    tolerance: Tolerance
    clock_features: int = 4
    period_s: float | None = None
    decide: _Decide = msgspec.field(default_factory=_Decide)
    inputs: dict[str, Extra] = msgspec.field(default_factory=dict)
    outputs: dict[str, Extra] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A detector that was read and found whole. Two bundles are the same when their `sha256` are."""

    path: Path
    sha256: str
    """Of the whole file; checkpoints name it."""
    graph_sha256: str
    """Of the graph alone: equal ones compute the same, whatever the metadata say."""
    name: str
    version: str
    mode: Literal["any", "fixed"]
    channels: tuple[str, ...] | None
    """Channel names in order; None where the bundle takes any number of channels."""
    units: tuple[str | None, ...] | None
    joint: int
    """Floats of the row that belong to the stream: b."""
    per_channel: int
    """Floats of the row for every channel: a."""
    clock_features: int
    period_s: float | None
    """Nominal seconds between samples; None where each stream has its own."""
    warm_up: int
    """Samples of a new stream during which the score is 0."""
    band_level: float
    budget_per_day: float | None
    exceedances_per_alarm: float
    threshold_nines: float | None
    tolerance: Tolerance
    row_layout: tuple[RowField, ...]
    inputs: dict[str, Extra]
    """Further inputs that the graph takes; see further.py."""
    outputs: dict[str, Extra]
    metadata: dict[str, Any] = field(repr=False)
    """The whole document, for people."""
    model_bytes: bytes = field(repr=False)
    _initial_joint: Float32 = field(repr=False)
    _initial_channels: Float32 = field(repr=False)

    @property
    def label(self) -> str:
        """What alerts call it: name@version."""
        return f"{self.name}@{self.version}"

    @property
    def layout(self) -> RowLayout:
        """What a checkpoint remembers of the rows that this bundle makes."""
        return RowLayout(self.graph_sha256, self.row_layout)

    def row_floats(self, channels: int) -> int:
        """Floats in the row of a stream with so many channels."""
        self._check_channels(channels)
        return self.joint + channels * self.per_channel

    def initial_row(self, channels: int) -> Float32:
        """A new stream's row (S,), a fresh copy."""
        self._check_channels(channels)
        blocks = self._initial_channels
        return np.concatenate([self._initial_joint, np.tile(blocks, channels) if self.mode == "any" else blocks])

    def explain(self, row: Float32, channels: Sequence[str]) -> dict[str, Any]:
        """Name what a row holds: `{"joint": {field: value}, "channels": {channel: {field: value}}}`."""
        expected = self.row_floats(len(channels))
        if row.shape != (expected,):
            raise BundleError(self.path, "row of another shape", expected=(expected,), got=row.shape)
        return self.layout.explain(row, channels)

    def _check_channels(self, channels: int) -> None:
        if channels < 1 or (self.channels is not None and channels != len(self.channels)):
            expected = len(self.channels) if self.channels is not None else "at least 1"
            raise BundleError(self.path, "number of channels", expected=expected, got=channels)


def read_bundle(path: Path | str) -> Bundle:
    """Read and verify a bundle; raises BundleError that says what is wrong with the file."""
    path = Path(path)
    check_streams(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(path, "cannot be read", got=error.strerror or error, hint=_EXPORT_AGAIN) from error
    graph, document = _find_parts(path, content)
    metadata = _parse(path, document)
    found = hashlib.sha256(graph).hexdigest()
    if found != metadata.graph_sha256:
        raise BundleError(
            path, "graph is damaged", expected=f"sha256 {metadata.graph_sha256}", got=found, hint=_EXPORT_AGAIN
        )
    joint, channels = _initial_blocks(path, metadata)
    names, units = metadata.channels.names, metadata.channels.units
    return Bundle(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        graph_sha256=found,
        name=metadata.name,
        version=metadata.version,
        mode=metadata.channels.mode,
        channels=None if names is None else tuple(names),
        units=None if units is None else tuple(units),
        joint=metadata.state.joint,
        per_channel=metadata.state.per_channel,
        clock_features=metadata.clock_features,
        period_s=metadata.period_s,
        warm_up=metadata.warm_up,
        band_level=metadata.band_level,
        budget_per_day=metadata.decide.budget_per_day,
        exceedances_per_alarm=metadata.decide.exceedances_per_alarm,
        threshold_nines=metadata.decide.threshold_nines,
        tolerance=metadata.tolerance,
        row_layout=tuple(metadata.row_layout),
        inputs=metadata.inputs,
        outputs=metadata.outputs,
        metadata=msgspec.json.decode(document),
        model_bytes=content,
        _initial_joint=joint,
        _initial_channels=channels,
    )


def _find_parts(path: Path, content: bytes) -> tuple[memoryview, bytes]:
    """The graph's bytes and our metadata document, out of the ONNX file."""
    graph: memoryview | None = None
    document: bytes | None = None
    try:
        for number, value in _protobuf_fields(memoryview(content)):
            if number == _GRAPH:
                graph = value
            elif number == _METADATA:
                entry = dict(_protobuf_fields(value))
                if bytes(entry.get(1, b"")) == METADATA_KEY.encode():
                    document = bytes(entry.get(2, b""))
    except (ValueError, IndexError) as error:
        raise BundleError(path, "not a whole ONNX file", got=f"{len(content)} bytes", hint=_EXPORT_AGAIN) from error
    if graph is None:
        raise BundleError(path, "not an ONNX file", expected="a model with a graph", hint=_EXPORT_AGAIN)
    if document is None:
        raise BundleError(
            path, "not a bundle", expected=f"metadata under the key {METADATA_KEY!r}", got="none", hint=_EXPORT_AGAIN
        )
    return graph, document


def _protobuf_fields(buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Fields of a protobuf message in order, those with length as a view, numbers as an empty one.

    Raises ValueError or IndexError where the buffer is no whole message.
    """
    position = 0
    while position < len(buffer):
        tag, position = _varint(buffer, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            _, position = _varint(buffer, position)
            yield number, buffer[:0]
            continue
        length = {1: 8, 5: 4}.get(kind)
        if length is None:
            if kind != 2 or number == 0:
                raise ValueError(f"wire type {kind}")
            length, position = _varint(buffer, position)
        if position + length > len(buffer):
            raise ValueError("cut off")
        yield number, buffer[position : position + length]
        position += length


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = buffer[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("number too long")


def _parse(path: Path, document: bytes) -> _Metadata:
    """Decode the metadata and check what its types alone do not say."""
    try:
        version = msgspec.json.decode(document, type=dict[str, Any]).get("format")
        if version != FORMAT:
            raise BundleError(path, "metadata format", expected=FORMAT, got=version, hint="update tidewarden")
        metadata = msgspec.json.decode(document, type=_Metadata)
    except msgspec.MsgspecError as error:
        raise BundleError(path, "metadata", got=error, hint=_EXPORT_AGAIN) from error
    names = metadata.channels.names
    checks = {
        "state.joint": (metadata.state.joint >= 1, "at least 1", metadata.state.joint),
        "state.per_channel": (metadata.state.per_channel >= 1, "at least 1", metadata.state.per_channel),
        "warm_up": (metadata.warm_up >= 0, "0 or more", metadata.warm_up),
        "band_level": (0 < metadata.band_level < 1, "between 0 and 1", metadata.band_level),
        "channels.names": (
            (names is None) if metadata.channels.mode == "any" else bool(names),
            "null for mode any, at least one name for fixed",
            names,
        ),
        "clock_features": (metadata.clock_features == 4, 4, metadata.clock_features),
    }
    for key, (holds, expected, got) in checks.items():
        if not holds:
            raise BundleError(path, f"metadata {key}", expected=expected, got=got, hint=_EXPORT_AGAIN)
    for name, extra in metadata.inputs.items():
        if fault := fault_of(name, extra):
            what = f"metadata inputs.{name}"
            raise BundleError(path, what, expected=fault[0], got=fault[1], hint=_EXPORT_AGAIN)
    for scope, width in (("joint", metadata.state.joint), ("channel", metadata.state.per_channel)):
        _check_layout(path, scope, width, [entry for entry in metadata.row_layout if entry.scope == scope])
    return metadata


def _check_layout(path: Path, scope: str, width: int, entries: list[RowField]) -> None:
    """A scope's fields must follow one another without gaps and fill its width."""
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        if entry.offset != end:
            raise BundleError(path, f"row_layout {scope}.{entry.name}", expected=f"offset {end}", got=entry.offset)
        end += entry.width
    if end != width:
        raise BundleError(path, f"row_layout of scope {scope}", expected=f"{width} floats", got=end)


def _initial_blocks(path: Path, metadata: _Metadata) -> tuple[Float32, Float32]:
    blocks = 1 if metadata.channels.names is None else len(metadata.channels.names)
    return (
        _floats(path, "initial.joint", metadata.initial.joint, metadata.state.joint),
        _floats(path, "initial.per_channel", metadata.initial.per_channel, blocks * metadata.state.per_channel),
    )


def _floats(path: Path, key: str, text: str, count: int) -> Float32:
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BundleError(path, f"metadata {key}", expected="base64", got=error) from error
    if len(content) != 4 * count:
        raise BundleError(path, f"metadata {key}", expected=f"{count} float32", got=f"{len(content)} bytes")
    floats = np.frombuffer(content, dtype="<f4").astype(np.float32)
    if not np.isfinite(floats).all():
        raise BundleError(path, f"metadata {key}", expected="finite numbers", got="NaN or infinity")
    return floats
