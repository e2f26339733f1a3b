"""One command, `tidewarden`: finds its sub-commands by name and imports them on use.

Our own come from a table; further ones from the entry-point group `tidewarden.commands`, where `training` registers
its. So `tidewarden --help` lists `train` without importing torch, and without torch `tidewarden train` says what to
install. What the operator can put right is one line on standard error, without a traceback.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from detector import __version__, versions
from detector.errors import ConfigurationError, TidewardenError

_GROUP = "tidewarden.commands"

_OURS = {
    "run": "Serve: read streams, score them, alert.",
    "demo": "Watch Tidewarden find faults in a synthetic plant.",
    "score": "Score files offline, with the engine that serves.",
    "check": "Check a configuration and its bundles, and with --connect what it connects to.",
    "inspect": "Look into a bundle, or a folder of checkpoints.",
    "state": "List, show, export, import, fork and compare streams' memory.",
    "verify": "Compute a range of the past again and compare it with what was sent.",
    "schema": "Print the JSON Schema of the configuration or of alerts.",
}
"""Module in detector.commands, and the line that `--help` shows without importing it."""

_OTHERS = {
    "train": "Learn from history: leaves a run folder with report and bundle.onnx.",
    "export": "Make the bundle of a run again.",
    "evaluate": "Measure a bundle on public suites, with floors and published figures beside it.",
}
"""Help for commands that an installed package is known to register."""

_EXTRAS = {
    "torch": "training",
    "onnx": "training",
    "onnxscript": "training",
    "plotly": "training",
    "pyarrow": "files",
    "obstore": "objects",
    "onnxruntime": "cpu",
}
"""Which extra brings a package that may be missing."""


class Commands(TyperGroup):
    """A group that knows the names of its commands and imports one when it is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        further = {name: _OTHERS.get(name, f"Registered by {found.value}.") for name, found in _registered().items()}
        for name, line in (_OURS | further).items():
            self.add_command(TyperCommand(name, help=line))  # stands for the real one until it is called

    def list_commands(self, _: Any) -> list[str]:
        """In the order of the table, then what others registered."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is called, and import it."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and _imported(str(name)), rest


def _registered() -> dict[str, metadata.EntryPoint]:
    return {each.name: each for each in metadata.entry_points(group=_GROUP) if each.name not in _OURS}


def _imported(name: str) -> Any:
    function = import_module(f"detector.commands.{name}").command if name in _OURS else _registered()[name].load()
    if not isinstance(function, typer.Typer):
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(name, context_settings=_HELP)(function)
        function = alone
    return typer.main.get_command(function)


_HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_HELP,
)


@app.callback(invoke_without_command=True)
def _tidewarden(
    version: Annotated[bool, typer.Option("--version", help="Print versions and exit.")] = False,
) -> None:
    """Streaming anomaly detection with recurrent memory per stream."""
    if version:
        typer.echo(
            f"tidewarden {__version__}, python {platform.python_version()}, onnxruntime {versions.onnxruntime()}"
        )
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="tidewarden")
    except Exception as error:  # sorted here: what can be explained is, anything else goes on as it is
        faults = _explained(error)
        if not faults:
            raise
        for fault in faults:
            Console(stderr=True).print(Text(f"error: {fault}", style="bold red"), soft_wrap=True)
        sys.exit(faults[0].exit_code)


def _explained(error: BaseException) -> list[TidewardenError]:
    """What to tell the operator; nothing where only a traceback helps."""
    match error:
        case TidewardenError():
            return [error]
        case BaseExceptionGroup():
            inner = [_explained(each) for each in error.exceptions]
            return [fault for faults in inner for fault in faults] if all(inner) else []
        case ModuleNotFoundError(name=str(name)) if extra := _EXTRAS.get(name.partition(".")[0]):
            install = f"pip install 'tidewarden[{extra}]'"
            return [ConfigurationError(f"{extra} needs", install, hint=f"{name} is not installed")]
        case _:
            return []
