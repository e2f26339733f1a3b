"""Tables in files: what is read, what is written, and what is said of a file that is wrong."""

from pathlib import Path

import numpy as np
import pytest

from detector.errors import ConfigurationError, InputError
from detector.tables import TableWriter, format_column, numeric_columns, read_columns, read_table


def csv(tmp_path: Path, text: str | bytes, name: str = "in.csv") -> Path:
    """A file with that content."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_numeric_columns_are_found_and_empty_cells_are_missing(tmp_path):
    """A column is numeric when its first non-empty cell is a number; blanks and nan are missing."""
    path = csv(tmp_path, "time,flow,state,head,none\n1,,on,2.5,\n2, 3 ,off,nan,\n\n3,1e3,on,,\n")
    table = read_table(path, texts=["time"])
    assert table.rows == 3
    assert table.texts == {"time": ["1", "2", "3"]}
    assert list(table.numbers) == ["flow", "head"]
    assert np.array_equal(table.numbers["flow"], [np.nan, 3.0, 1000.0], equal_nan=True)
    assert np.array_equal(table.numbers["head"], [2.5, np.nan, np.nan], equal_nan=True)
    assert read_columns(path) == ["time", "flow", "state", "head", "none"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,oops\n", ":3: column 'b': not a number: expected a number or an empty cell, got 'oops'"),
        ("a,b\n1,2\n\n3,1_0\n", ":4: column 'b': not a number"),
        ('a,b,c\n1,2,"x\ny"\n3,?,z\n', ":4: column 'b': not a number"),
        ("a,b\n1,2\n3\n", ":3: the row is ragged: expected 2 cells, got 1"),
        ("", ":1: the header is missing"),
        ("a,b,a\n1,2,3\n", ":1: column 'a' stands there twice"),
        ('a,b\n1,"2\n', ":2: not CSV: unexpected end of data"),
        (b"a,b\n1,2\n\xff,4\n", "not UTF-8 from here on"),
    ],
)
def test_a_wrong_file_is_told_by_line_and_column(tmp_path, text, message):
    """Every fault of a CSV file names file, line and, where it is a cell, column."""
    path = csv(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_missing_column_and_a_missing_file_are_told(tmp_path):
    """They are errors of the input, with what there is instead."""
    path = csv(tmp_path, "a,b\n1,2\n")
    with pytest.raises(InputError, match=r"column 'c' is missing: expected one of a, b"):
        read_table(path, numbers=["c"])
    with pytest.raises(InputError, match="cannot be read: expected a readable file, got No such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="not a number"):
        read_table(csv(tmp_path, "a\nword\n"), numbers=["a"])


def test_a_long_file_is_read_in_blocks(tmp_path):
    """A column that is empty in the first block may be numeric in the next; line numbers go on."""
    rows = [f"{i},{i if i > 30_000 else ''}" for i in range(50_000)]
    told: list[int] = []
    path = csv(tmp_path, "a,b\n" + "\n".join(rows) + "\n")
    table = read_table(path, progress=told.append)
    assert table.rows == 50_000
    assert table.numbers["b"][40_000] == 40_000
    assert len(told) > 1
    assert sum(told) == path.stat().st_size
    rows[45_000] = "45000,x"
    with pytest.raises(InputError, match=":45002: column 'b'"):
        read_table(csv(tmp_path, "a,b\n" + "\n".join(rows)))


def test_parquet_reads_as_the_same_table_in_csv(tmp_path):
    """Numbers, nulls, texts and times come out equal."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    stamps = np.array(["2026-03-02T00:00:00.250", "2026-03-02T00:00:01"], "datetime64[ms]")
    frame = arrow.table({"time": stamps, "n": arrow.array([1, None], arrow.int64()), "x": [0.1, 2.5], "s": ["a", None]})
    parquet.write_table(frame, tmp_path / "in.parquet")
    text = "time,n,x,s\n2026-03-02T00:00:00.25Z,1,0.1,a\n2026-03-02T00:00:01Z,,2.5,\n"
    ours, theirs = (read_table(p, texts=["time", "s"]) for p in (tmp_path / "in.parquet", csv(tmp_path, text)))
    assert ours.texts == theirs.texts
    assert ours.numbers.keys() == theirs.numbers.keys()
    assert all(np.array_equal(ours.numbers[c], theirs.numbers[c], equal_nan=True) for c in ours.numbers)
    assert numeric_columns(tmp_path / "in.parquet") == numeric_columns(csv(tmp_path, text)) == ["n", "x"]
    with pytest.raises(InputError, match="not a Parquet file"):
        read_table(csv(tmp_path, "a,b\n", "broken.parquet"))


def test_floats_are_written_as_the_shortest_that_read_back():
    """In their own width, and NaN as an empty cell."""
    wide = np.array([0.1, 1e-7, 12345678.125, np.nan])
    assert format_column(wide) == ["0.1", "1e-07", "12345678.125", ""]
    narrow = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
    assert np.array_equal(np.array(format_column(narrow), np.float32), narrow)
    assert format_column(np.array([0.1, np.nan], np.float32)) == ["0.1", ""]
    assert format_column(np.array([0, 1], np.uint8)) == ["0", "1"]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_what_was_written_reads_back(tmp_path, ending):
    """Blocks come one after the other, and no half file stands under the name when writing fails."""
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"out{ending}"
    with TableWriter(path) as writer:
        for first in (0.5, 1.5):
            writer.write({"name": ["x", 'a"b,c\n'], "value": np.array([first, np.nan], np.float32)})
    table = read_table(path, texts=["name"])
    assert table.texts["name"] == ["x", 'a"b,c\n'] * 2
    assert np.array_equal(table.numbers["value"], [0.5, np.nan, 1.5, np.nan], equal_nan=True)
    with pytest.raises(ZeroDivisionError):
        fail_half_way(tmp_path / f"half{ending}")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def fail_half_way(path: Path) -> None:
    with TableWriter(path) as writer:
        writer.write({"name": ["x"]})
        1 / 0  # noqa: B018  # any failure will do


def test_an_unknown_ending_is_refused(tmp_path):
    """Before anything is read."""
    with pytest.raises(ConfigurationError, match=r"expected an ending of \.csv or \.parquet"):
        TableWriter(tmp_path / "out.xlsx")
