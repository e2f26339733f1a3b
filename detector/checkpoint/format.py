"""What a checkpoint looks like on disk: the manifest, and the segments that it names. Format version 2.

A **segment** holds rows of arenas, all numbers little-endian, every block padded with zeros to a multiple of 64 bytes:

    magic      8 bytes    "TWSEG" 0 2 newline
    length     8 bytes    of the header
    header     JSON       {"arenas": [{detector, bundle_sha256, channels, rows, streams, labels, gone, arrays}, ...]}
    per arena  streams    JSON list of keys; `streams` in the header is its length in bytes
               labels     JSON list of maps, or of length 0 where no stream has any
               gone       JSON list of keys, or of length 0 where none has left
               arrays     raw, in the header's order; {name, dtype, shape} say how to read each

The first segment of a manifest is a base, later ones replace rows of it: those that are gone go first, then rows come,
and a stream's last row counts. A **manifest** is a JSON document and a last line with its checksum. No pickle, no
padding that depends on the machine: the same rows give the same bytes everywhere.

Files of the first version stay readable for ever. They have no `gone`, and a column `samples` that is passed over: the
row itself counts. Columns of `decide` that a file lacks are as in a new stream.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, Literal, TypeAlias, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.errors import CorruptCheckpointError
from detector.model.rows import RowLayout
from detector.records import NO_TIME, ArenaRows, Shard
from detector.stages.decide import taken_over
from detector.stages.decide.columns import Rows

Block: TypeAlias = bytes | memoryview
"""A part of a file, to be written as it is; rows are never copied on their way."""

_MAGIC = b"TWSEG\x00\x02\n"
_FIRST_MAGIC = b"TWSEG\x00\x01\n"
_DROPPED = "samples"  # a column of the first version
_ALIGN = 64  # bytes; numpy reads the arrays in place, aligned for any processor
_NO_LABELS: dict[str, str] = {}  # one for all streams without labels


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One file of rows, as a manifest names it."""

    name: str
    crc32: int
    bytes: int
    rows: int


class ArenaLineage(msgspec.Struct, frozen=True, kw_only=True):
    """Which bundle made the rows of one arena."""

    detector: str
    bundle_sha256: str
    bundle: str
    """`name@version`, for people."""
    channels: tuple[str, ...]


class BundleLineage(msgspec.Struct, frozen=True, kw_only=True):
    """What rows of a bundle are made of, so that another bundle can take them over without having it at hand."""

    detector: str
    bundle_sha256: str
    bundle: str
    """`name@version`, for people."""
    layout: RowLayout


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Positions [start, end) that the source no longer had when they were to be read."""

    start: int
    end: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The commit point: which rows belong to which position of which shard."""

    format: Literal[1, 2] = 2
    cluster: str
    topic: str
    partition: int
    epoch: int
    """Rises with every checkpoint of the shard."""
    fence: int
    """Rises with every owner of the shard."""
    position: int
    """The next position: everything below it is in the rows, nothing else is."""
    highest_event_ns: int
    last_position: int | None = None
    """Of the last record below `position`; None before the first."""
    alert_marks: dict[str, int] = {}
    """Per sink of alerts: a position on the output before which every alert comes from below `position`."""
    anchor: str | None = None
    """A fingerprint of what stood right before `position` in the source."""
    segments: list[Segment] = []
    """The base, then deltas, oldest first."""
    arenas: list[ArenaLineage] = []
    decide_version: int = 1
    """Which columns of decide the rows hold."""
    configuration: str = ""
    """Hash of the settings that influence rows or alerts."""
    numerics: str = ""
    """Fingerprint of what computed the rows: equal ones promise equal bits on replay."""
    created: str = ""
    """RFC 3339, for people and for the history's policy; no score or alert depends on it."""
    cold: list[Segment] = []
    """Segments with rows of evicted streams, oldest first; a stream's last row counts, and a row in `segments` before
    any of them."""
    forgotten_ns: int = NO_TIME
    """Cold rows last heard before this event time are forgotten."""
    partitions: int | None = None
    """How many partitions the topic had; None where the source has none, or before format 2."""
    gaps: list[Gap] = []
    """Positions that were lost to the shard before it could read them, oldest first."""
    bundles: list[BundleLineage] = []
    """Every bundle that made rows of these segments, cold ones included; none before format 2."""
    mixed: bool = False
    """Whether some of `segments` are of a bundle that runs no more; the next checkpoint writes a base."""

    @property
    def shard(self) -> Shard:
        """Whose checkpoint it is."""
        return Shard(self.cluster, self.topic, self.partition)


def encode_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as indented JSON and, as its last line, the checksum of all before it."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    return body + b"crc32 %08x\n" % zlib.crc32(body)


def decode_manifest(data: bytes, where: object) -> Manifest:
    """Read a manifest.

    Raises:
        CorruptCheckpointError: It is cut off, altered or of an unknown format.
    """
    body, _, last = data[:-1].rpartition(b"\n")
    body += b"\n"
    wanted = b"crc32 %08x" % zlib.crc32(body)
    if last != wanted or data[-1:] != b"\n":
        raise CorruptCheckpointError(where, "checksum of the manifest", expected=wanted.decode(), got=_shown(last))
    try:
        return msgspec.json.decode(body, type=Manifest)
    except msgspec.MsgspecError as error:
        raise CorruptCheckpointError(where, "manifest", expected="format 1 or 2", got=error) from error


def encode_segment(arenas: Sequence[ArenaRows]) -> list[Block]:
    """Lay out rows as the blocks of a segment file, to be written one after the other; they are views of the rows."""
    header: list[dict[str, Any]] = []
    blocks: list[Block] = []
    for rows in arenas:
        entry, its_blocks = _encode_arena(rows)
        header.append(entry)
        blocks += its_blocks
    text = msgspec.json.encode({"arenas": header})
    opening = _MAGIC + len(text).to_bytes(8, "little") + text
    return [part for block in (opening, *blocks) for part in (block, _padding(len(block))) if part]


def segment_of(name: str, blocks: Iterable[Block], rows: int) -> Segment:
    """Describe a segment file for the manifest."""
    crc32 = size = 0
    for block in blocks:
        crc32, size = zlib.crc32(block, crc32), size + len(block)
    return Segment(name=name, crc32=crc32, bytes=size, rows=rows)


def decode_segment(data: bytes, segment: Segment, where: object) -> list[ArenaRows]:
    """Read a segment; its arrays are read-only views of `data`.

    Raises:
        CorruptCheckpointError: It is not what the manifest says it is.
    """
    if len(data) != segment.bytes:
        raise CorruptCheckpointError(where, "length of the segment", expected=segment.bytes, got=len(data))
    crc32 = zlib.crc32(data)
    if crc32 != segment.crc32:
        raise CorruptCheckpointError(where, "crc32 of the segment", expected=f"{segment.crc32:08x}", got=f"{crc32:08x}")
    if data[:8] not in (_MAGIC, _FIRST_MAGIC):
        raise CorruptCheckpointError(where, "magic of the segment", expected=_MAGIC, got=data[:8])
    length = int.from_bytes(data[8:16], "little")
    header = msgspec.json.decode(data[16 : 16 + length])
    blocks = _Blocks(data, 16 + length)
    arenas = [_decode_arena(entry, blocks) for entry in header["arenas"]]
    if data[:8] == _FIRST_MAGIC:
        for rows in arenas:
            rows.arrays.pop(_DROPPED, None)
    return arenas


def merge(segments: Iterable[ArenaRows]) -> list[ArenaRows]:
    """Lay deltas over their base, for people: one `ArenaRows` per arena that has rows, a row per stream, its last.

    Arenas and streams come out in the order in which they were first seen.
    """
    parts = list(segments)
    kinds = [(rows.detector, rows.bundle_sha256, rows.channels) for rows in parts]
    last: dict[str, tuple[int, int]] = {}  # stream > part, row
    for number, rows in enumerate(parts):
        for stream in rows.gone:
            if stream in last and kinds[last[stream][0]] == kinds[number]:
                del last[stream]
        last.update(zip(rows.streams, zip(repeat(number), range(len(rows.streams)), strict=False), strict=True))
    alike = [(kind, *rows.arrays) for kind, rows in zip(kinds, parts, strict=True)]  # wide and narrow rows differ
    places: dict[Any, list[tuple[str, int, int]]] = {kind: [] for kind in alike}
    for stream, (number, row) in last.items():
        places[alike[number]].append((stream, number, row))
    return [_gather(parts, chosen) for chosen in places.values() if chosen]


def _gather(parts: Sequence[ArenaRows], chosen: Sequence[tuple[str, int, int]]) -> ArenaRows:
    """Those rows of parts of one arena, each given by its stream, its part and its place in that."""
    numbers = sorted({number for _, number, _ in chosen})
    ends = np.cumsum([len(parts[number].streams) for number in numbers]).tolist()
    starts = dict(zip(numbers, [0, *ends], strict=False))
    at = [starts[number] + row for _, number, row in chosen]
    one = parts[numbers[0]]
    arrays = {name: np.concatenate([parts[number].arrays[name] for number in numbers])[at] for name in one.arrays}
    labels = [parts[number].labels[row] for _, number, row in chosen]
    return ArenaRows(one.detector, one.bundle_sha256, one.channels, [stream for stream, _, _ in chosen], labels, arrays)


def _encode_arena(rows: ArenaRows) -> tuple[dict[str, Any], list[Block]]:
    streams = msgspec.json.encode(rows.streams)
    labels = msgspec.json.encode(rows.labels) if any(rows.labels) else b""
    gone = msgspec.json.encode(rows.gone) if rows.gone else b""
    arrays = {name: _little_endian(array) for name, array in rows.arrays.items()}
    entry = {
        "detector": rows.detector,
        "bundle_sha256": rows.bundle_sha256,
        "channels": rows.channels,
        "rows": len(rows.streams),
        "streams": len(streams),
        "labels": len(labels),
        "gone": len(gone),
        "arrays": [
            {"name": name, "dtype": np.lib.format.dtype_to_descr(array.dtype), "shape": array.shape}
            for name, array in arrays.items()
        ],
    }
    return entry, [streams, labels, gone, *(array.reshape(-1).view(np.uint8).data for array in arrays.values())]


def _decode_arena(entry: dict[str, Any], blocks: _Blocks) -> ArenaRows:
    streams = msgspec.json.decode(blocks.take(entry["streams"]), type=list[str])
    labels_text = blocks.take(entry["labels"])
    labels: list[dict[str, str]] = (
        msgspec.json.decode(labels_text, type=list[dict[str, str]]) if labels_text else [_NO_LABELS] * len(streams)
    )
    gone_text = blocks.take(entry.get("gone", 0))
    gone: list[str] = msgspec.json.decode(gone_text, type=list[str]) if gone_text else []
    arrays: dict[str, NDArray[np.generic]] = {}
    for array in entry["arrays"]:
        dtype, shape = np.lib.format.descr_to_dtype(_tuples(array["dtype"])), array["shape"]
        count = int(np.prod(shape))
        arrays[array["name"]] = np.frombuffer(blocks.take(count * dtype.itemsize), dtype, count).reshape(shape)
    if "decide" in arrays:
        arrays["decide"] = taken_over(cast(Rows, arrays["decide"]))
    return ArenaRows(entry["detector"], entry["bundle_sha256"], tuple(entry["channels"]), streams, labels, arrays, gone)


class _Blocks:
    """Hands out the blocks of a segment one after the other."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._next = memoryview(data), _aligned(start)

    def take(self, length: int) -> memoryview:
        block = self._data[self._next : self._next + length]
        self._next += _aligned(length)
        return block


def _little_endian(array: NDArray[np.generic]) -> NDArray[np.generic]:
    if array.dtype.hasobject:
        raise TypeError(f"rows of Python objects have no stable form: {array.dtype}")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _tuples(descr: Any) -> Any:
    """Undo what JSON did to numpy's description of a dtype: fields are tuples, shapes are tuples."""
    if isinstance(descr, str):
        return descr
    return [(name, _tuples(kind), *(tuple(shape) for shape in rest)) for name, kind, *rest in descr]


def _padding(length: int) -> bytes:
    return bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return -(-length // _ALIGN) * _ALIGN


def _shown(line: bytes) -> str:
    return line[:40].decode("ascii", "backslashreplace") or "nothing"
