"""`tidewarden run`: the daemon."""

from __future__ import annotations

import asyncio

from detector import logs
from detector.app import App
from detector.commands.output import Config
from detector.settings import load


def command(config: Config = None) -> None:
    """Serve: read streams, score them, alert.

    SIGTERM and Ctrl-C drain: polling ends, what is in flight is delivered, a last checkpoint is made.
    """
    settings = load(config)
    logs.configure(settings.log)
    asyncio.run(App(settings).run())
