"""Metrics and dashboard against a real Prometheus that scrapes a real daemon.

Needs the program `prometheus` on the path. Without it the tests are skipped, loudly; with
TIDEWARDEN_REQUIRE_PROMETHEUS=1 its absence fails.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.kafka.topics import create_topic, produce

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/dashboards/tidewarden.json"
SCRAPE = ROOT / "deploy/prometheus/prometheus.yml"
SUBSTITUTED = {"$__rate_interval": "10s", "$__range": "1m", "$instance": ".*"}
PATIENCE_S = 90.0
STREAMS, SAMPLES, SPEED = 20, 12_000, 150.0  # one sample a second and stream: the replay lasts 80 s


def program(name: str) -> str:
    """Where a program of Prometheus lies; skips or fails without it."""
    found = shutil.which(name)
    if found is None:
        told = f"{name} is not on the path: install Prometheus to run the tests of metrics and dashboard"
        if os.environ.get("TIDEWARDEN_REQUIRE_PROMETHEUS") == "1":
            pytest.fail(told)
        pytest.skip(told)
    return found


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.read()


def eventually(what: str, look: Any, patience_s: float = 30.0) -> Any:
    """What `look` returns once it is neither None nor an error of the network."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        try:
            if (found := look()) is not None:
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"no {what} within {patience_s} s")


@contextmanager
def process(arguments: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the block."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            arguments, stdout=output, stderr=output, cwd=log.parent, env={**os.environ, **environment}
        )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def write_feed(path: Path) -> None:
    """Sensors with a cycle and noise, a broken line now and then, and every few minutes a fault of one of them."""
    random = np.random.default_rng(1)
    with path.open("w") as file:
        for second in range(SAMPLES):
            for stream in range(STREAMS):
                value = math.sin(second / 30 + stream) + 0.1 * random.standard_normal()
                if second > 300 and second % 150 < 20 and second // 150 % STREAMS == stream:
                    value += 40.0
                sample = {"stream": f"s{stream}", "time": 1_700_000_000 + second, "values": {"v": round(value, 4)}}
                file.write(json.dumps(sample) + "\n")
            if second % 10 == 0:
                file.write("{broken\n")


@contextmanager
def serving(folder: Path, source: dict[str, Any]) -> Iterator[str]:
    """The address of a daemon that reads `source` and has every kind of sink and a checkpoint a second."""
    configuration = {
        "sources": {"feed": source},
        "detectors": {
            "default": {"bundle": str(ROOT / "tests/golden/tiny-any.onnx"), "decide": {"budget_per_day": 20}}
        },
        "sinks": {
            "alerts": {"out": {"type": "file", "path": "alerts.jsonl"}},
            "dead_letters": {"broken": {"type": "file", "path": "broken.jsonl"}},
        },
        "checkpoint": {"every_s": 1.0},
        "http": {"port": 0},
        "log": {"format": "json"},
    }
    (folder / "t.yaml").write_text(yaml.safe_dump(configuration))
    log = folder / "daemon.log"
    command = [sys.executable, "-m", "detector", "run", "-c", "t.yaml"]
    with process(command, log, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1") as running:

        def address() -> str | None:
            assert running.poll() is None, log.read_text()
            found = re.search(r'"url": "(http://[^"]+)"', log.read_text())
            return found[1] if found else None

        yield eventually("address of the daemon", address)


@contextmanager
def scraping(folder: Path, target: str) -> Iterator[str]:
    """The address of a Prometheus that scrapes `target` with our configuration, only more often."""
    scrape = yaml.safe_load(SCRAPE.read_text())
    scrape["global"]["scrape_interval"] = "1s"
    scrape["scrape_configs"][0]["static_configs"][0]["targets"] = [target.removeprefix("http://")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(scrape))
    with running_in(folder) as address:
        yield address


@contextmanager
def running_in(folder: Path) -> Iterator[str]:
    """The address of a Prometheus with the configuration and the data in a folder."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        program("prometheus"),
        "--config.file=prometheus.yml",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=100y",  # of tests that look at the past
        f"--web.listen-address={address}",
    ]
    with process(command, folder / "prometheus.log"):
        eventually("ready Prometheus", lambda: get(f"http://{address}/-/ready"))
        yield f"http://{address}"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon that replays a feed."""
    program("prometheus")
    folder = tmp_path_factory.mktemp("daemon")
    write_feed(folder / "feed.jsonl")
    with serving(folder, {"type": "file", "paths": ["feed.jsonl"], "speed": SPEED}) as address:
        yield address


@pytest.fixture(scope="module")
def prometheus(daemon: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes it."""
    with scraping(tmp_path_factory.mktemp("prometheus"), daemon) as address:
        yield address


def query(prometheus: str, expression: str) -> list[float]:
    """The values of an instant query; fails where Prometheus does not understand it."""
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    answer = json.loads(get(url))
    assert answer["status"] == "success", (expression, answer)
    return [float(each["value"][1]) for each in answer["data"]["result"]]


def queries() -> dict[str, str]:
    """Every query of the dashboard, of panels and annotations, with its variables substituted."""
    board = json.loads(DASHBOARD.read_text())
    told = {f"{panel['title']} {each['refId']}": each for panel in board["panels"] for each in panel.get("targets", ())}
    told |= {each["name"]: each for each in board["annotations"]["list"]}
    return {name: _substituted(each["expr"]) for name, each in told.items()}


def _substituted(expression: str) -> str:
    for variable, value in SUBSTITUTED.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"{expression}: a variable that the test does not know"
    return expression


def needs_append_time(expression: str) -> bool:
    """Files know no append time: these series are there, without observations; a broker's test asks for them."""
    return "processing_delay" in expression


def has_data(values: list[float]) -> bool:
    """Prometheus divides nothing by nothing into NaN, which no panel shows."""
    return bool(values) and not any(map(math.isnan, values))


def test_every_query_of_the_dashboard_returns_data(prometheus: str) -> None:
    """A panel that stays empty is what users of other tools complain of most."""
    waiting = queries()
    assert len(waiting) > 30
    until = time.monotonic() + PATIENCE_S
    while waiting and time.monotonic() < until:
        for name, expression in list(waiting.items()):
            values = query(prometheus, expression)
            if has_data(values) or (values and needs_append_time(expression)):
                del waiting[name]
        time.sleep(0.5)
    assert not waiting


async def test_append_to_score_is_told_where_a_broker_stamps_records(kafka: str, tmp_path: Path) -> None:
    """The panels that a file leaves empty, with a daemon on a real Kafka: the delay lies between 0 and seconds."""
    program("prometheus")
    topic = await create_topic(kafka)
    waiting = {name: expression for name, expression in queries().items() if needs_append_time(expression)}
    assert waiting
    source = {"type": "kafka", "bootstrap_servers": kafka, "topics": [topic], "partitions": "0"}
    with serving(tmp_path, source) as daemon, scraping(tmp_path, daemon) as prometheus:
        until = time.monotonic() + PATIENCE_S
        for tick in count():
            assert time.monotonic() < until, waiting
            sample = {"stream": "s", "time": time.time(), "values": {"v": tick % 7}}
            await produce(kafka, topic, [json.dumps(sample).encode()])
            waiting = {name: each for name, each in waiting.items() if not has_data(query(prometheus, each))}
            if not waiting:
                break
            await asyncio.sleep(0.3)
        (seconds,) = query(prometheus, "tidewarden_processing_delay_seconds_sum")
        assert 0 < seconds / (tick + 1) < 5


def test_a_query_without_data_is_noticed(prometheus: str) -> None:
    """The negative control: a metric that does not exist gives nothing."""
    assert query(prometheus, "tidewarden_no_such_metric") == []


def test_numbers_are_those_of_the_daemon(prometheus: str, daemon: str) -> None:
    """What Prometheus has is what the status page says, but for the second that lies between."""
    eventually("streams", lambda: (query(prometheus, "sum(tidewarden_streams)") == [STREAMS]) or None)
    status = json.loads(get(f"{daemon}/status.json"))
    assert status["streams"] == STREAMS
    (records,) = query(prometheus, "sum(tidewarden_records_total)")
    assert 0 < records <= json.loads(get(f"{daemon}/status.json"))["records"]


def test_names_and_help_satisfy_promtool(daemon: str) -> None:
    """Units, suffixes and help as Prometheus' own linter wants them."""
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=get(f"{daemon}/metrics"), capture_output=True, timeout=30
    )
    complaints = [line for line in done.stderr.decode().splitlines() if line.startswith("tidewarden_")]
    assert complaints == []


def test_scrape_configuration_is_valid() -> None:
    """Promtool reads it as Prometheus would."""
    done = subprocess.run(
        [program("promtool"), "check", "config", str(SCRAPE)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
