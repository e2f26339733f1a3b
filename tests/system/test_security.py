"""Brokers with locks: TLS, certificates, passwords and tokens, each from the source through to the sinks.

A real broker with certificates made here. Records go in and come out by its plain door; the daemon, its checkpoints in
a topic included, has only the door under test. What is refused is refused in seconds, in words that name the setting.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from detector.app import App
from detector.errors import ConfigurationError, SinkError, SourceError, TidewardenError
from detector.kafka import connect
from detector.kafka.client import topic_settings
from detector.settings import KafkaClientSettings, Settings
from tests.kafka.fixture import there_or_skipped
from tests.kafka.security import PASSWORD, SESSION_S, USER, Locked, locked_broker, token
from tests.kafka.topics import create_topic, new_name, produce, read_all
from tests.system.site import BUNDLE

pytestmark = pytest.mark.system

WAYS = ("mutual TLS", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    """One for all tests here."""
    yield from there_or_skipped(locked_broker(tmp_path_factory.mktemp("locks")))


@pytest.fixture(autouse=True)
async def strangers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Every test meets its brokers for the first time, and has little patience with those that do not answer."""
    monkeypatch.setattr(connect, "_reached", set())
    monkeypatch.setattr(connect, "_FIRST_S", 1.0)
    yield
    await asyncio.sleep(0.3)  # refused TLS connections say goodbye in the background


def way(locked: Locked, kind: str, **changes: Any) -> dict[str, Any]:
    """How the daemon gets in."""
    if kind == "mutual TLS":
        settings = {"security_protocol": "SSL", "certificate_file": locked.certificate}
    else:
        settings = {"security_protocol": "SASL_SSL", "sasl_mechanism": kind}
        if kind == "OAUTHBEARER":
            settings["token_command"] = printing(token())
        else:
            settings |= {"username": USER, "password": PASSWORD}
    address = locked.broker.addresses[settings["security_protocol"]]
    return {"bootstrap_servers": address, "ca_file": locked.ca} | settings | changes


def printing(text: str) -> list[str]:
    """A command that prints this."""
    return [sys.executable, "-c", f"print({text!r})"]


async def daemon(locked: Locked, client: dict[str, Any], **source: Any) -> Settings:
    """A topic in, scores out, checkpoints in a third one; all by the same door."""
    samples, scores = [await create_topic(locked.broker.address) for _ in range(2)]
    return Settings(
        sources={"plant": {"type": "kafka", "topics": [samples], "group": samples} | client | source},
        detectors={"pumps": {"bundle": BUNDLE}},
        sinks={"scores": {"out": {"type": "kafka", "topic": scores} | client}, "scores_mode": "complete"},
        checkpoint={"type": "kafka", "topic": new_name("state"), "every_s": 0.5} | client,
        http={"port": 0},
    )


async def feed(locked: Locked, settings: Settings, start: int, end: int) -> None:
    """Samples, by the plain door."""
    (topic,) = settings.sources["plant"].topics
    samples = [
        {"stream": "p", "time": 1_600_000_000 + tick, "values": {"flow": tick % 7}} for tick in range(start, end)
    ]
    await produce(locked.broker.address, topic, [json.dumps(sample).encode() for sample in samples])


async def until_scored(locked: Locked, settings: Settings, count: int, running: asyncio.Task[None]) -> None:
    """Wait for so many scores on the topic."""
    topic = settings.sinks.scores["out"].topic
    async with asyncio.timeout(120):
        while len((await read_all(locked.broker.address, topic))[0]) < count:
            assert not running.done(), running.exception()
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("kind", WAYS)
async def test_every_way_in_works_from_end_to_end(locked: Locked, kind: str) -> None:
    """Source, sink, the questions about topics, and the store of checkpoints."""
    settings = await daemon(locked, way(locked, kind), partitions="0")
    await feed(locked, settings, 0, 50)
    app = App(settings)
    running = asyncio.create_task(app.run())
    await until_scored(locked, settings, 50, running)
    app.drain()
    await asyncio.wait_for(running, 60)
    assert app.telemetry.status.checkpoints > 0


async def test_a_session_that_ends_costs_nothing(locked: Locked, tmp_path: Path) -> None:
    """The broker drops who signed on by token after three seconds: the daemon comes back with a new one, in its group.

    The client cannot sign on again over a live connection (KIP-368).
    """
    asked = tmp_path / "asked"
    code = f"open({str(asked)!r}, 'a').write('x'); from tests.kafka.security import token; print(token(5))"
    command = ["env", f"PYTHONPATH={Path(__file__).parents[2]}", sys.executable, "-c", code]
    settings = await daemon(locked, way(locked, "OAUTHBEARER", token_command=command))
    app = App(settings)
    running = asyncio.create_task(app.run())
    began_s, sent = time.monotonic(), 0
    while time.monotonic() - began_s < 4 * SESSION_S:
        await feed(locked, settings, sent, sent + 10)
        sent += 10
        await asyncio.sleep(0.3)
    await until_scored(locked, settings, sent, running)
    app.drain()
    await asyncio.wait_for(running, 60)
    assert len(asked.read_text()) >= 3, "no token ended: the test shows nothing"
    assert app.telemetry.registry.get_sample_value("tidewarden_client_rebuilds_total", {"what": "source"}) is None
    (scores,) = (await read_all(locked.broker.address, settings.sinks.scores["out"].topic)).values()
    assert len(scores) == sent, "nothing was sent twice"


REFUSALS = [
    ("mutual TLS", {"certificate_file": None}, "no TLS with the broker.*may want a certificate of ours"),
    ("mutual TLS", {"certificate_file": "stranger_certificate"}, "no TLS.*does the broker trust the authority of"),
    ("mutual TLS", {"ca_file": "stranger_ca"}, "the broker's certificate is not to be trusted.*ca_file names"),
    ("PLAIN", {"ca_file": None}, "not to be trusted: expected one .* signed by an authority that this system trusts"),
    ("PLAIN", {"password": "wrong"}, "refuses user 'reader': expected PLAIN on SASL_SSL, got .*check username"),
    ("SCRAM-SHA-256", {"password": "wrong"}, "refuses user 'reader': expected SCRAM-SHA-256"),
    ("SCRAM-SHA-512", {"username": "nobody"}, "refuses user 'nobody': expected SCRAM-SHA-512"),
    ("OAUTHBEARER", {"token_command": printing("abc")}, "refuses the token of .* the token is not accepted"),
]


@pytest.mark.parametrize(
    ("edge", "kind", "changes", "message"),
    [
        (edge, *each)
        for edge, some in (("source", REFUSALS), ("sink", REFUSALS[1:6:3]), ("store", REFUSALS[::6]))
        for each in some
    ],
)
async def test_whoever_is_refused_is_told_why_at_once(
    locked: Locked, edge: str, kind: str, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In seconds, though a broker that does not answer would be waited for; by whichever edge meets it first."""
    monkeypatch.setattr(connect, "_FIRST_S", 300.0)
    changes = {
        name: getattr(locked, value) if isinstance(value, str) and value.startswith("stranger") else value
        for name, value in changes.items()
    }
    bad = way(locked, kind, **changes)
    settings = await daemon(locked, {"bootstrap_servers": locked.broker.address}, partitions="0")
    told = settings.model_dump(mode="python", exclude_defaults=True)
    if edge == "source":
        told["sources"]["plant"] |= bad
    elif edge == "sink":
        told["sinks"]["scores"]["out"] |= bad
    else:
        told["checkpoint"] |= bad
    with pytest.raises(ConfigurationError, match=message):
        await asyncio.wait_for(App(Settings(**told)).run(), 30)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["sh", "-c", "echo the provider is away >&2; exit 3"], "'sh' ended with exit code 3: the provider is away"),
        (printing(token(-10)), r"printed a token that ended \d+ s ago"),
        (["sh", "-c", "echo"], "printed neither a token nor JSON"),
    ],
)
async def test_a_token_that_cannot_be_had_is_waited_for_and_told(
    locked: Locked, command: list[str], message: str
) -> None:
    """Whoever gives tokens may be away for a while as well; what the command said is in the error."""
    settings = await daemon(locked, way(locked, "OAUTHBEARER", token_command=command), partitions="0")
    with pytest.raises((SourceError, SinkError), match=message) as caught:
        await asyncio.wait_for(App(settings).run(), 30)
    assert caught.value.retriable


async def test_a_door_of_another_kind_is_told(locked: Locked) -> None:
    """TLS to a listener without, and the other way round: nobody answers, and the protocol is in the message."""
    for address, protocol in ((locked.broker.address, "SSL"), (locked.broker.addresses["SASL_SSL"], "PLAINTEXT")):
        settings = KafkaClientSettings(bootstrap_servers=address, security_protocol=protocol)
        with pytest.raises(TidewardenError, match=f"security_protocol is {protocol}"):
            await asyncio.wait_for(topic_settings(settings, "a", "here"), 30)
