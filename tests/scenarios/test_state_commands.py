"""`tidewarden state`, as a user calls it, between runs of the daemon: memory moves and nothing changes."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from detector import cli
from detector.app import App
from detector.checkpoint.export import read_export
from detector.errors import InputError, LineageError
from tests.golden import learner
from tests.scenarios.daemon import ROOT, append, lines, settings

EVERY_S = 0.2


def tidewarden(*arguments: object) -> Result:
    """The command line, in this process."""
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


def state(folder: Path, what: str, *arguments: object) -> Result:
    """A command over the folder's configuration."""
    return tidewarden("state", what, "-c", folder / "config.yaml", *arguments)


def told(result: Result) -> Any:
    """What a command printed as JSON."""
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def watch(folder: Path, **changes: Any) -> None:
    """The daemon, to the end of its file."""
    asyncio.run(App(settings(folder, **changes)).run())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder with samples of three streams, watched, with an anomaly open; its last checkpoint is not young."""
    append(tmp_path, 0, 187)
    watch(tmp_path)
    time.sleep(5 * EVERY_S)
    return tmp_path


def outputs(folder: Path) -> tuple[bytes, bytes]:
    """Alerts and scores."""
    return (folder / "alerts.jsonl").read_bytes(), (folder / "scores.jsonl").read_bytes()


class TestLooking:
    def test_list_tells_each_shard(self, site):
        """Position, streams, owner, age, what was lost, how much history."""
        (shard,) = told(state(site, "list", "--json"))
        assert shard["position"] == (site / "in.jsonl").stat().st_size
        assert (shard["streams"], shard["warm"], shard["cold"]) == (3, 3, 0)
        assert (shard["fence"], shard["gaps"], shard["history"]) == (1, [], 0)
        assert shard["open_anomalies"] > 0

    def test_list_tells_streams_that_match(self, site):
        """When they were last heard, and since when an anomaly is open."""
        found = told(state(site, "list", "--streams", "p[12]", "--json"))
        assert [each["stream"] for each in found] == ["p1", "p2"]
        assert all(each["last_sample"] and each["open_since"] for each in found)

    def test_show_says_in_words_what_is_remembered(self, site):
        """Warm-up, scale, evidence, the open anomaly; names of parts from the checkpoint itself."""
        said = state(site, "show", "p1").stdout
        for words in (
            "187 samples seen; the warm-up of 128 is over",
            "an anomaly is open since 20",
            "peak",
            "mean ",
            "spread",
        ):
            assert words in said, words
        (facts,) = told(state(site, "show", "p1", "--json"))
        assert facts["row"]["joint"]["samples"] == 187
        assert facts["decide"]["phase"] == 3

    def test_show_says_which_freezes_hold(self, tmp_path):
        """Those of the stream, in its shard; whether they are in force there."""
        append(tmp_path, 0, 20)
        rules = [{"stream": "p1", "from": 5, "until": 77}, {"stream": "p*", "from": "2020-09-13T12:27:00Z"}]
        pumps = {"bundle": str(learner.PATH), "freeze": [*rules, {"stream": "p2", "topic": "other", "from": 5}]}
        watch(tmp_path, detectors={"pumps": pumps})
        said = state(tmp_path, "show", "p1").stdout
        assert "learning is frozen from offset 5 until offset 77: not in force at this position" in said
        assert "learning is frozen from 2020-09-13T12:27:00Z on: in force" in said
        (facts,) = told(state(tmp_path, "show", "p2", "--json"))
        assert facts["freeze"] == [{"from": "2020-09-13T12:27:00Z", "until": None, "in_force": True}]

    def test_unknown_stream_is_answered_with_the_nearest(self, site):
        """As *where: what: expected, got (hint)*."""
        with pytest.raises(InputError, match=r"stream 'p11': memory: .* got 3 others \(did you mean p1"):
            raise state(site, "show", "p11").exception

    def test_diff_tells_the_largest_difference_first(self, site):
        """And none between a stream and itself."""
        assert state(site, "diff", "p1", "p1").stdout == "no differences\n"
        found = told(state(site, "diff", "p0", "p1", "--json"))
        assert found[0]["field"].startswith("row.")
        assert all(each["one"] != each["other"] for each in found)

    def test_diff_compares_with_the_past(self, tmp_path):
        """One stream at the position of a kept checkpoint, and now."""
        keep = {"checkpoint": {"path": str(tmp_path / "state"), "every_s": 0.01, "keep_history": "9999/min for 1h"}}
        for end in range(20, 200, 20):
            append(tmp_path, end - 20, end)
            watch(tmp_path, **keep)
        assert told(state(tmp_path, "list", "--json"))[0]["streams"] == 3
        with pytest.raises(InputError, match="a position among") as refused:
            raise state(tmp_path, "diff", "p1", "--at", 7).exception
        first = int(str(refused.value).partition("among ")[2].partition(",")[0])
        found = told(state(tmp_path, "diff", "p1", "--at", first, "--json"))
        assert "row.joint.samples" in [each["field"] for each in found]

    def test_looking_changes_nothing(self, site):
        """A daemon may serve the shard meanwhile."""
        before = {path: path.read_bytes() for path in (site / "state").rglob("*") if path.is_file()}
        for what in (["list"], ["list", "--streams"], ["show", "p1"], ["diff", "p0", "p1"]):
            assert state(site, *what).exception is None
        assert state(site, "export", "-o", site / "x.rows").exception is None
        assert {path: path.read_bytes() for path in (site / "state").rglob("*") if path.is_file()} == before

    def test_tables_fit_a_narrow_terminal(self, site, monkeypatch):
        """80 columns; no line is longer."""
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("FORCE_COLOR", "1")
        for what in (["list"], ["list", "--streams"], ["show", "p1"], ["diff", "p0", "p1"], ["fork", "--help"]):
            printed = state(site, *what).stdout if what[-1] != "--help" else tidewarden("state", *what).stdout
            assert printed
            assert max(map(len, _plain(printed).splitlines())) <= 80


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class TestMoving:
    def test_memory_moves_to_an_empty_store_and_nothing_changes(self, site):
        """Export, import, go on: alerts and scores are byte-equal to those of one daemon that never stopped."""
        assert state(site, "export", "-o", site / "all.rows").exception is None
        elsewhere = {"checkpoint": {"path": str(site / "elsewhere"), "every_s": EVERY_S}}
        settings(site, **elsewhere)
        assert state(site, "import", site / "all.rows").exception is None
        append(site, 187, 400)
        watch(site, **elsewhere)
        moved = outputs(site)

        for name in ("alerts.jsonl", "scores.jsonl"):
            (site / name).unlink()
        watch(site, checkpoint={"path": str(site / "never-stopped"), "every_s": EVERY_S})
        assert moved == outputs(site)
        assert len(lines(site / "alerts.jsonl")) > 10

    def test_an_imported_row_is_what_was_exported(self, site):
        """Taken out, put in over what came of it since: the stream remembers what it knew then."""
        assert state(site, "export", "p1", "-o", site / "then.rows").exception is None
        append(site, 187, 250)
        watch(site)
        time.sleep(5 * EVERY_S)
        refused = state(site, "import", site / "then.rows")
        assert isinstance(refused.exception, InputError)
        assert "--replace" in str(refused.exception)
        assert state(site, "import", site / "then.rows", "--replace").exception is None
        assert told(state(site, "show", "p1", "--json"))[0]["row"]["joint"]["samples"] == 187
        assert told(state(site, "show", "p2", "--json"))[0]["row"]["joint"]["samples"] == 250
        assert state(site, "export", "p1", "-o", site / "again.rows", "--topic", _topic(site)).exception is None
        assert state(site, "diff", site / "then.rows", site / "again.rows").stdout == "no differences\n"

    def test_forked_memory_scores_identical_samples_alike(self, site):
        """The same samples under both keys, bit for bit, from the fork on; the copy has no anomaly open."""
        append(site, 187, 240)  # past the anomaly
        watch(site)
        time.sleep(5 * EVERY_S)
        assert state(site, "fork", "p1", "twin").exception is None
        before = len(lines(site / "scores.jsonl"))
        with (site / "in.jsonl").open("a") as file:
            for tick in range(240, 300):
                for stream in ("p1", "twin"):
                    flow = tick * 7919 % 101 / 100 + (30 if tick % 50 > 44 else 0)
                    sample = {"stream": stream, "time": 1_600_000_000 + tick * 10, "values": {"flow": flow}}
                    file.write(json.dumps(sample) + "\n")
        watch(site)
        by_stream: dict[str, list[tuple[float, float, int]]] = {}
        for score in lines(site / "scores.jsonl")[before:]:
            by_stream.setdefault(score["stream"], []).append((score["score"], score["threshold"], score["anomaly"]))
        assert by_stream["twin"] == by_stream["p1"]
        assert len(by_stream["twin"]) == 60
        assert sum(anomaly for *_, anomaly in by_stream["twin"]) > 0

    def test_a_fork_of_an_open_anomaly_starts_without_it(self, site):
        """It belongs to the source; and a stream that has memory is not overwritten unless said."""
        assert state(site, "fork", "p1", "p2").exception is not None
        assert state(site, "fork", "p1", "twin").exception is None
        (facts,) = told(state(site, "show", "twin", "--json"))
        assert facts["decide"]["phase"] == 0
        time.sleep(5 * EVERY_S)
        assert state(site, "fork", "p1", "p2", "--replace").exception is None

    def test_a_shard_that_is_being_served_is_left_alone_unless_said(self, site):
        """A young checkpoint: the claim would end its daemon."""
        append(site, 187, 190)
        watch(site)
        slow = {"checkpoint": {"path": str(site / "state"), "every_s": 60}}
        settings(site, **slow)
        refused = state(site, "fork", "p1", "twin")
        assert "a daemon seems to serve the shard" in str(refused.exception)
        said = state(site, "fork", "p1", "twin", "--yes")
        assert said.exception is None
        assert "is fenced now" in said.stdout

    def test_rows_of_another_bundle_are_refused(self, site):
        """Where its rows are laid out otherwise; nothing is claimed."""
        assert state(site, "export", "-o", site / "x.rows").exception is None
        part = read_export(site / "x.rows")[0]
        assert part.manifest.arenas[0].bundle == "tiny-any@1"
        names = sorted(path.name for path in (site / "state").rglob("*"))
        settings(site, detectors={"others": {"bundle": str(Path(__file__).parents[1] / "golden/tiny-any.onnx")}})
        refused = state(site, "import", site / "x.rows", "--replace")
        assert isinstance(refused.exception, LineageError)
        assert sorted(path.name for path in (site / "state").rglob("*")) == names

    def test_rows_of_a_compatible_bundle_are_taken_over(self, site):
        """As a restore under the new bundle would take them; the daemon goes on with all that carries over."""
        assert state(site, "export", "-o", site / "x.rows").exception is None
        bench = str(Path(__file__).parents[1] / "golden/bench.onnx")
        other = {"detectors": {"pumps": {"bundle": bench}}, "checkpoint": {"path": str(site / "elsewhere")}}
        settings(site, **other)
        assert state(site, "import", site / "x.rows").exception is None
        (facts,) = told(state(site, "show", "p1", "--json"))
        assert facts["row"]["joint"]["samples"] == 187
        append(site, 187, 190)
        watch(site, **other)
        (facts,) = told(state(site, "show", "p1", "--json"))
        assert facts["row"]["joint"]["samples"] == 190
        assert facts["bundle"] != "tiny-any@1"


def _topic(folder: Path) -> str:
    return str(folder / "in.jsonl")


def test_commands_of_the_manual_do_what_it_says(tmp_path, monkeypatch):
    """Each line of docs/memory.md, in its order; positions are those of the place."""
    monkeypatch.chdir(tmp_path)
    keep = {"checkpoint": {"path": "state", "every_s": 0.01, "keep_history": "9999/min for 1h"}}
    for end in (100, 200):
        append(tmp_path, end - 100, end, streams=2)
        path = tmp_path / "in.jsonl"
        path.write_text(path.read_text().replace('"p0"', '"pump-7"').replace('"p1"', '"pump-8"'))
        watch(tmp_path, **keep)
    position = str(told(state(tmp_path, "list", "--json"))[0]["position"])
    (tmp_path / "config.yaml").rename(tmp_path / "prod.yaml")
    manual = (ROOT / "docs/memory.md").read_text()
    commands = re.findall(r"^    tidewarden (.*)$", manual, re.MULTILINE)
    assert {line.split()[1] for line in commands} == {"list", "show", "diff", "export", "import", "fork"}
    for line in commands:
        done = tidewarden(*shlex.split(line.replace("120000", position)))
        assert done.exception is None, (line, done.exception)
        assert done.stdout
