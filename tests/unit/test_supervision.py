"""What may pass is survived, and what does not ends the daemon: counted failures, and a daemon whose sink breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from detector import app as app_module
from detector import supervision
from detector.app import App
from detector.clock import ManualClock
from detector.errors import CheckpointError, ConfigurationError, DataLostError, SinkError, SourceError, TidewardenError
from detector.records import Alert, Shard
from detector.settings import SinkSettings
from detector.sinks import make_sink
from detector.sinks.base import Sink
from detector.sinks.file import FileSink
from detector.supervision import Supervisor, culprit
from detector.telemetry import Telemetry
from tests.scenarios.daemon import append, lines, settings

SINK, SOURCE, STORE = SinkError("out", "lost"), SourceError("in", "silent"), CheckpointError("state", "gone")
FATAL = DataLostError("in", "gone")


@pytest.fixture
def supervised() -> tuple[Supervisor, Telemetry, ManualClock]:
    """A supervisor whose pipeline runs."""
    clock = ManualClock()
    telemetry = Telemetry(clock=clock)
    supervisor = Supervisor(telemetry, clock)
    supervisor.began()
    return supervisor, telemetry, clock


Supervised = tuple[Supervisor, Telemetry, ManualClock]


def test_the_third_failure_in_a_row_ends_the_daemon(supervised: Supervised) -> None:
    """The pauses before it grow, and are never the same for two replicas that lost the same broker."""
    supervisor, telemetry, _ = supervised
    for failure, low, high in ((SINK, 1, 2), (SOURCE, 10, 20)):
        assert low <= supervisor.pause_after(failure, is_draining=False) <= high
        supervisor.began()
    with pytest.raises(CheckpointError, match="gone"):
        supervisor.pause_after(STORE, is_draining=False)
    rebuilds = {
        what: telemetry.registry.get_sample_value("tidewarden_client_rebuilds_total", {"what": what})
        for what in ("sink", "source", "store")
    }
    assert rebuilds == {"sink": 1, "source": 1, "store": None}


@pytest.mark.parametrize("failure", [FATAL, ConfigurationError("x", "y"), ValueError("a bug")])
def test_what_does_not_pass_ends_it_at_once(supervised: Supervised, failure: Exception) -> None:
    """A setting that is wrong, data that are lost, a fault of ours."""
    with pytest.raises(type(failure)):
        supervised[0].pause_after(failure, is_draining=False)


def test_a_failure_at_the_first_start_ends_it_at_once() -> None:
    """An address may be misspelt, and somebody is looking."""
    clock = ManualClock()
    with pytest.raises(SourceError):
        Supervisor(Telemetry(clock=clock), clock).pause_after(SOURCE, is_draining=False)


def test_a_failure_while_draining_ends_it_at_once(supervised: Supervised) -> None:
    """Whoever sent SIGTERM does not wait for new connections; the next start replays."""
    with pytest.raises(SinkError):
        supervised[0].pause_after(SINK, is_draining=True)


def test_a_durable_checkpoint_ends_the_row(supervised: Supervised) -> None:
    """Hundreds of failures with progress in between are no reason to end."""
    supervisor, telemetry, _ = supervised
    for _ in range(20):
        telemetry.checkpointed(Shard("c", "t", 0), position=1, seconds=0.1, rows=1, size_bytes=1)
        assert supervisor.pause_after(SINK, is_draining=False) <= 2
        supervisor.began()


def test_five_steady_minutes_end_the_row(supervised: Supervised) -> None:
    """Where nothing is written there is nothing to checkpoint; a broker that restarts every night is survived."""
    supervisor, _, clock = supervised
    for _ in range(20):
        clock.advance(300)
        assert supervisor.pause_after(SINK, is_draining=False) <= 2
        supervisor.began()


def test_minutes_of_waiting_for_a_broker_are_not_steady(supervised: Supervised) -> None:
    """Only a pipeline that runs shows that the failure is over."""
    supervisor, _, clock = supervised
    for _ in range(2):
        supervisor.pause_after(SINK, is_draining=False)
        clock.advance(3600)
    with pytest.raises(SinkError):
        supervisor.pause_after(SINK, is_draining=False)


def test_of_many_failures_the_one_that_does_not_pass_is_judged() -> None:
    """Whatever came first; else the first, for the others follow from it."""
    assert culprit(ExceptionGroup("a", [ExceptionGroup("b", [SINK, SOURCE]), STORE])) is SINK
    assert culprit(ExceptionGroup("a", [SINK, ExceptionGroup("b", [SOURCE, FATAL])])) is FATAL
    assert culprit(SOURCE) is SOURCE


def test_a_rebuilding_daemon_says_why_it_is_not_ready(supervised: Supervised) -> None:
    """Its shards are nobody's until it has them again."""
    supervisor, telemetry, _ = supervised
    shard = Shard("c", "t", 0)
    telemetry.self_tested()
    telemetry.assigned("in", [shard])
    telemetry.restored(shard, 0)
    assert telemetry.status.unready() == []
    supervisor.pause_after(SINK, is_draining=False)
    assert telemetry.status.unready() == ["building all connections anew, after out: lost"]
    assert telemetry.status.shards == {}
    supervisor.began()
    assert telemetry.status.unready() == []


# The whole daemon, with a sink that breaks


class Breaking(FileSink):
    """A sink of alerts that loses its connection when a number of alerts have passed it."""

    breaks_at: Sequence[int] = ()
    passed = 0

    async def deliver_alerts(self, shard: Shard, alerts: Sequence[Alert]) -> None:
        """Deliver, or break."""
        cls = type(self)
        cls.passed += len(alerts)
        if cls.breaks_at and cls.passed >= cls.breaks_at[0]:
            cls.breaks_at = cls.breaks_at[1:]
            raise SinkError(self.name, "lost its connection")
        await super().deliver_alerts(shard, alerts)


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the sink of alerts break at these numbers of alerts; pauses are short."""

    def at(*numbers: int, pauses_s: tuple[float, ...] = (0.01, 0.02)) -> None:
        def make(name: str, each: SinkSettings) -> Sink:
            return Breaking(name, each) if name == "out" else make_sink(name, each)

        monkeypatch.setattr(app_module, "make_sink", make)
        monkeypatch.setattr(Breaking, "breaks_at", numbers)
        monkeypatch.setattr(Breaking, "passed", 0)
        monkeypatch.setattr(supervision, "_PAUSES_S", pauses_s)

    return at


def rebuilds(app: App) -> float:
    """How often the daemon was built anew because of a sink."""
    return app.telemetry.registry.get_sample_value("tidewarden_client_rebuilds_total", {"what": "sink"}) or 0


def scored(path: Path) -> set[tuple[str, int, float]]:
    """Every score; where one came twice, both are the same."""
    found = {(line["stream"], line["time_ns"]): line["score"] for line in lines(path)}
    for line in lines(path):
        assert found[line["stream"], line["time_ns"]] == line["score"]
    return {(*key, score) for key, score in found.items()}


async def test_a_daemon_built_anew_loses_and_doubles_nothing(tmp_path: Path, breaking: Callable[..., None]) -> None:
    """Two failures: the same alerts, each once, and the same scores as of a daemon that had none."""
    for name in ("calm", "broken"):
        (tmp_path / name).mkdir()
        append(tmp_path / name, 0, 300)
    await asyncio.wait_for(App(settings(tmp_path / "calm")).run(), 30)
    breaking(3, 6)
    app = App(settings(tmp_path / "broken"))
    await asyncio.wait_for(app.run(), 30)
    assert rebuilds(app) == 2
    calm, broken = (
        [alert["score"] for alert in lines(tmp_path / name / "alerts.jsonl")] for name in ("calm", "broken")
    )
    assert len(calm) > 6
    assert sorted(broken) == sorted(calm)
    assert scored(tmp_path / "broken/scores.jsonl") == scored(tmp_path / "calm/scores.jsonl")


async def test_a_daemon_that_keeps_failing_ends_with_the_failure(tmp_path: Path, breaking: Callable[..., None]) -> None:
    """After the third, with an exit code that is not zero."""
    breaking(1, 1, 1)
    append(tmp_path, 0, 300)
    app = App(settings(tmp_path))
    with pytest.raises(TidewardenError, match="lost its connection") as caught:
        await asyncio.wait_for(app.run(), 30)
    assert caught.value.exit_code == 1
    assert rebuilds(app) == 2


def probe(app: App, path: str) -> int:
    """What the daemon's HTTP answers."""
    assert app.server is not None
    try:
        with urlopen(f"http://127.0.0.1:{app.server.port}{path}", timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


async def test_while_it_waits_it_lives_is_not_ready_and_ends_at_a_word(
    tmp_path: Path, breaking: Callable[..., None]
) -> None:
    """Liveness is true, or the orchestrator would kill what is just waiting; SIGTERM needs no broker."""
    breaking(1, pauses_s=(60.0, 60.0))
    append(tmp_path, 0, 300)
    app = App(settings(tmp_path))
    running = asyncio.create_task(app.run())
    async with asyncio.timeout(30):
        while not rebuilds(app):
            await asyncio.sleep(0.02)
    assert await asyncio.to_thread(probe, app, "/livez") == 200
    assert await asyncio.to_thread(probe, app, "/readyz") == 503
    app.drain()
    await asyncio.wait_for(running, 5)
