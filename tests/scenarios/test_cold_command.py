"""`tidewarden run --cold` as an operator types it, after a file or a bundle was replaced under a checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.golden import learner
from tests.scenarios.daemon import DETECTOR, ROOT, append, lines, settings

DEADLINE_S = 120.0  # for what takes seconds; a crowded machine


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The daemon over the whole file; it ends by itself."""
    command = [sys.executable, "-m", "detector", "run", "-c", str(folder / "config.yaml"), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def said(done: subprocess.CompletedProcess[str], event: str) -> list[dict[str, Any]]:
    """Log lines that begin like this."""
    found = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return [entry for entry in found if entry["event"].startswith(event)]


def test_a_replaced_file_is_refused_and_with_cold_begun_anew(tmp_path: Path) -> None:
    """The refusal says what to type; typed, it says per stream what is lost; the next start needs it no longer."""
    source = {"type": "file", "paths": [str(tmp_path / "in.jsonl")], "mode": "replay"}
    settings(tmp_path, sources={"lines": source}, log={"format": "json"})
    append(tmp_path, 0, 200)
    assert run(tmp_path).returncode == 0
    (tmp_path / "in.jsonl").unlink()
    append(tmp_path, 1000, 1300)
    refused = run(tmp_path)
    assert refused.returncode == 1
    assert "tidewarden run --cold" in refused.stderr
    assert str(tmp_path / "state") in refused.stderr
    scores = len(lines(tmp_path / "scores.jsonl"))
    cold = run(tmp_path, "--cold")
    assert cold.returncode == 0, cold.stderr
    lost = said(cold, "a stream's memory is given up")
    assert {entry["stream"] for entry in lost} == {"p0", "p1", "p2"}
    assert {entry["last_heard"] for entry in lost} == {"2020-09-13T12:59:50+00:00"}
    (summed,) = said(cold, "starting without memory, as --cold says")
    assert summed["streams"] == 3
    assert str(tmp_path / "state") in summed["old_checkpoint"]
    assert len(lines(tmp_path / "scores.jsonl")) == scores + 900
    append(tmp_path, 1300, 1310)
    again = run(tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(said(again, "shard restored")) == 1


def test_settings_that_name_a_bundle_of_other_rows_are_refused_and_with_cold_begun_anew(tmp_path: Path) -> None:
    """The refusal touches nothing, and the bundle of before goes on; typed, --cold begins with the new one."""
    append(tmp_path, 0, 200)
    settings(tmp_path, log={"format": "json"})
    assert run(tmp_path).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()}
    other = {"detectors": {"pumps": DETECTOR | {"bundle": str(learner.PATH)}}, "log": {"format": "json"}}
    append(tmp_path, 200, 210)
    settings(tmp_path, **other)
    refused = run(tmp_path)
    assert refused.returncode == 1
    named = "bundle of detector 'pumps'"
    for words in (named, "expected rows of tiny-any@1", "got learner@1", "tidewarden run --cold"):
        assert words in refused.stderr
    assert {path: path.read_bytes() for path in before} == before
    settings(tmp_path, log={"format": "json"})
    assert len(said(run(tmp_path), "shard restored")) == 1
    assert len(lines(tmp_path / "scores.jsonl")) == 630
    append(tmp_path, 210, 220)
    settings(tmp_path, **other)
    cold = run(tmp_path, "--cold")
    assert cold.returncode == 0, cold.stderr
    assert {entry["stream"] for entry in said(cold, "a stream's memory is given up")} == {"p0", "p1", "p2"}
    assert len(lines(tmp_path / "scores.jsonl")) == 630 + 660, "from the beginning, as `start` says"
    assert len(said(run(tmp_path), "shard restored")) == 1
