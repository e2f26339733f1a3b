"""Logging: where it goes, in which form, and what is left out."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from detector import logs
from detector.settings import LogSettings


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def written(log, **settings: str) -> str:
    stream = io.StringIO()
    logs.configure(LogSettings(**settings), stream)
    log()
    return stream.getvalue()


def ours() -> None:
    structlog.get_logger("detector.test").info("shard restored", shard="t-0", rows=3)


def test_elsewhere_than_on_a_terminal_each_line_is_json():
    """Containers collect lines; each must stand for itself."""
    line = json.loads(written(ours))
    assert line["event"] == "shard restored"
    assert (line["shard"], line["rows"], line["level"], line["logger"]) == ("t-0", 3, "info", "detector.test")
    assert line["timestamp"].endswith("Z")


def test_console_is_for_people():
    """Where it is asked for, no JSON and, without a terminal, no colours."""
    text = written(ours, format="console")
    assert "shard restored" in text
    assert "shard=t-0" in text
    assert "\x1b" not in text


def test_level_is_kept():
    """What lies below it is not written."""
    assert written(ours, level="warning") == ""


def test_a_logger_made_at_import_follows_what_is_configured_later():
    """Modules make theirs before the settings are read."""
    log = structlog.get_logger("early")
    assert json.loads(written(lambda: log.info("later")))["event"] == "later"


def test_libraries_share_the_form_and_are_quiet_at_info():
    """Aiokafka tells at info what we tell ourselves; its warnings come through."""

    def both() -> None:
        logging.getLogger("aiokafka.consumer").info("chatter")
        logging.getLogger("aiokafka.consumer").warning("broker lost")

    (line,) = written(both).splitlines()
    assert json.loads(line)["event"] == "broker lost"
    assert "chatter" in written(both, level="debug")


def test_exceptions_keep_their_traceback():
    """In JSON as structure."""

    def fail() -> None:
        try:
            raise ValueError("why")
        except ValueError:
            structlog.get_logger("x").exception("failed")

    assert json.loads(written(fail))["exception"][0]["exc_value"] == "why"
    assert "ValueError: why" in written(fail, format="console")


def test_a_library_says_the_same_thing_once_in_a_while(monkeypatch):
    """A client without its broker repeats itself ten times a second; what was left out is counted."""
    client, other = logging.getLogger("aiokafka.producer.sender"), logging.getLogger("detector.test")

    def flood() -> None:
        for number in range(50):
            client.warning("no node %d", number)
            other.warning("ours")
        client.error("something else")
        monkeypatch.setattr(logs, "_REPEATED_S", 0.0)
        client.warning("no node %d", 50)

    lines = [json.loads(line)["event"] for line in written(flood).splitlines()]
    assert lines.count("ours") == 50
    assert [line for line in lines if line != "ours"] == [
        "no node 0",
        "something else",
        "no node 50 (49 times more before)",
    ]
