"""Lines of files that grow, tear and rotate."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import SourceError
from detector.sources import lines as module
from detector.sources.lines import GENERATION_BIT, LineFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "samples.jsonl"


def drain(file: LineFile, limit: int = 100) -> list[tuple[int, bytes]]:
    """All that is there now: position and line."""
    found = []
    while (some := file.read_lines(limit)) is not None:
        found += zip(some.positions.tolist(), some.lines, strict=True)
    return found


def tail(path: Path, max_line_bytes: int = 100) -> LineFile:
    return LineFile(path, follow=True, max_line_bytes=max_line_bytes)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@given(
    lines=st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"")), max_size=30),
    chunk=st.integers(1, 40),
    limit=st.integers(1, 7),
    has_end=st.booleans(),
)
def test_lines_are_those_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], chunk: int, limit: int, has_end: bool
) -> None:
    """However reads and batches fall: every line, at its byte offset, and any of them is a place to go on."""
    data = b"\n".join(lines) + (b"\n" if has_end else b"")
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(data)
    expected, offset = [], 0
    for line in data.splitlines(keepends=True):
        expected.append((offset, line.removesuffix(b"\n")))
        offset += len(line)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_BYTES", chunk)
        file = LineFile(path, follow=False, max_line_bytes=100)
        assert drain(file, limit) == expected
        assert file.is_finished
        for place in range(0, len(expected), 5):
            file.seek(expected[place][0])
            assert not file.is_finished
            assert drain(file, limit) == expected[place:]
        file.close()


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_a_line_that_is_too_long_is_cut_and_passed(path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Memory stays bounded; one byte more than allowed is kept, so that the decoder can tell."""
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk)
    path.write_bytes(b"short\n" + b"x" * 1000 + b"\nafter\n" + b"y" * 500)
    file = LineFile(path, follow=False, max_line_bytes=20)
    assert drain(file) == [(0, b"short"), (6, b"x" * 21), (1007, b"after"), (1013, b"y" * 21)]
    assert file.end(0) == 1513
    file.close()


def test_a_line_without_an_end_waits_for_it(path: Path) -> None:
    """Its writer may be in the midst of it."""
    path.write_bytes(b'{"a": 1}\n{"a"')
    file = tail(path)
    assert drain(file) == [(0, b'{"a": 1}')]
    append(path, b": 2}")
    assert drain(file) == []
    append(path, b"\r\n")
    assert drain(file) == [(9, b'{"a": 2}')]
    assert not file.is_finished
    file.close()


def test_a_rotated_file_is_read_to_its_end_first(path: Path) -> None:
    """Lines written until the rename and after it, also one without an end; then the generation rises."""
    path.write_bytes(b"one\n")
    file = tail(path)
    assert drain(file) == [(0, b"one")]
    old = path.rename(path.with_suffix(".1"))
    append(old, b"two\nthree")
    assert drain(file) == [(4, b"two")], "the next file is not there yet: its writer may go on"
    path.write_bytes(b"four\n")
    next_generation = 1 << GENERATION_BIT
    assert drain(file) == [(8, b"three"), (next_generation, b"four")]
    append(path, b"five\n")
    assert drain(file) == [(next_generation + 5, b"five")]
    assert file.end(next_generation) == next_generation + 10
    file.close()


def test_a_truncated_file_is_a_new_generation(path: Path) -> None:
    """As after `copytruncate`."""
    path.write_bytes(b"one\ntwo\n")
    file = tail(path)
    drain(file)
    os.truncate(path, 0)
    append(path, b"new\n")
    assert drain(file) == [(1 << GENERATION_BIT, b"new")]
    file.close()


def test_a_position_names_its_generation(path: Path) -> None:
    """After a restart the file at hand is taken for the generation of the position."""
    path.write_bytes(b"one\ntwo\n")
    file = tail(path)
    third = 3 << GENERATION_BIT
    assert (file.start(third + 4), file.end(third + 4)) == (third, third + 8)
    before = file.anchor(third + 4)
    file.seek(third + 4)
    assert drain(file) == [(third + 4, b"two")]
    assert file.anchor(third + 4) == before
    assert file.anchor((2 << GENERATION_BIT) + 4) is None, "that file is gone"
    file.close()


def test_an_anchor_is_of_what_stands_before(path: Path) -> None:
    """Of 4 KiB, whatever comes after; None at the start and where the file is too short."""
    path.write_bytes(b"x" * 10_000)
    file = tail(path)
    assert file.anchor(0) is None
    assert file.anchor(10_001) is None
    whole, late = file.anchor(100), file.anchor(9000)
    append(path, b"more")
    with path.open("r+b") as other:
        other.write(b"y")
    assert file.anchor(9000) == late
    assert file.anchor(100) != whole
    file.close()


def test_a_file_that_is_not_there_is_an_error(path: Path) -> None:
    """It is named."""
    with pytest.raises(SourceError, match=r"samples\.jsonl"):
        tail(path)
