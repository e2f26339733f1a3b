"""How settings become a connection, and what needs no broker to be shown."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import NodeNotReadyError

from detector import kafka_client
from detector.errors import ConfigurationError, SourceError
from detector.kafka_client import connection, consumer_arguments, opened
from detector.records import Shard
from detector.settings import KafkaClientSettings, KafkaSourceSettings
from detector.sources import kafka
from detector.sources.kafka import KafkaSource

SASL = {"security_protocol": "SASL_PLAINTEXT", "username": "reader"}


def test_a_plain_connection_needs_nothing_else() -> None:
    """Without TLS and SASL no secret is looked for."""
    assert connection(KafkaClientSettings(bootstrap_servers="a:1,b:2")) == {
        "bootstrap_servers": "a:1,b:2",
        "client_id": "tidewarden",
        "security_protocol": "PLAINTEXT",
    }


def test_t13_unsafe_defaults_are_replaced() -> None:
    """T13, T8, T5: nothing is committed, reset or deserialised behind our back; aborted records are not read."""
    arguments = consumer_arguments(KafkaClientSettings())
    assert arguments["enable_auto_commit"] is False
    assert arguments["auto_offset_reset"] == "none"
    assert arguments["isolation_level"] == "read_committed"
    assert not any("deserializer" in name for name in arguments)


@pytest.mark.parametrize("text", ["s3cret ", "s3cret \n", "s3cret \r\n"])
def test_a_password_file_loses_one_line_end_only(tmp_path: Path, text: str) -> None:
    """Spaces belong to the password; the editor's line end does not."""
    (tmp_path / "password").write_bytes(text.encode())
    settings = KafkaClientSettings(**SASL, password_file=tmp_path / "password", sasl_mechanism="SCRAM-SHA-512")
    assert connection(settings) | {"bootstrap_servers": None} == {
        "bootstrap_servers": None,
        "client_id": "tidewarden",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "reader",
        "sasl_plain_password": "s3cret ",
    }


def test_a_password_may_stand_in_the_settings() -> None:
    """Then it is hidden in what is printed."""
    settings = KafkaClientSettings(**SASL, password="s3cret")
    assert connection(settings)["sasl_plain_password"] == "s3cret"
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"username": None}, "username: is not set"),
        ({}, "password: is not set: expected password or password_file"),
        ({"security_protocol": "SSL", "ca_file": __file__}, "is not usable: expected PEM"),
        ({"security_protocol": "SSL", "certificate_file": __file__}, "is not usable: expected PEM"),
    ],
)
def test_a_secret_that_cannot_be_used_is_named(change: dict[str, object], message: str) -> None:
    """Before anything is started, with the setting or the file that is wrong."""
    with pytest.raises(ConfigurationError, match=message):
        connection(KafkaClientSettings(**{**SASL, **change}))


def test_tls_verifies_the_broker() -> None:
    """Its certificate and its name, as a browser would."""
    context = connection(KafkaClientSettings(security_protocol="SSL"))["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_the_slow_parser_is_refused() -> None:
    """Without its C extension the client is 13 times slower: better no start than that, unnoticed."""
    check = "from detector.kafka_client import require_c_extension; require_c_extension()"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    slow = subprocess.run(
        [sys.executable, "-c", check],
        env={"AIOKAFKA_NO_EXTENSIONS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "its C extension is not in use" in slow.stderr


class Flaky:
    """A client that starts at its n-th making."""

    made = 0
    stopped = 0

    def __init__(self, starts_at: int, error: Exception) -> None:
        Flaky.made += 1
        self._fails, self._error = Flaky.made < starts_at, error

    async def start(self) -> None:
        if self._fails:
            raise self._error

    async def stop(self) -> None:
        Flaky.stopped += 1


@pytest.mark.parametrize(
    ("error", "starts_at", "made"),
    [
        (NodeNotReadyError(), 3, 3),
        (NodeNotReadyError(), 9, 4),
        (OSError("refused"), 9, 4),
        (kafka_client.KafkaError(), 9, 1),
    ],
)
async def test_a_client_is_tried_again_where_that_can_help(
    monkeypatch: pytest.MonkeyPatch, error: Exception, starts_at: int, made: int
) -> None:
    """A new one each time, the failed ones closed; at once where the broker refused us for good."""
    monkeypatch.setattr(kafka_client, "_PATIENCE_S", (0.001,) * 3)
    monkeypatch.setattr(Flaky, "made", 0)
    monkeypatch.setattr(Flaky, "stopped", 0)
    will_start = starts_at <= 4
    with nullcontext() if will_start else pytest.raises(SourceError, match="a broker at a:1"):
        await opened(lambda: Flaky(starts_at, error), "here", SourceError, "a:1")
    assert Flaky.made == made
    assert Flaky.stopped == (made - 1 if will_start else made)


class NeverCommits:
    """A client whose group coordinator is gone."""

    tries = 0

    async def commit(self, offsets: object) -> None:
        self.tries += 1
        await asyncio.sleep(60)


async def test_t6_a_commit_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """T6: the client tries again for ever; we wait for a bounded time and go on, for the manifest is the truth."""
    monkeypatch.setattr(kafka, "_COMMIT_S", 0.01)
    source = KafkaSource("plant", KafkaSourceSettings(type="kafka", topics=["a"]))
    source._consumer = NeverCommits()
    shard = Shard("", "a", 0)
    source._owned[shard] = TopicPartition("a", 0)
    async with asyncio.timeout(1):
        await source.commit({shard: 5})
    assert source._consumer.tries == 1
