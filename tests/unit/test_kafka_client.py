"""How settings become a connection, and what needs no broker to be shown."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import NodeNotReadyError
from pydantic import ValidationError

from detector.errors import ConfigurationError, SourceError
from detector.kafka import connect
from detector.kafka.connect import (
    _READERS,
    _defaults,
    close,
    connection,
    consumer_arguments,
    opened,
    producer_arguments,
)
from detector.kafka.properties import GUARDED
from detector.records import Shard
from detector.settings import KafkaClientSettings, KafkaSourceSettings
from detector.sources.kafka import KafkaSource
from detector.sources.kafka import source as kafka

SASL = {"security_protocol": "SASL_PLAINTEXT", "username": "reader"}
TOKEN = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER", "token_command": ["a"]}


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
    ("given", "message"),
    [
        ({**SASL}, "expected username, and password or password_file, with PLAIN, got username"),
        ({**SASL, "username": None, "password": "x"}, "with PLAIN, got password"),
        ({**SASL, "password": "x", "password_file": __file__}, "got password and password_file and username"),
        ({**SASL, "password": "x", "token_command": ["a"]}, "expected no token_command with security_protocol SASL_"),
        ({**TOKEN, "token_command": None}, "expected token_command with sasl_mechanism OAUTHBEARER"),
        ({**TOKEN, "username": "x"}, "expected no username with security_protocol SASL_PLAINTEXT with OAUTHBEARER"),
        ({**TOKEN, "token_command": []}, "at least 1 item"),
        ({"password": "x", "username": "x"}, "expected no password and no username with security_protocol PLAINTEXT"),
        ({"ca_file": __file__}, "expected no ca_file with security_protocol PLAINTEXT"),
        ({**SASL, "password": "x", "ca_file": __file__}, "expected no ca_file with security_protocol SASL_PLAINTEXT"),
        ({"security_protocol": "SSL", "key_file": __file__}, "expected certificate_file beside key_file"),
    ],
)
def test_secrets_fit_together(given: dict[str, object], message: str) -> None:
    """What the way to the broker needs is there, and nothing of which somebody may think that it protects him."""
    with pytest.raises(ValidationError, match=message):
        KafkaClientSettings(**given)


@pytest.mark.parametrize("name", ["ca_file", "certificate_file"])
def test_a_file_that_is_no_certificate_is_named(name: str) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigurationError, match="is not usable: expected PEM"):
        connection(KafkaClientSettings(**{"security_protocol": "SSL", name: __file__}))


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"enable_auto_commit": True}, "client.enable_auto_commit: may not be set .*after the checkpoint"),
        ({"acks": 0}, "client.acks: may not be set .*all replicas"),
        ({"sasl_plain_password": "x"}, "its setting is password_file"),
        ({"fetch_max_wait": 10}, "client.fetch_max_wait: is no property .*did you mean fetch_max_wait_ms"),
        ({"frobnicate": 10}, "named as aiokafka names them"),
        ({"request_timeout_ms": "10"}, "client.request_timeout_ms: is of the wrong type: expected int, got '10'"),
        ({"request_timeout_ms": True}, "expected int, got True"),
        ({"compression_type": "zstd"}, "client.compression_type: is no property"),
    ],
)
def test_a_property_that_guards_a_promise_or_is_unknown_is_refused(properties: dict[str, object], message: str) -> None:
    """With the reason, or the nearest name; a source has no producer, and so none of its properties."""
    with pytest.raises(ConfigurationError, match=message):
        connection(KafkaSourceSettings(type="kafka", topics=["a"], client=properties))


def test_each_client_takes_the_properties_that_are_its_own() -> None:
    """Those that all know go to all, the others where they belong."""
    properties = {"request_timeout_ms": 5000, "fetch_max_wait_ms": 50, "compression_type": "zstd"}
    settings = KafkaClientSettings(client=properties)
    everywhere = {"request_timeout_ms": 5000}
    assert not connection(settings).items() & (properties.items() - everywhere.items())
    assert connection(settings).items() >= everywhere.items()
    assert consumer_arguments(settings).items() >= (everywhere | {"fetch_max_wait_ms": 50}).items()
    assert producer_arguments(settings).items() >= (everywhere | {"compression_type": "zstd"}).items()


def test_the_guarded_properties_are_the_clients() -> None:
    """A new version of the client that names one anew would open a hole."""
    known = {name for client in (*_READERS, AIOKafkaProducer) for name in _defaults(client)}
    assert GUARDED.keys() <= known


def test_tls_verifies_the_broker() -> None:
    """Its certificate and its name, as a browser would."""
    context = connection(KafkaClientSettings(security_protocol="SSL"))["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_the_slow_parser_is_refused() -> None:
    """Without its C extension the client is 13 times slower: better no start than that, unnoticed."""
    check = "from detector.kafka.connect import require_c_extension; require_c_extension()"
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


NOBODY = KafkaClientSettings(bootstrap_servers="127.0.0.1:1")


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three attempts, one after the other."""
    monkeypatch.setattr(connect, "_PAUSES_S", (0.02, 0.02, 9.0))
    monkeypatch.setattr(connect, "_FIRST_S", 0.5)
    monkeypatch.setattr(connect, "_reached", set())
    monkeypatch.setattr(Flaky, "made", 0)
    monkeypatch.setattr(Flaky, "stopped", 0)


@pytest.mark.usefixtures("impatience")
@pytest.mark.parametrize(
    ("error", "starts_at", "made"),
    [
        (NodeNotReadyError(), 3, 3),
        (NodeNotReadyError(), 9, 3),
        (OSError("refused"), 9, 3),
        (connect.KafkaError(), 9, 1),
    ],
)
async def test_a_client_is_tried_again_where_that_can_help(error: Exception, starts_at: int, made: int) -> None:
    """A new one each time, the failed ones closed; at once where the broker refused us for good."""
    will_start = starts_at <= 3
    with nullcontext() if will_start else pytest.raises(SourceError, match=r"a broker at 127.*got .*Connect call fai"):
        await opened(lambda: Flaky(starts_at, error), "here", SourceError, NOBODY)
    assert Flaky.made == made
    assert Flaky.stopped == (made - 1 if will_start else made)


@pytest.mark.usefixtures("impatience")
async def test_a_broker_that_answered_before_is_waited_for_longer() -> None:
    """It is being restarted, where one that never did may be misspelt."""
    await opened(lambda: Flaky(1, OSError()), "here", SourceError, NOBODY)
    waiting = asyncio.create_task(opened(lambda: Flaky(9, OSError()), "here", SourceError, NOBODY))
    async with asyncio.timeout(20):
        while Flaky.made < 1 + 3:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.7)  # beyond the patience with one that never answered
    assert not waiting.done()
    assert Flaky.made == 1 + 3, "the pauses grow"
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


class Connections:
    """What lies below a client."""

    is_closed = False

    async def close(self) -> None:
        self.is_closed = True


class Stubborn:
    """A client that does not stop in order."""

    def __init__(self, how: BaseException | None) -> None:
        self._how, self._client = how, Connections()

    async def stop(self) -> None:
        if self._how is None:
            await asyncio.sleep(60)
        else:
            raise self._how


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (asyncio.CancelledError(), "it gave up"),
        (NodeNotReadyError("x"), "NodeNotReadyError('x')"),
        (None, "not done within 0.05 s"),
    ],
)
async def test_t14_a_client_that_does_not_stop_is_told_of_and_disconnected(
    how: BaseException | None, told: str
) -> None:
    """T14: where its broker is away, the client ends as if we had been cancelled; whoever stops it has not been."""
    client = Stubborn(how)
    assert await close(client, 0.05) == told
    assert client._client.is_closed


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
    async with asyncio.timeout(30):
        await source.commit({shard: 5})
    assert source._consumer.tries == 1
