"""When the shards that are ours are checkpointed, and what becomes of them while the store stalls.

    due         a checkpoint in the background    while records go on
    failed      again, with back-off              while records go on; the age shows in the metrics
    stalled     rest                              where none became durable for `replay_bound_s`; goes on by itself
    going away  one more                          as far as there is time

How a checkpoint is made is checkpoint/protocol.py's affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from detector.checkpoint.protocol import Taken, Written
from detector.clock import Clock
from detector.errors import CheckpointError, FencedError
from detector.pipeline.live import LiveShard
from detector.settings import CheckpointSettings
from detector.telemetry import Telemetry

_log = structlog.get_logger(__name__)


class Checkpoints:
    """Has live shards checkpointed, in the background while they are read, and once more when they go."""

    def __init__(
        self,
        telemetry: Telemetry,
        clock: Clock,
        settings: CheckpointSettings,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        is_current: Callable[[LiveShard], bool],
        lose: Callable[[LiveShard, FencedError], Awaitable[None]],
    ) -> None:
        self._telemetry, self._clock, self._settings = telemetry, clock, settings
        self._spawn, self._is_current, self._lose = spawn, is_current, lose

    async def tend(self, live: LiveShard) -> None:
        """Begin a checkpoint where one is due, and rest the shard where they stall; call between two polls."""
        if live.writing is None and live.has_moved and live.checkpointer.is_due():
            taken_s = self._clock.monotonic_s()
            taken = await live.checkpointer.take(is_replaying=live.is_replaying)
            live.writing = self._spawn(self._make_durable(live, taken, taken_s), f"checkpoint {live.shard}")
        await self._rest_or_go_on(live)

    async def save(self, live: LiveShard, until_s: float | None = None) -> None:
        """The last checkpoint of a shard that is fed no more, where there is time left for one."""
        if live.writing is not None:
            await asyncio.wait([live.writing])
        if live.has_moved and (until_s is None or self._clock.monotonic_s() < until_s):
            taken = await live.checkpointer.take(is_replaying=live.is_replaying)
            if taken.snapshot.next_position != live.position:  # a sink failed in the middle of a poll
                what = "the last poll did not reach the sinks"
                raise CheckpointError(live.shard, what, expected=live.position, got=taken.snapshot.next_position)
            self._tell_written(await live.checkpointer.make_durable(taken, is_waited_for=until_s is not None))

    async def _make_durable(self, live: LiveShard, taken: Taken, taken_s: float) -> None:
        """A store that fails is tried again later; a sink that fails ends the daemon; another owner takes over."""
        try:
            written = await live.checkpointer.make_durable(taken)
        except FencedError as error:
            await self._lose(live, error)
        except CheckpointError as error:
            self._telemetry.checkpoint_failed(live.shard)
            _log.warning("checkpoint failed", shard=str(live.shard), error=str(error))
            if not error.retriable and self._is_current(live):
                raise
        else:
            live.moved_s = taken_s if live.has_moved else None
            self._tell_written(written)
        finally:
            live.writing = None

    async def _rest_or_go_on(self, live: LiveShard) -> None:
        """Beyond the replay bound a shard rests, so that a crash then need not replay for ever; nothing is lost."""
        age_s = live.unkept_s(self._clock.monotonic_s())
        is_stalled = age_s > self._settings.replay_bound_s
        if is_stalled == live.is_resting or not self._is_current(live):
            return
        if is_stalled:
            live.is_resting = True
            await live.input.source.pause(live.shard)
            hint = "it goes on by itself once a checkpoint is durable"
            _log.warning("shard paused: checkpoints stall", shard=str(live.shard), age_s=round(age_s, 1), hint=hint)
        else:
            await live.input.source.resume(live.shard, live.position)
            live.is_resting = False  # not before: a poll that ended meanwhile brought what is now read again
            _log.info("shard goes on", shard=str(live.shard), position=live.position)
        self._telemetry.rested(live.shard, "checkpoints stall" if is_stalled else None)

    def _tell_written(self, written: Written) -> None:
        manifest = written.manifest
        self._telemetry.checkpointed(
            manifest.shard,
            position=manifest.position,
            seconds=written.took_s,
            rows=written.rows,
            size_bytes=written.bytes,
            evicted=written.evicted,
        )
