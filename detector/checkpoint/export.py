"""Streams' memory in one file that one can carry away, read anywhere and put in again.

    magic     8 bytes   "TWROWS" 1 newline
    crc32     4 bytes   little-endian, of all that follows
    length    8 bytes   of the header
    header    JSON      list of manifests, one a shard: whose rows, at which position, by which bundles, laid out how
    segments  each as in a checkpoint, in the order of the manifests, each of which names exactly one

A manifest in here says where the rows come from; and where a store has none it is a beginning: a daemon goes on from
its position as if it had never stopped.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from detector.checkpoint.format import Block, Manifest, decode_segment, encode_segment, segment_of
from detector.errors import CorruptCheckpointError, InputError
from detector.records import ArenaRows

_MAGIC = b"TWROWS\x01\n"
_NAME = "rows"  # of the one segment of each manifest
_HINT = "export it again"


@dataclass(frozen=True, slots=True)
class Exported:
    """Rows of one shard, and the checkpoint that they were taken from."""

    manifest: Manifest
    arenas: list[ArenaRows]


def encode_export(parts: Sequence[Exported]) -> list[Block]:
    """Lay out an export as the blocks of its file."""
    manifests, blocks = [], []
    for part in parts:
        its_blocks = encode_segment(part.arenas)
        segment = segment_of(_NAME, its_blocks, sum(len(rows.streams) for rows in part.arenas))
        manifests.append(msgspec.structs.replace(part.manifest, segments=[segment], cold=[]))
        blocks += its_blocks
    header = msgspec.json.encode(manifests)
    rest: list[Block] = [len(header).to_bytes(8, "little"), header, *blocks]
    crc32 = 0
    for block in rest:
        crc32 = zlib.crc32(block, crc32)
    return [_MAGIC, crc32.to_bytes(4, "little"), *rest]


def decode_export(data: bytes, where: object) -> list[Exported]:
    """Read an export.

    Raises:
        InputError: It is something else, cut off or altered.
    """
    if data[:8] != _MAGIC:
        raise InputError(where, "magic of an export", expected=_MAGIC, got=data[:8], hint="name a file of state export")
    crc32 = zlib.crc32(memoryview(data)[12:])
    if crc32 != int.from_bytes(data[8:12], "little"):
        raise InputError(
            where, "checksum", expected=f"{int.from_bytes(data[8:12], 'little'):08x}", got=f"{crc32:08x}", hint=_HINT
        )
    start = 20 + int.from_bytes(data[12:20], "little")
    try:
        manifests = msgspec.json.decode(data[20:start], type=list[Manifest])
        parts = []
        for manifest in manifests:
            (segment,) = manifest.segments
            arenas = decode_segment(data[start : start + segment.bytes], segment, where)
            parts.append(Exported(msgspec.structs.replace(manifest, segments=[]), arenas))
            start += segment.bytes
    except (msgspec.MsgspecError, CorruptCheckpointError, ValueError) as error:  # whole, but of a version to come
        raise InputError(where, "contents", got=error, hint="update tidewarden") from error
    return parts


def write_export(path: Path, parts: Sequence[Exported]) -> int:
    """Write the file, whole or not at all; returns its length."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines(encode_export(parts))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(path, "cannot be written", got=error.strerror or error) from error
    return size


def read_export(path: Path) -> list[Exported]:
    """Read the file.

    Raises:
        InputError: It is not an export.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, "cannot be read", got=error.strerror or error) from error
    return decode_export(data, path)
