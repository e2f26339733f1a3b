"""`engine`, `http`, `log`: the process itself; bounds of its hot path, what it listens on, what it writes of itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from detector.settings.base import Section


class EngineSettings(Section):
    """The hot path."""

    wave_rows: Annotated[int, Field(ge=1, le=65_536)] = 1024
    """Most streams in one model call."""
    max_streams: Annotated[int, Field(ge=1)] = 1_000_000
    """Most streams of a shard in memory; at a checkpoint the least recently seen beyond it move to the store, and come
    back with their next sample as if they had never left."""
    max_cold_streams: Annotated[int, Field(ge=0)] = 10_000_000
    """Most streams of a shard in the store besides; a new stream beyond both is rejected."""
    forget_after_s: Annotated[float, Field(gt=0)] | None = None
    """A stream not heard for so long, against the shard's highest event time, loses its memory; null never. Looked for
    every 65,536 positions; must be longer than every detector's `resolve_after_s`."""


class HttpSettings(Section):
    """Metrics, health and the status page."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 in a container."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    """Port; 0 takes a free one."""


class LogSettings(Section):
    """What is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is written."""
    format: Literal["auto", "console", "json"] = "auto"
    """auto: console on a terminal, else JSON."""
