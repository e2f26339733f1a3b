"""`tidewarden demo` as users start it: a process, from its first line to its last."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

_LIMIT_S = 120  # for any of these; none needs half of it
SHORT = ["--hours", "5", "--speed", "3600", "--seed", "7"]


def start(state: Path, *options: str) -> subprocess.Popen[str]:
    """A demo with its output in a pipe."""
    command = [sys.executable, "-m", "detector", "demo", "--state", str(state), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> str:
    """The rest of its output; it must have ended well."""
    try:
        output, _ = process.communicate(timeout=_LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, output
    return output


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """Lines up to the first that holds `text`."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    pytest.fail(f"{text!r} never came: {''.join(lines)}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A demo from its beginning to its end: its state, and what it printed."""
    state = tmp_path_factory.mktemp("whole") / "state"
    return state, finish(start(state, *SHORT))


def test_the_demo_finds_faults_and_ends_by_itself(whole):
    """Without a terminal it prints lines, names a fault that it found, and says how many it found in the end."""
    _, output = whole
    assert "continuing" not in output
    assert "status page http://127.0.0.1:" in output
    assert "[fault: " in output
    assert "FIRING" in output
    verdict = output.strip().splitlines()[-1]
    found, known = figures(verdict)
    assert 1 <= found <= known, verdict


def test_a_demo_that_came_to_its_end_starts_anew(whole, tmp_path):
    """It says so, and does not sit at the end of a plant's day for ever."""
    shutil.copytree(whole[0], tmp_path / "state")
    process = start(tmp_path / "state", *SHORT)
    read_until(process, "the earlier demo had come to its end: starting anew")
    read_until(process, "FIRING")
    process.send_signal(signal.SIGINT)
    finish(process)


def figures(verdict: str) -> tuple[int, int]:
    """Found and known."""
    words = verdict.split()
    assert words[0] == "found", verdict
    return int(words[1]), int(words[3])


def test_ctrl_c_drains_and_the_next_start_continues(whole, tmp_path):
    """What an interrupted and continued demo finds is what an undisturbed one finds, alert by alert."""
    process = start(tmp_path / "state", *SHORT)
    read_until(process, "FIRING")
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert "drained; the next start goes on from the checkpoint" in output
    output = finish(start(tmp_path / "state", *SHORT))
    assert "continuing from the checkpoint of" in output
    assert "50 streams" in output
    assert alerts(tmp_path / "state") == alerts(whole[0])


def alerts(state: Path) -> list[str]:
    """Ids of all alerts, in order; none may come twice."""
    ids = [json.loads(line)["id"] for line in (state / "alerts.jsonl").read_text().splitlines()]
    assert len(set(ids)) == len(ids) > 0
    return ids


def test_the_addresses_answer(tmp_path):
    """Status page and metrics are where the demo says they are."""
    process = start(tmp_path / "state", "--speed", "60")
    try:
        line = read_until(process, "status page")[-1]
        page, metrics = (word for word in line.split() if word.startswith("http"))
        deadline = time.monotonic() + 60
        while b"tidewarden_records_total" not in (found := urllib.request.urlopen(metrics, timeout=5).read()):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        assert b"demo" in urllib.request.urlopen(page, timeout=5).read()
        process.send_signal(signal.SIGTERM)
        assert "drained" in finish(process)
    finally:
        process.kill()
        process.wait()
