"""Membership of a consumer group: what the client is told about it, and what it tells us."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from detector.settings import KafkaSourceSettings

_HEARTBEAT_MS = 3000
_REBALANCE_TIMEOUT_MS = 120_000  # how long a rebalance waits for a member that is still writing a checkpoint
_MAX_POLL_INTERVAL_MS = 600_000  # how long backpressure may last before the group gives our partitions away
REVOKE_S = min(10.0, _REBALANCE_TIMEOUT_MS / 3000)
"""One deadline for all that is done before partitions go."""


def membership(settings: KafkaSourceSettings) -> dict[str, Any]:
    """Arguments of the client."""
    session_ms = round(settings.session_timeout_s * 1000)
    return {
        "group_id": settings.group,
        # One only: each more costs another round of joins (T7). A class of its own, because the client keeps what
        # was assigned on the class, and another source in this process must not see it.
        "partition_assignment_strategy": [type("Sticky", (StickyPartitionAssignor,), {})],
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": min(_HEARTBEAT_MS, round(session_ms / 3)),
        "rebalance_timeout_ms": _REBALANCE_TIMEOUT_MS,
        "max_poll_interval_ms": _MAX_POLL_INTERVAL_MS,
    }


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no annotations
    """Passes the group's callbacks on. Exceptions in here would be swallowed: it does next to nothing."""

    def __init__(
        self,
        gained: Callable[[Sequence[TopicPartition]], None],
        revoked: Callable[[Sequence[TopicPartition]], Awaitable[None]],
    ) -> None:
        self._gained, self._revoked = gained, revoked

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Before a rebalance; also for a membership that was lost already."""
        await self._revoked(sorted(revoked))

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """After every rebalance, with all that we own now."""
        self._gained(sorted(assigned))
