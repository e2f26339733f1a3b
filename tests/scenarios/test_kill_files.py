"""SIGKILL without a broker: the daemon on a growing file, killed and started again, as a process."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from detector.app import App
from tests.scenarios.daemon import DETECTOR, NARROW, append, append_narrow, lines, settings, start

KILLS = 4


@pytest.mark.parametrize("shape", ["wide", "narrow"])
def test_kills_change_nothing_in_a_file_of_alerts(shape: str, tmp_path: Path) -> None:
    """Each alert once and in order, each score there with its bits; as of a daemon left in peace."""
    add, record = (append, {}) if shape == "wide" else (append_narrow, NARROW)
    detectors = {"pumps": DETECTOR | ({"channels": ["flow", "heat"]} if record else {})}
    killed, peaceful = tmp_path / "killed", tmp_path / "peaceful"
    killed.mkdir()
    peaceful.mkdir()
    source = {"type": "file", "paths": [str(killed / "in.jsonl")], "record": record}
    settings(killed, sources={"lines": source | {"mode": "tail"}}, detectors=detectors)
    add(killed, 0, 300)
    with ThreadPoolExecutor(1) as writer:
        is_over = threading.Event()
        writing = writer.submit(_write_slowly, killed, add, is_over)
        try:
            for _ in range(KILLS):
                _run_and_kill(killed)
        finally:
            is_over.set()
        writing.result()
    _run_to_the_end(killed, lines_a_sample=2 if record else 1)
    (peaceful / "in.jsonl").write_bytes((killed / "in.jsonl").read_bytes())
    source["paths"] = [str(peaceful / "in.jsonl")]
    asyncio.run(App(settings(peaceful, sources={"lines": source}, detectors=detectors)).run())
    assert _alerts(killed) == _alerts(peaceful)
    assert len(_alerts(killed)) > 20
    assert _scores(killed) == _scores(peaceful)


def _write_slowly(folder: Path, add: Callable[[Path, int, int], None], is_over: threading.Event) -> None:
    """Lines keep coming until the last kill is over."""
    for tick in range(300, 5000, 5):
        add(folder, tick, tick + 5)
        if is_over.wait(0.05):
            return


def _run_and_kill(folder: Path) -> None:
    """Start, wait until it works, kill at a random moment; it must have been alive."""
    daemon = start(folder)
    try:
        before, deadline_s = _count(folder), time.monotonic() + 90
        while _count(folder) == before:
            assert time.monotonic() < deadline_s, (folder / "log").read_text()
            time.sleep(0.02)
        time.sleep(random.uniform(0.02, 0.6))
        assert daemon.poll() is None, (folder / "log").read_text()
    finally:
        daemon.kill()
        daemon.wait()


def _run_to_the_end(folder: Path, lines_a_sample: int) -> None:
    """Start, wait until everything is scored, drain."""
    starts = _restored(folder)
    daemon = start(folder)
    try:
        deadline_s = time.monotonic() + 90
        while _restored(folder) == starts:
            assert time.monotonic() < deadline_s, (folder / "log").read_text()
            time.sleep(0.02)
        _wait_for(folder, (folder / "in.jsonl").read_bytes().count(b"\n") // lines_a_sample)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(90) == 0
    finally:
        daemon.kill()
        daemon.wait()


def _restored(folder: Path) -> int:
    return (folder / "log").read_text().count("shard restored")


def _count(folder: Path) -> int:
    path = folder / "scores.jsonl"
    return path.stat().st_size if path.exists() else 0


def _wait_for(folder: Path, count: int) -> None:
    deadline_s = time.monotonic() + 90
    while len(_scores(folder)) < count:
        assert time.monotonic() < deadline_s, (folder / "log").read_text()
        time.sleep(0.1)


def _alerts(folder: Path) -> list[dict[str, object]]:
    """Everything but what names the file."""
    alerts = lines(folder / "alerts.jsonl")
    assert len({alert["id"] for alert in alerts}) == len(alerts)
    return [alert | {"id": None, "anomaly_id": None, "source": alert["source"]["offset"]} for alert in alerts]


def _scores(folder: Path) -> dict[tuple[str, int], float]:
    """Of whole lines; a score that came twice must be the same both times."""
    found: dict[tuple[str, int], float] = {}
    for line in (folder / "scores.jsonl").read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            score = json.loads(line)
            assert found.setdefault((score["stream"], score["time_ns"]), score["score"]) == score["score"]
    return found
