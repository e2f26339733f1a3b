"""`tidewarden run`: the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from detector import logs
from detector.app import App
from detector.settings import load

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; without it the environment alone.", show_default=False)
]


def command(config: Config = None) -> None:
    """Serve: read streams, score them, alert.

    SIGTERM and Ctrl-C drain: polling ends, what is in flight is delivered, a last checkpoint is made.
    """
    settings = load(config)
    logs.configure(settings.log)
    asyncio.run(App(settings).run())
