"""Whether the Kafka client still works, which it does not tell: it may fall silent for ever without any error.

    a partition stands still    asked for two session timeouts, it gave nothing: the broker is asked whether there is
                                more, and if so the client is to be built anew
    the group is silent         no heartbeat was answered for a session timeout: our partitions may be another's by
                                now, so nothing is handed over; after two the client is to be built anew

The second is also what a process finds that was stopped or suspended for longer than its session. Time counts only
while the source is asked for records: what is held up by us is not the client's fault. Pure; the source acts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detector.clock import Clock
from detector.records import Shard

_LONGEST_STEP_S = 1.0  # between two polls; what is longer was a pause of ours, or of the whole machine
_REBALANCE_S = 120.0  # how long a rebalance may take, during which there are no heartbeats


class Health:
    """Told of every poll, every record and every heartbeat."""

    def __init__(self, session_s: float, *, in_group: bool, clock: Clock) -> None:
        self._session_s, self._in_group, self._clock = session_s, in_group, clock
        self._polled_s = self._beat_s = clock.monotonic_s()
        self._asked_s = 0.0
        """How long records have been asked for, altogether."""
        self._beat_asked_s = 0.0
        """The same at the last heartbeat."""
        self._moved_asked_s: dict[Shard, float] = {}
        """The same when each shard that is being read last moved."""

    def polled(self) -> None:
        """Records are asked for."""
        now_s = self._clock.monotonic_s()
        self._asked_s += min(now_s - self._polled_s, _LONGEST_STEP_S)
        self._polled_s = now_s

    def beat(self) -> None:
        """The group's coordinator knows us."""
        self._beat_s, self._beat_asked_s = self._clock.monotonic_s(), self._asked_s

    def moved(self, shard: Shard) -> None:
        """A shard begins to be read, or gave something, or has nothing more to give."""
        self._moved_asked_s[shard] = self._asked_s

    def rests(self, shard: Shard) -> None:
        """A shard is not read any more."""
        self._moved_asked_s.pop(shard, None)

    @property
    def may_be_replaced(self) -> bool:
        """Whether the group may have given our partitions away without our knowing; ends with the next heartbeat."""
        return self._in_group and self._clock.monotonic_s() - self._beat_s > self._session_s

    def silent_s(self, *, is_owner: bool) -> float | None:
        """For how long the group has been silent, where that is too long; who owns nothing may be in a rebalance."""
        silent_s = self._asked_s - self._beat_asked_s
        limit_s = 2 * self._session_s + (0.0 if is_owner else _REBALANCE_S)
        return silent_s if self._in_group and silent_s > limit_s else None

    def still(self) -> list[Shard]:
        """Shards that gave nothing for so long that the broker is to be asked."""
        limit_s = 2 * self._session_s
        return [shard for shard, moved_s in self._moved_asked_s.items() if self._asked_s - moved_s > limit_s]


def watch_heartbeats(consumer: Any, beat: Callable[[], None]) -> None:
    """Have `beat` called at each heartbeat of a started consumer that the group's coordinator answered.

    The client keeps that to itself: a group that was lost shows in private state only (aiokafka issue 1154). Hence a
    private method is wrapped; a version of the client without it fails at the start, and in the tests.
    """
    coordinator = consumer._coordinator
    send = coordinator._do_heartbeat

    async def send_and_tell() -> bool:
        is_known: bool = await send()
        if is_known:
            beat()
        return is_known

    coordinator._do_heartbeat = send_and_tell
