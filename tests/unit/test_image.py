"""The container image: what its recipe says, and, where a Docker engine answers, what comes of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "Dockerfile").read_text()
STAGES = re.split(r"^FROM ", RECIPE, flags=re.MULTILINE)[1:]


def test_image_runs_as_a_numeric_user_that_is_not_root():
    """Kubernetes checks runAsNonRoot by number."""
    (user,) = re.findall(r"^USER (\S+)$", STAGES[-1], flags=re.MULTILINE)
    assert int(user.split(":")[0]) > 0


def test_image_is_built_from_the_lock_with_hashes():
    """Nothing is installed that was not locked; the wheel of ours comes without its dependencies."""
    installs = re.findall(r"pip install (.*)", RECIPE)
    assert any("--require-hashes" in each and "locks/run.txt" in each for each in installs)
    assert all("--no-deps" in each for each in installs)


def test_lock_of_the_image_has_no_torch():
    """Nor anything else that only training needs."""
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / "locks/run.txt").read_text(), flags=re.MULTILINE)
    assert "onnxruntime" in locked
    assert not {"torch", "onnx", "onnxscript", "plotly", "pandas"} & set(locked)


def test_last_stage_takes_only_the_environment():
    """No compiler, no sources, no package index in what is shipped."""
    assert len(STAGES) == 2
    assert "pip" not in STAGES[-1]
    assert re.findall(r"^COPY (.*)$", STAGES[-1], flags=re.MULTILINE) == [
        "--from=build /opt/tidewarden /opt/tidewarden"
    ]


def test_whatever_is_copied_is_let_through():
    """.dockerignore keeps everything out but what the recipe names."""
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (.*)$", STAGES[0], flags=re.MULTILINE) for name in line.split()[:-1]}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_health_is_asked_of_the_process_itself():
    """Through /livez, which knows nothing of brokers: a lost broker must not restart us."""
    assert "HEALTHCHECK" in STAGES[-1]
    assert "/livez" in STAGES[-1]


@pytest.mark.system
@pytest.mark.timeout(900)
def test_image_builds_and_runs_without_root():
    """Only where a Docker engine answers."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, timeout=60).returncode:
        pytest.skip("NOT TESTED: no Docker engine answers")
    subprocess.run([docker, "build", "-t", "tidewarden:test", "."], cwd=ROOT, check=True, timeout=600)
    run = [docker, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--entrypoint"]
    version = subprocess.run(
        [*run, "tidewarden", "tidewarden:test", "--version"], check=True, capture_output=True, text=True, timeout=60
    )
    assert version.stdout.startswith("tidewarden ")
    probe = "import importlib.util as u, os; assert os.getuid() == 1000 and u.find_spec('torch') is None"
    subprocess.run([*run, "python", "tidewarden:test", "-c", probe], check=True, timeout=60)
