"""A real Apache Kafka broker, wherever this machine can get one.

Looked for in this order:

1. `TIDEWARDEN_TEST_KAFKA`: the address of a broker that somebody else runs,
2. a Docker engine that answers: the official image,
3. Java 17 and, for the first time, Maven: one KRaft node from Apache's own jars (pom.xml beside this file), which are
   kept in `.cache/kafka`.

`broker()` is a context manager that yields `host:port`; `python -m tests.kafka.broker` runs one until it is
interrupted. `own_broker()` yields a `Broker` of the third kind, which a test may freeze, stop and start again, and
which may have more listeners (`tests/kafka/security.py`). A broker started here listens on loopback only, on free
ports, keeps its log in a temporary folder and is ended by its own process id (or container id).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.kafka.topics import is_up

_HERE = Path(__file__).parent
_JARS = _HERE.parents[1] / ".cache" / "kafka"
_IMAGE = "apache/kafka:4.1.1"
_START_S = 200.0  # a very busy machine; 4 s is usual
_FETCH_S = 240.0  # Maven with an empty repository, or the image
_STOP_S = 10.0
_PORTS = range(10_000, 30_000)  # below those that systems give to clients


class NoBrokerError(RuntimeError):
    """No way to a broker was found, or it did not come up; the message says what was tried."""


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """Yield the bootstrap address of a broker that answers; end it afterwards if it was started here."""
    given = os.environ.get("TIDEWARDEN_TEST_KAFKA")
    if given:
        _wait_until_up(given, process=None)
        yield given
        return
    tried = ["TIDEWARDEN_TEST_KAFKA is not set"]
    for way in (_in_docker, _in_java):
        with contextlib.ExitStack() as running:
            try:
                address = running.enter_context(way())
            except NoBrokerError as error:
                tried.append(str(error))
                continue
            yield address
            return
    raise NoBrokerError(f"no Kafka: {'; '.join(tried)}")


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@contextlib.contextmanager
def _in_docker() -> Iterator[str]:
    if not _docker_answers():
        raise NoBrokerError("no Docker engine answers")
    port, controller = _free_ports(2)
    settings = _properties(port, controller, listen="0.0.0.0", folder="/tmp/kafka-logs")
    environment = [f"--env=KAFKA_{key.upper().replace('.', '_')}={value}" for key, value in settings.items()]
    publish = f"--publish=127.0.0.1:{port}:{port}"  # the listener is open inside the container only
    run = ["docker", "run", "--detach", "--rm", publish, *environment, f"--env=CLUSTER_ID={_cluster_id()}", _IMAGE]
    container = _run(run, _FETCH_S).strip()
    try:
        _wait_until_up(f"127.0.0.1:{port}", process=None)
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run(["docker", "kill", container], capture_output=True, timeout=30, check=False)


@contextlib.contextmanager
def _in_java() -> Iterator[str]:
    with own_broker() as running:
        yield running.address


@dataclass(frozen=True)
class Listener:
    """One more way into a broker."""

    name: str
    """Its security protocol: SSL, SASL_SSL and so on."""
    settings: Mapping[str, object]
    """The broker's properties, without the prefix that names the listener."""


class Broker:
    """A broker as a process of ours: one KRaft node, always on the same ports and the same log."""

    def __init__(self, folder: Path, listeners: Sequence[Listener]) -> None:
        self._folder, self._process = folder, None
        self._java = ["java", "-Xmx512m", "-Xms128m", "-cp", f"{_jars()}/*"]
        port, controller, *others = _free_ports(2 + len(listeners))
        self.address = f"127.0.0.1:{port}"
        """Where it listens without any security."""
        self.addresses = {each.name: f"localhost:{at}" for each, at in zip(listeners, others, strict=True)}
        """Where the other listeners are."""
        settings = dict(_properties(port, controller, listen="127.0.0.1", folder=f"{folder}/data"))
        for each in listeners:
            for key in ("listeners", "advertised.listeners"):
                settings[key] = f"{settings[key]},{each.name}://{self.addresses[each.name]}"
            settings["listener.security.protocol.map"] += f",{each.name}:{each.name}"
            prefix = f"listener.name.{each.name.lower()}."
            settings |= {prefix + key: value for key, value in each.settings.items()}
        self._properties = folder / "server.properties"
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    def format(self, *options: str) -> None:
        """Make the log's folder fit for use, once."""
        tool = ["-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format", "-t", _cluster_id()]
        _run([*self._java, *tool, "-c", str(self._properties), *options], _START_S)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        output = self._folder / "output.txt"
        with output.open("ab") as log:
            # A session of its own: an interrupt typed at pytest ends the tests first, then the broker.
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._properties)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _wait_until_up(self.address, self._process, output)

    def freeze(self) -> None:
        """SIGSTOP: connections stay, and nobody answers once this returns (its threads stop one by one)."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, whatever state it is in; connections are refused until the next start."""
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(signal.SIGCONT)
            _end(process)


@contextlib.contextmanager
def own_broker(listeners: Sequence[Listener] = (), scram: Sequence[str] = ()) -> Iterator[Broker]:
    """A broker that the test may stop and start again.

    Args:
        listeners: Beside the one without security.
        scram: Users, as `kafka-storage format --add-scram` takes them.
    """
    if shutil.which("java") is None:
        raise NoBrokerError("java is not installed")
    with tempfile.TemporaryDirectory(prefix="tidewarden-kafka-", ignore_cleanup_errors=True) as folder:
        running = Broker(Path(folder), listeners)
        running.format(*[option for user in scram for option in ("--add-scram", user)])
        try:
            running.start()
            yield running
        finally:
            running.stop()


def _jars() -> Path:
    """The folder with Apache's jars; filled by Maven the first time, moved into place when complete."""
    if _JARS.is_dir():
        return _JARS
    if shutil.which("mvn") is None:
        raise NoBrokerError(f"mvn is not installed, and {_JARS} is not there")
    _JARS.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_JARS.parent) as folder:
        fetch = ["mvn", "-q", "-B", "-f", str(_HERE / "pom.xml"), "dependency:copy-dependencies"]
        _run([*fetch, f"-DoutputDirectory={folder}/lib"], _FETCH_S)
        with contextlib.suppress(OSError):  # somebody else was faster: theirs is as good
            os.rename(f"{folder}/lib", _JARS)
    return _JARS


def _run(command: Sequence[str], timeout_s: float) -> str:
    """Run a command to its end and return what it printed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise NoBrokerError(f"{command[0]} took longer than {timeout_s:.0f} s") from error
    if done.returncode != 0:
        raise NoBrokerError(f"{' '.join(command[:3])}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


def _properties(port: int, controller: int, listen: str, folder: str) -> Mapping[str, object]:
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "listeners": f"PLAINTEXT://{listen}:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "log.dirs": folder,
        "auto.create.topics.enable": "false",  # as in production: a misspelt topic must be an error
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
    }


def _cluster_id() -> str:
    return urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode().replace("-", "A").replace("_", "B")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody uses, and that no client is given while nobody listens.

    Not even by trying to reach a broker that is stopped: such a client may be given that very port, and reach itself.
    """
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            each = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                each.bind(("127.0.0.1", port := random.SystemRandom().choice(_PORTS)))
                ports.append(port)
        return ports


def _wait_until_up(address: str, process: subprocess.Popen[bytes] | None, output: Path | None = None) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            break
        if _is_up(address):
            return
        time.sleep(0.1)
    said = output.read_text(errors="replace")[-2000:] if output is not None else ""
    raise NoBrokerError(f"the broker at {address} did not answer within {_START_S:.0f} s: {said}")


def _is_up(address: str) -> bool:
    """Asked in a thread: the caller may be inside an event loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(is_up(address))).result()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_S)


def main() -> int:
    """Run a broker until interrupted; its address is the only line on standard output."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), broker() as address:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
