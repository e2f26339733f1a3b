"""The commands `check`, `inspect`, `run` and `schema`, as a user calls them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
import structlog
import yaml
from typer.testing import CliRunner, Result

from detector import cli
from detector.commands.output import age
from detector.errors import BundleError, ConfigurationError, InputError, SourceError

GOLDEN = Path(__file__).parents[1] / "golden"
BUNDLE, LEARNER = GOLDEN / "tiny-any.onnx", GOLDEN / "learner.onnx"

Configure = Callable[..., Path]


def tidewarden(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """`run` sends logs to a stream that the runner closes."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Write a configuration of a small plant, with changes; the working directory is a fresh one."""
    monkeypatch.chdir(tmp_path)

    def write(**changes: object) -> Path:
        configuration = {
            "sources": {"plant": {"type": "plant", "hours": 0.6, "speed": None, "streams": 5}},
            "detectors": {"pumps": {"bundle": str(BUNDLE), "decide": {"threshold_nines": 1.5}}},
            "sinks": {"alerts": {"out": {"type": "file", "path": "alerts.jsonl"}}},
            "http": {"port": 0},
            **changes,
        }
        path = tmp_path / "t.yaml"
        path.write_text(yaml.safe_dump(configuration))
        return path

    return write


@pytest.fixture
def state(configure: Configure, tmp_path: Path) -> Path:
    """Checkpoints of a plant that was watched to its end."""
    done = tidewarden("run", "-c", configure())
    assert done.exception is None
    return tmp_path / "state"


class TestRun:
    def test_finite_source_is_watched_to_its_end(self, state):
        """Returns by itself, with a last checkpoint."""
        assert any(state.rglob("manifest-*.json"))

    def test_what_is_wrong_is_told_before_anything_starts(self, configure, tmp_path):
        """No state folder, no alerts file."""
        done = tidewarden("run", "-c", configure(detectors={"d": {"bundle": "none.onnx"}}))
        assert isinstance(done.exception, BundleError)
        assert not (tmp_path / "state").exists()
        assert not (tmp_path / "alerts.jsonl").exists()


class TestCheck:
    def test_good_configuration_is_told_as_such(self, configure):
        """Sources, detectors with their bundles; exit code 0."""
        done = tidewarden("check", "-c", configure())
        assert done.exit_code == 0
        assert "tiny-any@1" in done.stdout
        assert "FAULT" not in done.stdout

    def test_what_the_configuration_tells_a_bundle_is_said(self, configure):
        """Roles, freezes, and what a stream costs."""
        told = {"roles": {"flow": "context"}, "freeze": [{"stream": "pump-1", "from": 77}]}
        done = tidewarden("check", "-c", configure(detectors={"pumps": {"bundle": str(LEARNER), **told}}))
        assert done.exit_code == 0
        said = " ".join(done.stdout.split())
        for words in ("flow is context", "pump-1 frozen from 77", "bytes a stream of 1", "bytes a stream of 5"):
            assert words in said, words
        old = tidewarden("check", "-c", configure(detectors={"pumps": {"bundle": str(BUNDLE), **told}}))
        assert old.exit_code == 2
        assert "tiny-any@1 cannot follow it" in " ".join(old.stdout.split())

    def test_every_fault_is_told(self, configure, tmp_path):
        """Also those of the second detector."""
        (tmp_path / "broken.onnx").write_bytes(b"no bundle")
        detectors = {name: {"bundle": name + ".onnx"} for name in ("missing", "broken")}
        done = tidewarden("check", "-c", configure(detectors={**detectors, "good": {"bundle": str(BUNDLE)}}))
        assert done.exit_code == 1
        assert done.stdout.count("FAULT") == 2
        assert "2 faults" in done.stderr

    def test_wrong_configuration_exits_with_2(self, configure):
        """The same error as `run` would give."""
        done = tidewarden("check", "-c", configure(htpp={}))
        assert isinstance(done.exception, ConfigurationError)

    def test_connect_looks_at_every_edge(self, configure):
        """What a source holds and what a sink guarantees."""
        done = tidewarden("check", "--connect", "-c", configure())
        assert done.exit_code == 0
        assert "1 shards" in done.stdout
        assert "at least once" in done.stdout

    def test_unreachable_broker_is_a_fault(self, configure, monkeypatch):
        """Told with its name; the other edges are still looked at."""

        async def unreachable(*_: object, **__: object) -> None:
            raise SourceError("kafka source 'k'", "cannot connect", expected="a broker at nowhere:1")

        monkeypatch.setattr("detector.kafka.client.describe_cluster", unreachable)
        sources = {"k": {"type": "kafka", "topics": ["t"]}, "p": {"type": "plant"}}
        done = tidewarden("check", "--connect", "-c", configure(sources=sources))
        assert done.exit_code == 1
        assert "cannot connect: expected a broker at nowhere:1" in done.stdout
        assert done.stdout.count("FAULT") == 1


class TestInspect:
    def test_bundle_tells_what_it_is(self):
        """Name, hash, row layout; not the numbers of its initial row."""
        facts = json.loads(tidewarden("inspect", BUNDLE, "--json").stdout)
        assert facts["name"] == "tiny-any"
        assert facts["row"] == f"S = {facts['state']['joint']} + {facts['state']['per_channel']} C floats"
        assert "initial" not in facts
        assert "row_layout" in tidewarden("inspect", BUNDLE).stdout

    def test_bundle_in_the_box_is_told_by_its_name(self):
        """With the bytes that a stream takes, by its number of channels."""
        facts = json.loads(tidewarden("inspect", "default", "--json").stdout)
        sizes = list(facts["bytes_per_stream"].values())
        per_channel = 4 * facts["state"]["per_channel"] + 16
        assert sizes == [sizes[0] + (count - 1) * per_channel for count in (1, 3, 7, 16, 64)]

    def test_folder_of_checkpoints_tells_its_shards(self, state):
        """As `state list` does, without a configuration."""
        (shard,) = json.loads(tidewarden("inspect", state, "--json").stdout)
        assert shard["streams"] == 5
        assert shard["position"] > 0
        assert shard["arenas"][0]["bundle"] == "tiny-any@1"
        assert "s ago" in tidewarden("inspect", state).stdout

    def test_empty_folder_and_missing_file_are_errors(self, tmp_path):
        """Told as *where: what: expected, got*."""
        (tmp_path / "empty").mkdir()
        assert isinstance(tidewarden("inspect", tmp_path / "empty").exception, InputError)
        assert isinstance(tidewarden("inspect", tmp_path / "nowhere").exception, BundleError)

    def test_looking_changes_nothing(self, state):
        """A daemon may own the folder."""
        before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
        tidewarden("inspect", state)
        assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before


class TestSchema:
    def test_configuration_obeys_its_schema(self, configure):
        """Editors check with it; a misspelt key is refused there too."""
        schema = json.loads(tidewarden("schema", "config").stdout)
        validate = jsonschema.Draft202012Validator(schema)
        rule = {"stream": "a", "from": 5, "until": "2026-11-21T08:00:00Z"}
        told = {"bundle": str(LEARNER), "roles": {"flow": "target"}, "freeze": [rule]}
        good = yaml.safe_load(configure(detectors={"pumps": told}).read_text())
        assert list(validate.iter_errors(good)) == []
        assert list(validate.iter_errors({**good, "htpp": {}}))

    def test_alerts_obey_their_schema(self, state, tmp_path):
        """Every line that the daemon wrote."""
        validate = jsonschema.Draft202012Validator(json.loads(tidewarden("schema", "alert").stdout))
        lines = (tmp_path / "alerts.jsonl").read_text().splitlines()
        assert lines
        for line in lines:
            assert list(validate.iter_errors(json.loads(line))) == []
        assert list(validate.iter_errors({"version": 1}))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s ago"), (119, "119 s ago"), (120, "2 minutes ago"), (10_000, "3 hours ago"), (-5, "0 s ago")],
)
def test_ages_are_told_in_words(seconds, told):
    """Of a checkpoint, for people."""
    assert age("2026-01-01T00:00:00+00:00", 1_767_225_600_000_000_000 + seconds * 1_000_000_000) == told
