"""The configuration: where it comes from, and how its faults are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from detector.errors import ConfigurationError
from detector.settings import Settings, load, parse_partitions

KAFKA = """
sources:
  my-plant:
    type: kafka
    topics: [pumps]
"""
SASL = "    security_protocol: SASL_SSL\n    username: reader\n"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TIDEWARDEN_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "t.yaml"
        path.write_text(text)
        return path

    return write


def complaint(path: Path | None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert caught.value.exit_code == 2
    return str(caught.value)


class TestLayers:
    def test_defaults_stand_below_the_file(self, written):
        """What the file does not say is as documented."""
        settings = load(written(KAFKA))
        assert type(settings) is Settings
        assert settings.http.port == 9464
        assert settings.sources["my-plant"].topics == ["pumps"]

    def test_environment_overrides_the_file(self, written, monkeypatch):
        """A variable wins over the file, which wins over the default."""
        monkeypatch.setenv("TIDEWARDEN_HTTP__PORT", "1234")
        assert load(written(KAFKA + "http: {port: 1, host: 0.0.0.0}\n")).http.model_dump() == {
            "host": "0.0.0.0",
            "port": 1234,
        }

    def test_overrides_win(self, written, monkeypatch):
        """The command line wins over the environment."""
        monkeypatch.setenv("TIDEWARDEN_HTTP__PORT", "1234")
        assert load(written(KAFKA), {"http": {"port": 5}}).http.port == 5

    def test_variables_reach_into_maps(self, written, monkeypatch):
        """A source of any spelling is reached; its other keys stay."""
        monkeypatch.setenv("TIDEWARDEN_SOURCES__MY_PLANT__GROUP", "g")
        source = load(written(KAFKA)).sources["my-plant"]
        assert (source.group, source.topics) == ("g", ["pumps"])

    def test_variables_alone_make_a_configuration(self, monkeypatch):
        """No file is needed; lists are written in brackets, nothing as null."""
        monkeypatch.setenv("TIDEWARDEN_SOURCES__P__TYPE", "kafka")
        monkeypatch.setenv("TIDEWARDEN_SOURCES__P__TOPICS", "[a, b]")
        monkeypatch.setenv("TIDEWARDEN_SOURCES__P__RECORD__STREAM", "null")
        source = load(None).sources["p"]
        assert source.topics == ["a", "b"]
        assert source.record.stream is None

    def test_text_stays_text(self, written, monkeypatch):
        """A password of digits and a pattern in brackets are not numbers and lists."""
        monkeypatch.setenv("TIDEWARDEN_SOURCES__MY_PLANT__PASSWORD", "0123")
        monkeypatch.setenv("TIDEWARDEN_DETECTORS__DEFAULT__MATCH__STREAM", "[a-z]+")
        settings = load(written(KAFKA + SASL))
        assert settings.sources["my-plant"].password.get_secret_value() == "0123"
        assert settings.detectors["default"].match.stream == "[a-z]+"

    def test_variables_of_kubernetes_are_left_alone(self, written, monkeypatch):
        """A service called tidewarden puts variables of our prefix into every pod beside it."""
        monkeypatch.setenv("TIDEWARDEN_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv("TIDEWARDEN_PORT_9464_TCP_PORT", "9464")
        load(written(KAFKA))

    def test_constructing_settings_ignores_the_environment(self, monkeypatch):
        """Only `load` listens to the environment: a test cannot be swayed by it."""
        monkeypatch.setenv("TIDEWARDEN_HTTP__PORT", "1")
        assert Settings(sources={"p": {"type": "plant"}}).http.port == 9464

    def test_order_of_detectors_is_the_files(self, written, monkeypatch):
        """A stream goes to the first that matches, so a variable must not reorder them."""
        monkeypatch.setenv("TIDEWARDEN_DETECTORS__B__TIME_ZONE", "Europe/Berlin")
        assert list(load(written(KAFKA + "detectors: {c: {}, b: {}, a: {}}\n")).detectors) == ["c", "b", "a"]


class TestSecrets:
    def test_missing_secret_is_told_before_anything_starts(self, written):
        """A file that is not there is a fault of the configuration."""
        text = complaint(written(KAFKA + "    password_file: /nowhere/secret\n"))
        assert "sources.my-plant.password_file: expected a file to read, got '/nowhere/secret'" in text

    def test_secrets_are_never_repeated(self, written):
        """Neither a message nor a printed configuration holds one."""
        assert "hunter2" not in complaint(written(KAFKA + "    password: [hunter2]\n"))
        settings = load(written(KAFKA + SASL + "    password: hunter2\n"))
        assert "hunter2" not in repr(settings) + settings.model_dump_json()


class TestFaults:
    @pytest.mark.parametrize(
        ("addition", "told"),
        [
            ("    groop: x", ":6: sources.my-plant.groop: expected a known key, got 'groop' (did you mean group?)"),
            ("    poll_records: many", ":6: sources.my-plant.poll_records: expected a valid integer"),
            ("    poll_records: 0", ":6: sources.my-plant.poll_records: expected greater than or equal to 1, got 0"),
            (
                "    record: {time_unit: h}",
                "my-plant.record.time_unit: expected 's', 'ms', 'us', 'ns' or 'iso8601', got 'h'",
            ),
            ("    pattern: x", ":3: sources.my-plant: expected either topics or pattern, got both"),
            ("    partitions: 3-1", 'sources.my-plant: expected partitions such as "0-3" or "0,2,5-7", got \'3-1\''),
            (
                "  other: {type: kafak}",
                ":6: sources.other.type: expected one of file, kafka, plant, got 'kafak' (did you mean kafka?)",
            ),
            ("  other: {paths: [a]}", ":6: sources.other.type: expected one of file, kafka, plant, got nothing"),
            ("  other: {type: file}", ":6: sources.other.paths: expected a value, got nothing"),
            ("  9x: {type: plant}", ":6: sources.9x: expected text like ^[A-Za-z]"),
            ("htpp: {port: 1}", ":6: htpp: expected a known key, got 'htpp' (did you mean http?)"),
            ("zzzzzz: 1", "zzzzzz: expected a known key, got 'zzzzzz' (known here: sources, detectors"),
            ("http:", ":6: http: expected"),
            ("detectors: {d: {time_zone: Mars/Base}}", "detectors.d.time_zone: expected a time zone such as"),
            (
                "detectors: {d: {match: {stream: '('}}}",
                "detectors.d.match.stream: expected a regular expression, got '('",
            ),
            (
                "detectors: {d: {decide: {budget_per_day: 1, threshold_nines: 2}}}",
                "expected budget_per_day or threshold",
            ),
            ("sinks: {alerts: {out: {type: kafka}}}", "sinks.alerts.out.topic: expected a value, got nothing"),
            ("sources: {}", ":6: sources: expected once, got again after line 2"),
        ],
    )
    def test_fault_names_line_path_expected_and_got(self, written, addition, told):
        """*file:line: path: expected ..., got ...*, with the nearest known key."""
        path = written(KAFKA.lstrip("\n").join(["\n", addition + "\n"]))
        text = complaint(path)
        assert text.startswith(str(path))
        assert told in text

    def test_all_faults_are_told_at_once(self, written):
        """One look, not one look per fault."""
        text = complaint(written(KAFKA + "    groop: x\n    poll_records: 0\nhtpp: 1\n"))
        assert text.count("\n") == 3
        assert "3 settings are wrong" in text

    def test_wrong_variable_is_named(self, written, monkeypatch):
        """Who set it in the environment must not search the file."""
        monkeypatch.setenv("TIDEWARDEN_HTTP__PROT", "1")
        text = complaint(written(KAFKA))
        assert text.startswith("environment variable TIDEWARDEN_HTTP__PROT: http.prot:")
        assert "did you mean port?" in text

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("a: [1", ":1: is not YAML"),
            ("- a", "expected a map of settings, got list"),
            ("a: \x01", "is not YAML"),
            ("1: 2", "expected a word, got 1"),
            ("a: &a [*a]", "sources: expected a value"),
            ("", "sources: expected a value, got nothing"),
        ],
    )
    def test_what_is_no_configuration_is_told_as_such(self, written, text, told):
        """Broken YAML gets a line, not a traceback."""
        assert told in complaint(written(text))

    def test_unreadable_file_is_told(self, tmp_path):
        """A missing file, or one of bytes."""
        assert "cannot be read" in complaint(tmp_path / "none.yaml")
        (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
        assert "cannot be read" in complaint(tmp_path / "b.yaml")


class TestPartitions:
    def test_ranges_and_single_ones_are_understood(self):
        """Rising, each once."""
        assert parse_partitions("0-3") == [0, 1, 2, 3]
        assert parse_partitions("7, 0,2,1-2") == [0, 1, 2, 7]

    @pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-1", "0-999999", "1-2-3", "²"])
    def test_anything_else_is_refused(self, text):
        """Including a range that only a slip of the finger can mean."""
        with pytest.raises(ValueError, match="expected partitions such as"):
            parse_partitions(text)


def test_streams_are_forgotten_after_their_silence_was_told() -> None:
    """An anomaly whose stream is forgotten first would never be resolved."""
    base = {"sources": {"a": {"type": "file", "paths": ["x"]}}, "detectors": {"pumps": {}}}
    assert Settings.model_validate(base | {"engine": {"forget_after_s": 901}}).engine.forget_after_s == 901
    with pytest.raises(ValidationError, match=r"above detectors\.pumps\.decide\.resolve_after_s \(900\)"):
        Settings.model_validate(base | {"engine": {"forget_after_s": 900}})
