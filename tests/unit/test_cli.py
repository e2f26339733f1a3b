"""The command line: what is found, what is imported, and how faults are told."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module, metadata
from typing import Any

import pytest
import typer

from detector import __version__, cli
from detector.errors import BundleError, ConfigurationError, SinkError


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "detector", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **environment},
    )


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Call `main` with the application replaced by something that raises; returns the exit code and stderr."""

    def call(error: BaseException) -> tuple[object, str]:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(cli, "app", fail)
        with pytest.raises(SystemExit) as exit_:
            cli.main([])
        return exit_.value.code, capsys.readouterr().err

    return call


def _first_sentence(command: Any) -> str:
    told = command.info.help if isinstance(command, typer.Typer) else command.__doc__
    return told.split("\n")[0]


class TestFinding:
    def test_help_lists_every_command_without_importing_one(self):
        """Neither torch nor ONNX Runtime nor a broker's client is loaded to print a list."""
        probe = (
            "import sys; from detector import cli\n"
            "try: cli.main(['--help'])\n"
            "except SystemExit: pass\n"
            "print([m for m in ('torch', 'onnxruntime', 'aiokafka', 'numpy', 'training') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
        assert done.stdout.strip().endswith("[]")
        for name in ("run", "demo", "score", "check", "inspect", "state", "verify", "schema", "train"):
            assert f" {name} " in done.stdout

    def test_line_of_each_command_is_its_own_first_sentence(self):
        """What `--help` shows without importing is what the command says of itself."""
        functions = {name: import_module(f"detector.commands.{name}").command for name in cli._OURS}
        functions |= {name: cli._registered()[name].load() for name in cli._OTHERS}
        said = {name: _first_sentence(function) for name, function in functions.items()}
        assert said == cli._OURS | cli._OTHERS

    def test_registered_commands_are_found(self):
        """`training` registers its commands as anybody could."""
        names = {each.name for each in metadata.entry_points(group="tidewarden.commands")}
        assert {"train", "export"} <= names
        assert names <= set(cli._registered())

    def test_misspelt_command_is_answered_with_the_nearest(self):
        """Usage errors exit with 2."""
        done = run("chekc")
        assert done.returncode == 2
        assert "check" in done.stderr

    def test_version_names_what_computes(self):
        """Ours, Python's and ONNX Runtime's."""
        done = run("--version")
        assert done.returncode == 0
        assert done.stdout.startswith(f"tidewarden {__version__}, python 3.")
        assert "onnxruntime" in done.stdout


class TestFaults:
    def test_configuration_error_is_one_line_and_exit_code_2(self, tmp_path):
        """No traceback for what the operator can put right."""
        path = tmp_path / "t.yaml"
        path.write_text("sources: {p: {type: plant}}\nhtpp: 1\n")
        done = run("run", "-c", str(path))
        assert done.returncode == 2
        assert done.stderr == f"error: {path}:2: htpp: expected a known key, got 'htpp' (did you mean http?)\n"

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ConfigurationError("a", "b", expected=1, got=2), 2),
            (BundleError("a", "b"), 1),
            (ExceptionGroup("tasks", [SinkError("a", "b")]), 1),
            (ExceptionGroup("tasks", [ExceptionGroup("more", [ConfigurationError("a", "b")]), SinkError("c", "d")]), 2),
        ],
    )
    def test_our_own_errors_are_told_without_a_traceback(self, called, error, code):
        """Also out of a group of tasks."""
        found, told = called(error)
        assert found == code
        assert told.startswith("error: a: b")
        assert "Traceback" not in told

    @pytest.mark.parametrize(
        ("module", "extra"), [("torch", "training"), ("pyarrow.parquet", "files"), ("onnxruntime", "cpu")]
    )
    def test_missing_extra_is_told_with_how_to_install_it(self, called, module, extra):
        """Not "No module named torch"."""
        found, told = called(ModuleNotFoundError(f"No module named {module!r}", name=module))
        assert found == 2
        assert f"{extra} needs: pip install 'tidewarden[{extra}]'" in told

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("ours to mend"),
            ModuleNotFoundError("No module named 'detector.x'", name="detector.x"),
            ExceptionGroup("tasks", [SinkError("a", "b"), ValueError("ours")]),
        ],
    )
    def test_faults_of_the_program_keep_their_traceback(self, monkeypatch, error):
        """The negative control: nothing else is swallowed."""

        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(cli, "app", fail)
        with pytest.raises(type(error)):
            cli.main([])

    def test_without_torch_train_says_what_to_install(self, tmp_path):
        """The entry point is there in every installation; its extra may not be."""
        (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
        configuration = tmp_path / "t.yaml"
        configuration.write_text("{}")
        done = run("train", "-c", str(configuration), PYTHONPATH=str(tmp_path))
        assert done.returncode == 2
        assert done.stderr == ("error: training needs: pip install 'tidewarden[training]' (torch is not installed)\n")
