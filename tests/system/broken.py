"""Daemons with one law broken, for the negative controls: each a tamper, which must fail the test that guards the law.

The daemon itself has no hooks for this: the fault is put in from outside.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from detector import alerts
from detector.checkpoint import format as checkpoint_format
from detector.checkpoint import protocol, restore
from detector.checkpoint.format import Manifest, Segment
from detector.checkpoint.protocol import Checkpointer
from detector.records import ArenaRows
from detector.sinks.base import Sink


def early_manifest() -> None:
    """The manifest becomes durable while alerts below it are still under way."""

    async def never(_: Checkpointer) -> None: ...

    Checkpointer._acknowledge = never  # type: ignore[method-assign]  # that is the fault


def no_suppression() -> None:
    """Nothing that stands on the output is recognised."""

    async def nothing(_: Manifest, __: Mapping[str, Sink]) -> dict[str, frozenset[str]]:
        return {}

    restore._known_alerts = nothing


def ids_from_wall_time() -> None:
    """An alert's id says when it was made."""
    plain = alerts._alert_id
    alerts._alert_id = lambda *arguments: alerts.id_of(plain(*arguments), time.time_ns())


def ignored_fence() -> None:
    """A former owner's manifest is not refused."""
    protocol.highest_fence = lambda _: 0  # where a manifest is about to be written; who claims still counts


def ignored_checksum() -> None:
    """What a segment holds is taken as true."""
    plain = checkpoint_format.decode_segment

    def trusting(data: bytes, segment: Segment, where: object) -> list[ArenaRows]:
        return plain(data, msgspec.structs.replace(segment, crc32=zlib.crc32(data)), where)

    _everywhere("decode_segment", trusting)


def _everywhere(name: str, replacement: Any) -> None:
    """In every module of the checkpoint that has it by this name."""
    for path, module in sys.modules.items():
        if path.startswith("detector.checkpoint.") and hasattr(module, name):
            setattr(module, name, replacement)
