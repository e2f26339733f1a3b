"""Logging to standard error: lines for people on a terminal, JSON elsewhere. Payloads are never logged at info.

Libraries log through the standard library; their lines pass the same formatter.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

from detector.settings import LogSettings

_LOUD_LIBRARIES = ("aiokafka", "aiohttp.access", "kafka")
"""Tell at info what we tell ourselves or count; heard from warning on, unless we are at debug."""

_REPEATED_S = 10.0  # between two lines that say the same


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (standard error), as the settings say; replaces what was configured before."""
    stream = stream or sys.stderr
    is_console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    structlog.configure(
        processors=[*_common(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # a logger made at import must follow what is configured later
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(_Brief())
    handler.setFormatter(_formatter(is_console=is_console, has_colours=is_console and stream.isatty()))
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _LOUD_LIBRARIES:
        logging.getLogger(name).setLevel(level if level == logging.DEBUG else max(level, logging.WARNING))


class _Brief(logging.Filter):
    """Lets a library say the same thing once in a while: without a broker its client would, ten times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str], tuple[float, int]] = {}
        """Per logger and message when it was last told, and how often it has been left out since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; says then how many were not."""
        if not record.name.startswith(_LOUD_LIBRARIES) or record.levelno < logging.WARNING:
            return True
        what = record.name, str(record.msg)
        told_s, left_out = self._told.get(what, (0.0, 0))
        if record.created - told_s < _REPEATED_S:
            self._told[what] = told_s, left_out + 1
            return False
        self._told[what] = record.created, 0
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} times more before)", ()
        return True


def _common() -> list[structlog.typing.Processor]:
    return [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _formatter(*, is_console: bool, has_colours: bool) -> structlog.stdlib.ProcessorFormatter:
    renderers: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=has_colours)]
        if is_console
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_common()[1:],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
