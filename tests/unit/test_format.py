"""Manifests and segments: what goes in comes out, and damage is seen."""

from __future__ import annotations

import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.checkpoint.format import (
    ArenaLineage,
    Manifest,
    Segment,
    decode_manifest,
    decode_segment,
    encode_manifest,
    encode_segment,
    merge,
    segment_of,
)
from detector.errors import CorruptCheckpointError
from detector.records import ArenaRows

GOLDEN_CRC32 = 982_842_231  # of format version 2, for ever
DECIDE = np.dtype([("opened_ns", "<i8"), ("peak", "<f8"), ("run", "<i8", (2,))])


def rows(streams: list[str], base: float = 0.0, channels: tuple[str, ...] = ("a", "b")) -> ArenaRows:
    """Rows whose numbers tell whose they are."""
    count = len(streams)
    decide = np.zeros(count, DECIDE)
    decide["opened_ns"], decide["peak"], decide["run"] = np.arange(count), base, (1, 2)
    arrays = {
        "state": (np.arange(count * 3, dtype=np.float32) + np.float32(base)).reshape(count, 3),
        "decide": decide,
        "band": np.full((count, 2, len(channels)), base),
    }
    return ArenaRows("pumps", "ab" * 32, channels, streams, [{} for _ in streams], arrays)


def manifest(**changes: object) -> Manifest:
    """A manifest with something in every field."""
    plain = Manifest(
        cluster="c",
        topic="sensors",
        partition=3,
        epoch=7,
        fence=2,
        position=1000,
        highest_event_ns=123,
        alert_marks={"out": 17},
        anchor="crc32:0@1",
        segments=[Segment(name="segment", crc32=1, bytes=2, rows=3)],
        arenas=[ArenaLineage(detector="pumps", bundle_sha256="ab", bundle="pumps@1", channels=("a",))],
        configuration="cc",
        numerics="nn",
        created="2026-11-21T00:00:00+00:00",
    )
    return msgspec.structs.replace(plain, **changes)


def written(arenas: list[ArenaRows]) -> tuple[bytes, Segment]:
    """A segment file and its entry in the manifest."""
    blocks = encode_segment(arenas)
    return b"".join(blocks), segment_of("segment", blocks, sum(len(each.streams) for each in arenas))


def assert_equal(one: ArenaRows, other: ArenaRows) -> None:
    """Same bytes, same types, same names."""
    assert (one.detector, one.bundle_sha256, one.channels) == (other.detector, other.bundle_sha256, other.channels)
    assert (one.streams, one.labels, list(one.arrays)) == (other.streams, other.labels, list(other.arrays))
    assert one.gone == other.gone
    for name, array in one.arrays.items():
        assert array.dtype == other.arrays[name].dtype
        assert array.shape == other.arrays[name].shape
        assert array.tobytes() == other.arrays[name].tobytes()


def test_a_segment_gives_back_its_rows() -> None:
    """Structured arrays, several arenas, labels and odd names included."""
    one, two = rows(["x", "ü\n", ""]), rows(["x"], 5, ("a",))
    two.labels, two.gone = [{"site": "Ålesund"}], ["left", "ü"]
    data, segment = written([one, two])
    for got, given_rows in zip(decode_segment(data, segment, "here"), [one, two], strict=True):
        assert_equal(got, given_rows)
    assert (segment.rows, segment.bytes, segment.crc32) == (4, len(data), zlib.crc32(data))


def test_a_segment_without_rows_is_readable() -> None:
    """An arena that has no rows, and no arena at all."""
    for arenas in ([], [rows([])]):
        data, segment = written(arenas)
        assert [len(each.streams) for each in decode_segment(data, segment, "here")] == [0] * len(arenas)


def test_the_bytes_do_not_depend_on_the_machine() -> None:
    """Big-endian arrays and ones that are not contiguous give the same file; and that file never changes."""
    plain = rows([f"s{i}" for i in range(5)], 1.5)
    foreign = rows(plain.streams, 1.5)
    foreign.arrays = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in plain.arrays.items()}
    foreign.arrays["state"] = np.asfortranarray(foreign.arrays["state"])
    assert written([foreign])[0] == written([plain])[0]
    assert written([plain])[1].crc32 == GOLDEN_CRC32


def test_arrays_are_aligned_in_the_file() -> None:
    """Reading in place needs no copy."""
    data, segment = written([rows(["x", "y", "z"])])
    for array in decode_segment(data, segment, "here")[0].arrays.values():
        assert (array.ctypes.data - np.frombuffer(data, np.uint8).ctypes.data) % 64 == 0


def test_rows_are_not_copied_on_their_way() -> None:
    """The blocks of a million rows are the rows themselves."""
    plain = rows(["x", "y"])
    owners = [np.frombuffer(block, np.uint8).ctypes.data for block in encode_segment([plain]) if len(block)]
    assert {array.ctypes.data for array in plain.arrays.values()} <= set(owners)


def test_what_moved_to_another_arena_counts_there() -> None:
    """A stream that left one arena and came anew in another has the row that was written last."""
    old, new = rows(["x", "y"]), rows(["x"], 50, ("a",))
    left = rows([])
    left.gone = ["x"]
    for later in ([left, new], [new, left]):
        merged, moved = merge([old, *later])
        assert (merged.streams, moved.streams, moved.channels) == (["y"], ["x"], ("a",))


def test_objects_are_refused() -> None:
    """Nothing is ever pickled."""
    bad = rows(["x"])
    bad.arrays["state"] = np.array([[object()]])
    with pytest.raises(TypeError, match="no stable form"):
        encode_segment([bad])


@given(st.data())
def test_any_flipped_bit_of_a_segment_is_seen(data: st.DataObject) -> None:
    """And so is any cut."""
    content, segment = written([rows(["x", "y"])])
    broken = bytearray(content)
    broken[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptCheckpointError, match=r"there: crc32 of the segment: expected [0-9a-f]{8}, got"):
        decode_segment(bytes(broken), segment, "there")
    with pytest.raises(CorruptCheckpointError, match="there: length of the segment: expected"):
        decode_segment(content[: data.draw(st.integers(0, len(content) - 1))], segment, "there")


def test_a_manifest_gives_back_its_fields() -> None:
    """All of them."""
    assert decode_manifest(encode_manifest(manifest()), "here") == manifest()


@given(st.data())
def test_any_flipped_bit_of_a_manifest_is_seen(data: st.DataObject) -> None:
    """And so is any cut."""
    content = encode_manifest(manifest())
    broken = bytearray(content)
    broken[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(broken), content[: data.draw(st.integers(0, len(content) - 1))]):
        with pytest.raises(CorruptCheckpointError, match="there: "):
            decode_manifest(damaged, "there")


def test_a_manifest_of_another_format_is_refused() -> None:
    """With its own checksum right."""
    body = encode_manifest(manifest()).rpartition(b"crc32")[0].replace(b'"format": 2', b'"format": 99')
    with pytest.raises(CorruptCheckpointError, match="expected format 1 or 2"):
        decode_manifest(body + b"crc32 %08x\n" % zlib.crc32(body), "there")


def test_later_rows_replace_earlier_ones_in_their_place() -> None:
    """Streams and arenas keep the order of first sight."""
    base, other = rows(["x", "y"], 0), rows(["k"], 0, ("a",))
    merged, untouched = merge([base, other, rows(["z", "x"], 100)])
    assert merged.streams == ["x", "y", "z"]
    assert merged.arrays["state"][:, 0].tolist() == [103.0, 3.0, 100.0]
    assert merged.arrays["decide"]["peak"].tolist() == [100.0, 0.0, 100.0]
    assert_equal(untouched, other)


STREAMS = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)


@given(st.lists(st.tuples(STREAMS, STREAMS), min_size=1, max_size=5))
def test_merging_is_what_a_dictionary_does(deltas: list[tuple[list[str], list[str]]]) -> None:
    """The fast way against the plain way."""
    plain: dict[str, float] = {}
    parts = []
    for i, (streams, gone) in enumerate(deltas):
        delta = rows(streams, 10.0 * i)
        delta.gone = gone
        for stream in gone:
            plain.pop(stream, None)
        plain |= dict(zip(streams, delta.arrays["state"][:, 0].tolist(), strict=True))
        parts.append(delta)
    found = merge(parts)
    assert len(found) == (1 if plain else 0)
    for merged in found:
        assert dict(zip(merged.streams, merged.arrays["state"][:, 0].tolist(), strict=True)) == plain
        assert merged.streams == list(plain)
