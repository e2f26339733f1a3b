"""Scoring without a daemon: the same engine, hence the same numbers, for any files, order and number of threads."""

import csv
from pathlib import Path

import msgspec
import numpy as np
import pytest

from detector.cli import main
from detector.demo.plant import CHANNELS, Plant
from detector.engine import Detector, Engine
from detector.errors import ConfigurationError
from detector.model.session import Session
from detector.records import NO_TIME, Records, Shard
from detector.scoring import Columns, engine_factory, files, open_bundle, score_arrays, score_files
from detector.scoring.rows import ordinals
from detector.settings import DecideSettings, DetectorSettings, EngineSettings, RecordSettings

GOLDEN = Path(__file__).parents[1] / "golden"
ANY, FIXED, LEARNER = (str(GOLDEN / f"{name}.onnx") for name in ("tiny-any", "tiny-fixed", "learner"))
LOUD = DetectorSettings(decide=DecideSettings(threshold_nines=1.5, hysteresis_nines=0.5, cool_down_s=0))
"""Fires often, so that comparisons have something to compare."""


@pytest.fixture(scope="module")
def plant():
    """An hour and a half of six pumps: names, event_ns, values, in order of time."""
    pumps = Plant(6, 11)
    stream, event_ns, values = (np.concatenate(column) for column in zip(*pumps.samples(1.5), strict=True))
    return [pumps.names[each] for each in stream.tolist()], event_ns, values


def write(path: Path, plant, rows=slice(None), stream: bool = True) -> Path:
    """Rows of the plant as CSV with times in ns."""
    names, event_ns, values = (column[rows] for column in plant)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*(["pump"] if stream else []), "time", *CHANNELS])
        for name, ns, row in zip(names, event_ns.tolist(), values.tolist(), strict=True):
            out.writerow([*([name] if stream else []), ns, *("" if cell != cell else repr(cell) for cell in row)])
    return path


def read(path: Path) -> list[dict[str, str]]:
    """The rows of an output."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


PUMPS = Columns(stream="pump", time_unit="ns")


def scored(tmp_path: Path, inputs, columns: Columns = PUMPS, detail: bool = True, bundle: str = ANY, **more):
    """Score with the loud settings; the output's path and the summary."""
    output = tmp_path / "out.csv"
    engines = engine_factory(open_bundle(bundle), LOUD, detail=detail)
    return output, score_files(engines, [str(i) for i in inputs], output, columns=columns, detail=detail, **more)


def test_a_file_scores_to_the_bits_of_the_daemon(tmp_path, plant):
    """Rows of a file and JSON records in polls of odd size give equal floats, anomalies and forecasts."""
    output, summary = scored(tmp_path, [write(tmp_path / "in.csv", plant)])
    names, event_ns, values = plant
    records = [
        msgspec.json.encode({"stream": name, "time": ns, "values": dict(zip(CHANNELS, row, strict=True))})
        for name, ns, row in zip(names, event_ns.tolist(), values.tolist(), strict=True)
    ]
    bundle = open_bundle(ANY)
    engine = Engine(
        Shard("a", "b", 0),
        [Detector("default", LOUD, bundle, Session(bundle))],
        RecordSettings(time_unit="ns"),
        EngineSettings(wave_rows=4),
        scores_detail=True,
    )
    rows = read(output)
    fired = 0
    for first in range(0, len(records), 777):
        some = records[first : first + 777]
        positions = np.arange(first, first + len(some))
        no_time = np.full(len(some), NO_TIME)
        poll = Records(Shard("a", "b", 0), some, [None] * len(some), positions, no_time, first + len(some))
        outcome = engine.advance(poll)
        fired += sum(alert.event == "open" for alert in outcome.alerts)
        assert not outcome.rejects
        for found in outcome.scores:
            for place, at in enumerate(found.index.tolist()):
                row = rows[first + at]
                assert np.float32(row["score"]) == found.score[place]
                assert int(row["anomaly"]) == found.anomaly[place]
                for c, channel in enumerate(found.channels):
                    assert float(row[f"expected_{channel}"]) == found.expected[place, c]
                    assert float(row[f"upper_{channel}"]) == found.upper[place, c]
                    assert np.float32(row[f"blame_{channel}"]) == found.blame[place, c]
    assert fired == summary.anomalies > 0


def test_one_row_per_row_in_input_order(tmp_path, plant):
    """File, stream and time stand as in the input, row by row, whatever order the engine took them in."""
    files = [write(tmp_path / "b.csv", plant, slice(0, 500)), write(tmp_path / "a.csv", plant, slice(500, 900))]
    output, summary = scored(tmp_path, files, detail=False)
    rows = read(output)
    assert list(rows[0]) == ["file", "stream", "time", "score", "anomaly"]
    assert [row["stream"] for row in rows] == plant[0][:900]
    assert [int(row["time"]) for row in rows] == plant[1][:900].tolist()
    assert [row["file"] for row in rows] == [str(files[0])] * 500 + [str(files[1])] * 400
    assert (summary.files, summary.rows, summary.streams) == (2, 900, 6)


def test_a_stream_goes_on_in_the_next_file(tmp_path, plant):
    """With --stream a file cut in two scores as the whole; without it each file is a stream of its own."""
    whole, _ = scored(tmp_path, [write(tmp_path / "whole.csv", plant)])
    expected = [(row["score"], row["anomaly"], row["reason"]) for row in read(whole)]
    halves = [write(tmp_path / "1.csv", plant, slice(0, 1501)), write(tmp_path / "2.csv", plant, slice(1501, None))]
    cut, _ = scored(tmp_path, halves)
    assert [(row["score"], row["anomaly"], row["reason"]) for row in read(cut)] == expected
    separate, summary = scored(tmp_path, halves, Columns(time_unit="ns", channels=CHANNELS))
    assert summary.streams == 2
    assert {row["stream"] for row in read(separate)} == {str(each) for each in halves}


def test_batches_and_threads_change_no_byte(tmp_path, plant, monkeypatch):
    """One engine or five, all files at once or one after the other: the same output."""
    inputs = [write(tmp_path / f"{i}.csv", plant, slice(i * 700, i * 700 + 700)) for i in range(4)]
    outputs = {scored(tmp_path, inputs, threads=threads)[0].read_bytes() for threads in (1, 2, 5)}
    monkeypatch.setattr(files, "_BATCH_CELLS", 1)
    outputs.add(scored(tmp_path, inputs, threads=2)[0].read_bytes())
    assert len(outputs) == 1


def test_the_engine_is_fed_wide(tmp_path, plant):
    """Streams that stand one after the other in the input share waves all the same."""
    order = np.argsort(plant[0], kind="stable")
    by_stream = ([plant[0][i] for i in order], plant[1][order], plant[2][order])
    sorted_out = read(scored(tmp_path, [write(tmp_path / "sorted.csv", by_stream)])[0])
    mixed_out = read(scored(tmp_path, [write(tmp_path / "mixed.csv", plant)])[0])
    assert [row["score"] for row in sorted_out] == [mixed_out[i]["score"] for i in order]
    assert ordinals(np.array([3, 1, 3, 3, 1])).tolist() == [0, 0, 1, 2, 1]


def test_parquet_and_csv_are_the_same(tmp_path, plant):
    """In and out: the same rows with the same numbers."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names, event_ns, values = plant
    columns = {channel: arrow.array(values[:, c], from_pandas=True) for c, channel in enumerate(CHANNELS)}
    stamps = arrow.array(event_ns, arrow.int64()).cast(arrow.timestamp("ns", "UTC"))
    parquet.write_table(arrow.table({"pump": names, "time": stamps, **columns}), tmp_path / "in.parquet")
    from_parquet = read(scored(tmp_path, [tmp_path / "in.parquet"], Columns(stream="pump"))[0])
    from_csv = read(scored(tmp_path, [write(tmp_path / "in.csv", plant)])[0])
    for ours, theirs in zip(from_parquet, from_csv, strict=True):
        assert {**ours, "file": "", "time": ""} == {**theirs, "file": "", "time": ""}
    output = tmp_path / "out.parquet"
    engines = engine_factory(open_bundle(ANY), LOUD, detail=True)
    score_files(engines, [str(tmp_path / "in.csv")], output, columns=PUMPS, detail=True)
    table = parquet.read_table(output)
    assert table.column_names == list(from_csv[0])
    assert table["score"].to_pylist() == [float(np.float32(row["score"])) for row in from_csv]
    assert table["anomaly"].to_pylist() == [int(row["anomaly"]) for row in from_csv]


def test_rows_the_daemon_would_reject_stay_with_score_0(tmp_path):
    """They keep their place, are counted, and leave the stream's memory untouched."""
    head = "time,a,b\n"
    good = [f"2026-03-02T00:{i // 60:02d}:{i % 60:02d}Z,{i % 7},{i % 5}\n" for i in range(600)]
    bad = {
        100: ("2026-03-02T00:00:05Z,1,2\n", "late"),
        200: ("2026-03-02T00:03:19Z,1,2\n", "duplicate"),
        300: ("never,1,2\n", "bad_time"),
        400: ("2026-03-02T00:06:40.5Z,,\n", "nothing_observed"),
        500: ("2026-03-02T00:08:20.5Z,inf,2\n", "not_finite"),
    }
    mixed = list(good)
    for place, (line, _) in sorted(bad.items(), reverse=True):
        mixed.insert(place, line)
    places = [place + i for i, place in enumerate(sorted(bad))]
    (tmp_path / "good.csv").write_text(head + "".join(good))
    (tmp_path / "mixed.csv").write_text(head + "".join(mixed))
    expected = read(scored(tmp_path, [tmp_path / "good.csv"], Columns())[0])
    output, summary = scored(tmp_path, [tmp_path / "mixed.csv"], Columns())
    rows = read(output)
    assert [rows[place]["reason"] for place in places] == [reason for _, (_, reason) in sorted(bad.items())]
    assert all(rows[place]["score"] == "0.0" and rows[place]["expected_a"] == "" for place in places)
    assert sum(summary.rejects.values()) == 5
    kept = [row for i, row in enumerate(rows) if i not in places]
    assert [(row["score"], row["expected_a"]) for row in kept] == [
        (row["score"], row["expected_a"]) for row in expected
    ]


@pytest.mark.parametrize("name", ["time", "Timestamp", "ts", "DATE", "datetime"])
def test_the_time_column_is_found_by_its_name(tmp_path, name):
    """And taken as a channel under any other name."""
    path = tmp_path / "in.csv"
    path.write_text(f"a,{name}\n" + "".join(f"{i},2026-03-0{1 + i} 00:00\n" for i in range(5)))
    rows = read(scored(tmp_path, [path], Columns())[0])
    assert [row["time"] for row in rows] == [f"2026-03-0{1 + i} 00:00" for i in range(5)]
    assert not any(row["reason"] for row in rows)
    assert "blame_a" in rows[0]


def test_without_a_time_column_rows_are_counted(tmp_path):
    """Row number times the period; with --stream, the row's number within its stream, across files."""
    for name, first in (("1.csv", 0), ("2.csv", 3)):
        (tmp_path / name).write_text("a,s\n" + "".join(f"{i},{'xy'[i % 2]}\n" for i in range(first, first + 3)))
    paths = [tmp_path / "1.csv", tmp_path / "2.csv"]
    rows = read(scored(tmp_path, paths[:1], Columns(period_s=0.5))[0])
    assert [row["time"] for row in rows] == ["0.0", "0.5", "1.0"]
    rows = read(scored(tmp_path, paths, Columns(period_s=0.5, stream="s"))[0])
    assert [row["time"] for row in rows] == ["0.0", "0.0", "0.5", "0.5", "1.0", "1.0"]
    assert not any(row["reason"] for row in rows)


def test_a_wrong_file_does_not_lose_the_others(tmp_path, plant):
    """It is left out as a whole and reported with file, line and column; the others score as if alone."""
    good = write(tmp_path / "good.csv", plant, slice(0, 300))
    alone = scored(tmp_path, [good])[0].read_bytes()
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("pump,time,flow\np,1,2\np,2,two\n")
    other = tmp_path / "other.csv"
    other.write_text("time,flow\n1,2\n")
    output, summary = scored(tmp_path, [wrong, good, other, tmp_path / "none*.csv"])
    assert [str(error).removeprefix(str(tmp_path)) for error in summary.errors] == [
        "/none*.csv: no such file",
        "/wrong.csv:3: column 'flow': not a number: expected a number or an empty cell, got 'two'",
        "/other.csv: column 'pump' is missing: expected one of time, flow",
    ]
    assert output.read_bytes() == alone


def test_a_glob_does_not_take_up_an_earlier_output(tmp_path, plant):
    """Scoring a folder into itself twice gives the same twice."""
    write(tmp_path / "in.csv", plant, slice(0, 300))
    first = scored(tmp_path, [tmp_path / "*.csv"])[0].read_bytes()
    assert scored(tmp_path, [tmp_path / "*.csv"])[0].read_bytes() == first


def test_integers_need_a_unit(tmp_path):
    """A number in the time column could be anything; the message says what to add."""
    (tmp_path / "in.csv").write_text("time,a\n1,2\n")
    output, summary = scored(tmp_path, [tmp_path / "in.csv"], Columns())
    assert "column 'time': holds numbers: expected --time-unit s, ms, us or ns, got 1" in str(summary.errors[0])
    assert not output.exists()


def test_a_fixed_bundle_picks_its_channels(tmp_path):
    """Further columns do not matter to it, nor does their order."""
    bundle = open_bundle(FIXED)
    values = np.random.default_rng(3).normal(size=(400, len(bundle.channels))).round(3)
    tables = {
        "plain": [list(bundle.channels), values],
        "mixed": [["extra", *reversed(bundle.channels)], np.c_[values[:, 0] * 3, values[:, ::-1]]],
    }
    found = []
    for name, (header, cells) in tables.items():
        path = tmp_path / f"{name}.csv"
        lines = [",".join(header), *(",".join(map(repr, row)) for row in cells.tolist())]
        path.write_text("\n".join(lines) + "\n")
        found.append([row["score"] for row in read(scored(tmp_path, [path], Columns(), bundle=FIXED)[0])])
    assert found[0] == found[1]


def test_arrays_score_as_files_do(tmp_path, plant):
    """The function for evaluation and the command agree."""
    rows = read(scored(tmp_path, [write(tmp_path / "in.csv", plant)])[0])
    names = np.array(plant[0])
    streams = {name: (plant[1][names == name], plant[2][names == name]) for name in sorted(set(plant[0]))}
    found = score_arrays(engine_factory(open_bundle(ANY), LOUD, detail=True), streams, CHANNELS, detail=True, threads=2)
    for name, scores in found.items():
        own = [row for row in rows if row["stream"] == name]
        assert np.array_equal(scores.score, np.array([row["score"] for row in own], np.float32))
        assert scores.anomaly.tolist() == [int(row["anomaly"]) for row in own]
        assert scores.detail.expected[:, 0].tolist() == [float(row["expected_flow"]) for row in own]


def run(*arguments: object) -> int:
    """The command's exit code."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code


def test_the_command_ends_with_the_right_code(tmp_path, plant, capsys):
    """0 when all was scored, 1 when a file was left out, 2 for a wrong command line or configuration."""
    good = write(tmp_path / "good.csv", plant, slice(0, 300))
    output = tmp_path / "out.csv"
    common = ["score", "--bundle", ANY, "--stream", "pump", "--time-unit", "ns", "--output", output]
    assert run(*common, "--input", good) == 0
    assert "300 rows, 6 streams, 1 files" in capsys.readouterr().err
    assert run(*common, "--input", tmp_path / "good.csv", tmp_path / "none.csv") == 1
    assert "none.csv: no such file" in capsys.readouterr().err
    assert run("score", "--bundle", ANY, "--input", good, "--output", tmp_path / "out.txt") == 2
    assert run("score", "--bundle", ANY, "--output", output) == 2
    assert run("score", "--bundle", tmp_path / "none.onnx", "--input", good, "--output", output) == 1
    assert run(*common, "--input", good, "--detector", "x") == 2


def test_the_command_takes_decides_settings_from_a_configuration(tmp_path, plant, capsys):
    """A threshold that nothing reaches gives no anomaly; one that all reaches gives some."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "sources: {plant: {type: plant}}\n"
        f"detectors:\n  quiet: {{bundle: {ANY}, match: {{stream: none}}, decide: {{threshold_nines: 30}}}}\n"
        f"  loud: {{bundle: {ANY}, decide: {{threshold_nines: 1.0, cool_down_s: 0}}}}\n"
    )
    good = write(tmp_path / "good.csv", plant)
    common = ["score", "--input", good, "--stream", "pump", "--time-unit", "ns", "--output", tmp_path / "o.csv"]
    for name, expected in (("quiet", False), ("loud", True)):
        assert run(*common, "-c", config, "--detector", name) == 0
        assert any(row["anomaly"] == "1" for row in read(tmp_path / "o.csv")) == expected
    assert run(*common, "-c", config, "--detector", "absent") == 2
    assert "expected quiet or loud, got absent" in capsys.readouterr().err


def test_roles_are_said_on_the_command_line(tmp_path, plant, capsys):
    """They change scores, above the configuration's; a channel or a role that is none is refused before the work."""
    good = write(tmp_path / "good.csv", plant)
    config = tmp_path / "config.yaml"
    all_but_one = dict.fromkeys(CHANNELS[1:], "context")
    config.write_text(
        f"sources: {{plant: {{type: plant}}}}\ndetectors: {{d: {{bundle: {LEARNER}, roles: {all_but_one}}}}}\n"
    )
    common = ["score", "--input", good, "--stream", "pump", "--time-unit", "ns", "--output", tmp_path / "o.csv"]

    def scores(*more):
        assert run(*common, *more) == 0
        return [row["score"] for row in read(tmp_path / "o.csv")]

    flags = [part for channel in CHANNELS[1:] for part in ("--role", f"{channel}=context")]
    assert scores("--bundle", LEARNER) != scores("--bundle", LEARNER, *flags) == scores("-c", config)
    assert scores("-c", config, "--role", f"{CHANNELS[1]}=auto") != scores("-c", config)
    capsys.readouterr()
    for role, message in (
        ("flwo=target", "--role: no such channel: expected one of flow"),
        ("flow=goal", "expected CHANNEL=auto|target|context, got flow=goal"),
        ("flow", "a channel and its role"),
    ):
        assert run(*common, "--bundle", LEARNER, "--role", role) == 2
        assert message in capsys.readouterr().err
    assert run(*common, "--bundle", ANY, "--role", "flow=target") == 2
    assert "cannot follow it" in capsys.readouterr().err


def test_a_freeze_by_time_holds_for_files_too(tmp_path, plant):
    """Of whatever topic it speaks; one by offset is refused, for a file has none."""
    names, event_ns, values = plant
    half_ns = int(np.median(event_ns))
    since = np.datetime_as_string(np.datetime64(half_ns, "ns").astype("datetime64[us]")) + "Z"
    feed = {
        name: (event_ns[[n == name for n in names]], values[[n == name for n in names]]) for name in sorted(set(names))
    }
    bundle, first = open_bundle(LEARNER), min(names)

    def scores(*rules):
        settings = DetectorSettings(freeze=list(rules))
        return score_arrays(engine_factory(bundle, settings), feed, CHANNELS)

    free, frozen = scores(), scores({"stream": first, "topic": "plant", "partition": 3, "from": since})
    before = feed[first][0] <= half_ns
    assert (free[first].score == frozen[first].score)[before].all()
    assert (free[first].score != frozen[first].score)[~before].any()
    assert all((free[name].score == frozen[name].score).all() for name in feed if name != first)
    with pytest.raises(ConfigurationError, match=r"detectors\.default\.freeze\.0: stands by offset.*expected times"):
        scores({"stream": first, "from": 5})
