"""Rows of CSV and Parquet as records of the declared shape."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detector.errors import ConfigurationError, SourceError
from detector.settings import FileSourceSettings
from detector.sources.tables import Tape, open_tape

HEADER = "time,stream,flow,heat,note\n"


def settings(path: Path, *, mode: str = "replay", wanted: list[str] | None = None, **record: Any) -> FileSourceSettings:
    return FileSourceSettings(type="file", paths=[str(path)], mode=mode, channels=wanted, record=record)


def open_text(tmp_path: Path, text: str | bytes, **more: Any) -> Tape:
    path = tmp_path / "pumps.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return open_tape(path, settings(path, **more))


def documents(tape: Tape) -> list[Any]:
    """All values; those that are no JSON as they stand."""
    found: list[Any] = []
    while (chunk := tape.read(3)) is not None:
        assert len(chunk.positions) == len(chunk.values)
        for value in chunk.values:
            try:
                found.append(json.loads(value or b""))
            except ValueError:
                found.append(value)
    tape.close()
    return found


def test_a_row_becomes_a_record_of_the_default_shape(tmp_path: Path) -> None:
    """Numeric columns are channels, also with an empty first cell; text columns are not; empty and nan are null."""
    text = HEADER + "1.5,a,,20,ok\n2,a,1e3,NaN,ok\n3,b,-0.1,,\n"
    assert documents(open_text(tmp_path, text)) == [
        {"stream": "a", "time": 1.5, "values": {"flow": None, "heat": 20}},
        {"stream": "a", "time": 2, "values": {"flow": 1000.0, "heat": None}},
        {"stream": "b", "time": 3, "values": {"flow": -0.1, "heat": None}},
    ]


def test_fields_go_where_the_settings_say(tmp_path: Path) -> None:
    """Other names, a flat record, no stream column, and times as text."""
    text = "at,flow,heat\n2026-01-01T00:00:00Z,1,2\n"
    record = {"stream": None, "time": "at", "time_unit": "iso8601", "values": None, "channels": ["heat"]}
    (found,) = documents(open_text(tmp_path, text, **record))
    assert found == {"at": "2026-01-01T00:00:00Z", "heat": 2}


def test_long_integers_stay_exact(tmp_path: Path) -> None:
    """Nanoseconds do not fit into a float."""
    (found,) = documents(open_text(tmp_path, HEADER + "1700000000123456789,a,1,2,\n", time_unit="ns"))
    assert found["time"] == 1_700_000_000_123_456_789


def test_what_is_no_row_stays_as_it_is(tmp_path: Path) -> None:
    """One bad row costs itself: too short, not UTF-8, an open quote, no number, digit grouping, infinite."""
    bad = [b"9,a,1", b"9,\xff,1,2,", b'9,"a,1,2,', b"9,a,x,2,", b"9,a,1_0,2,", b"9,a,inf,2,"]
    text = HEADER.encode() + b"1,a,1,2,\n" + b"\n".join(bad) + b"\n\n3,a,5,6,\n"
    tape = open_text(tmp_path, text)
    chunk = tape.read(100)
    assert chunk is not None
    assert chunk.originals is not None
    assert chunk.originals[1:7] == bad
    assert chunk.values[1:4] == bad[:3]
    assert [json.loads(value)["values"]["flow"] for value in chunk.values[4:6] if value] == ["x", "1_0"]
    assert b'"flow":1e999' in (chunk.values[6] or b"")
    assert [json.loads(value)["time"] for value in (chunk.values[0], chunk.values[7]) if value] == [1, 3]
    tape.close()


def test_a_quoted_cell_may_hold_a_comma(tmp_path: Path) -> None:
    """And a byte order mark, as spreadsheets write it, is no part of the first column's name."""
    text = "\ufeff" + HEADER + '1,"pump, left",3,4,"say ""hi"""\r\n'
    (found,) = documents(open_text(tmp_path, text))
    assert found["stream"] == "pump, left"


def test_channels_do_not_depend_on_where_reading_begins(tmp_path: Path) -> None:
    """The first row of the file decides, not the first that is read."""
    text = HEADER + "1,a,1,2,text\n" + "2,a,x,y,5\n" * 3
    tape = open_text(tmp_path, text)
    whole = documents(tape)
    again = open_text(tmp_path, text)
    again.seek(len(HEADER) + len("1,a,1,2,text\n"))
    assert documents(again) == whole[1:]


def test_a_growing_csv_needs_no_row_yet(tmp_path: Path) -> None:
    """Neither a header nor a row is there at the start; both come in pieces; a rotated file brings its own header."""
    path = tmp_path / "pumps.csv"
    path.touch()
    tape = open_tape(path, settings(path, mode="tail"))
    assert tape.read(10) is None
    found = []
    for piece in (HEADER[:7], HEADER[7:], "1,a,1,2,\n", "2,a"):
        with path.open("a") as file:
            file.write(piece)
        while (chunk := tape.read(10)) is not None:
            found += [json.loads(value or b"") for value in chunk.values]
    assert [each["time"] for each in found] == [1]
    path.rename(tmp_path / "old.csv")
    path.write_text("stream,time,flow\nb,7,8\n")
    chunks = [tape.read(10) for _ in range(3)]
    values = [value for chunk in chunks if chunk is not None for value in chunk.values]
    assert values[0] == b"2,a"
    assert json.loads(values[1] or b"") == {"stream": "b", "time": 7, "values": {"flow": 8}}
    tape.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stream": "pump"}, "column 'pump' is not there: expected one of time, stream, flow, heat, note"),
        ({"time": "when"}, "column 'when' is not there"),
        ({"wanted": ["flow", "rpm"]}, "column 'rpm' is not there"),
    ],
)
def test_a_missing_column_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """With those that are there, before anything starts."""
    with pytest.raises(ConfigurationError, match=message):
        open_text(tmp_path, HEADER, **change)


def test_an_unknown_ending_is_named(tmp_path: Path) -> None:
    """With those that are known."""
    path = tmp_path / "pumps.xlsx"
    with pytest.raises(ConfigurationError, match=r"pumps\.xlsx.*\.csv, \.jsonl"):
        open_tape(path, settings(path))


# Parquet


def parquet(tmp_path: Path, columns: dict[str, Any], **more: Any) -> Tape:
    path = tmp_path / "pumps.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return open_tape(path, settings(path, **more))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_times_are_read_in_the_declared_unit(tmp_path: Path, unit: str) -> None:
    """Whatever unit the column itself has; a missing one is null."""
    times = pa.array([1_700_000_000_250, None], pa.timestamp("ms", tz="UTC"))
    columns = {"stream": ["a", "b"], "time": times, "flow": pa.array([1, None]), "big": pa.array([1.5, float("inf")])}
    tape = parquet(tmp_path, columns, time_unit=unit)
    first, second = (value or b"" for value in getattr(tape.read(9), "values"))  # noqa: B009 (it may be None)
    expected = {"s": 1_700_000_000.25, "ms": 1_700_000_000_250, "us": 1_700_000_000_250_000}
    assert json.loads(first)["time"] == expected.get(unit, 1_700_000_000_250_000_000)
    assert json.loads(second)["time"] is None
    assert b'{"flow":null,"big":1e999}' in second
    tape.close()


def test_parquet_rows_are_positions(tmp_path: Path) -> None:
    """A seek goes to a row, also in the midst of a group and at the end."""
    columns = {"stream": ["a"] * 7, "time": list(range(7)), "flow": [0.5] * 7}
    for row in range(8):
        tape = parquet(tmp_path, columns)
        tape.seek(row)
        assert [each["time"] for each in documents(tape)] == list(range(row, 7))
        assert tape.is_finished


def test_parquet_iso_times(tmp_path: Path) -> None:
    """As text, to the nanosecond."""
    times = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    (found,) = documents(parquet(tmp_path, {"stream": ["a"], "time": times, "x": [1]}, time_unit="iso8601"))
    assert found["time"] == "2023-11-14T22:13:20.123456789Z"


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    """A damaged file is the outside world's fault."""
    path = tmp_path / "pumps.parquet"
    path.write_bytes(b"nonsense")
    with pytest.raises(SourceError, match=r"pumps\.parquet"):
        open_tape(path, settings(path))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CSV and JSON Lines do not need it."""
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    path = tmp_path / "pumps.parquet"
    with pytest.raises(ConfigurationError, match=r"pip install 'tidewarden\[files\]'"):
        open_tape(path, settings(path))
