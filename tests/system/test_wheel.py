"""The built wheel, installed elsewhere: nothing that a user needs lies only in the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LIMIT_S = 200


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("tidewarden-*.whl"))


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory) -> Path:
    """`tidewarden` in a fresh environment; its dependencies are borrowed from ours, to be quick."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run(
        [*install, str(wheel)], check=True, timeout=_LIMIT_S, env=os.environ | {"PIP_CONFIG_FILE": os.devnull}
    )
    # Python reads no .pth files of a folder that it only knows from a .pth file: an editable install there is not seen.
    site = next(home.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home / "bin" / "tidewarden"


def run(command: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run it away from the checkout, with nothing of ours in the environment."""
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HOME": str(cwd)}
    words = [str(command), *map(str, arguments)]
    return subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )


def test_the_wheel_holds_the_bundle_and_the_plant_but_no_tests(wheel):
    """What is shipped, and what is not."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"detector/bundles/default.onnx", "detector/demo/plant.py", "training/cli.py"} <= names
    assert not any(name.startswith(("tests/", "docs/")) for name in names)


def test_it_is_the_wheel_that_runs(command, tmp_path):
    """Guards the tests below: the checkout is not what they import."""
    where = [str(command.with_name("python")), "-c", "import detector; print(detector.__file__)"]
    done = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert Path(done.stdout.strip()).is_relative_to(command.parents[1])


def test_score_runs_from_the_wheel(command, tmp_path):
    """With the bundle in the box and a CSV file of the user's."""
    rows = [f"2026-03-02T{i // 60:02d}:{i % 60:02d}:00Z,{20 + i % 7},{3 - i % 3}" for i in range(600)]
    (tmp_path / "mine.csv").write_text("\n".join(["time,flow,pressure", *rows]) + "\n")
    done = run(command, "score", "--input", "mine.csv", "--output", "scores.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "600 rows, 1 streams, 1 files" in done.stderr
    assert (tmp_path / "scores.csv").read_text().count("\n") == 601


def test_the_demo_runs_from_the_wheel(command, tmp_path):
    """It finds a fault, and leaves its state where it was started."""
    done = run(command, "demo", "--hours", "4", "--speed", "3600", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[fault: " in done.stdout
    assert (tmp_path / ".tidewarden-demo" / "alerts.jsonl").exists()
