"""`tidewarden run`: the daemon."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from detector import logs
from detector.app import App
from detector.commands.output import Config
from detector.settings import load

Cold = Annotated[
    bool,
    typer.Option(
        "--cold",
        help="Start shards whose checkpoint cannot be used (another topic, bundle or version, or damaged) without "
        "memory, and say per stream what is lost. All others keep theirs. Leave it out of the next start.",
    ),
]


def command(config: Config = None, cold: Cold = False) -> None:
    """Serve: read streams, score them, alert.

    SIGTERM and Ctrl-C drain: polling ends, what is in flight is delivered, a last checkpoint is made.
    """
    settings = load(config)
    logs.configure(settings.log)
    asyncio.run(App(settings, cold=cold).run())
