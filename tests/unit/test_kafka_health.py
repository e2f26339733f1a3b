"""When a Kafka client counts as silent, and which partitions a host's name stands for."""

from __future__ import annotations

import socket

import pytest

from detector.clock import ManualClock
from detector.errors import ConfigurationError, SourceError
from detector.records import Shard
from detector.settings import KafkaSourceSettings
from detector.sources.kafka.health import Health
from detector.sources.kafka.partitions import fixed_partitions

ONE, OTHER = Shard("c", "t", 0), Shard("c", "t", 1)
SESSION_S = 10.0


class Life:
    """A source's health over time."""

    def __init__(self, *, in_group: bool = True) -> None:
        self.clock = ManualClock()
        self.health = Health(SESSION_S, in_group=in_group, clock=self.clock)

    def poll(self, seconds: float, *, moving: Shard | None = None, beats: bool = False) -> None:
        """Ask for records for so long, every tenth of a second."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.health.polled()
            if moving:
                self.health.moved(moving)
            if beats:
                self.health.beat()


def test_a_shard_that_gives_nothing_is_to_be_asked_about() -> None:
    """After two session timeouts of asking; one that moves is not, nor one that rests."""
    life = Life()
    for shard in (ONE, OTHER):
        life.health.moved(shard)
    life.poll(19.5, moving=OTHER)
    assert life.health.still() == []
    life.poll(1, moving=OTHER)
    assert life.health.still() == [ONE]
    life.health.rests(ONE)
    assert life.health.still() == []
    life.health.moved(ONE)
    life.poll(15)
    assert life.health.still() == []


def test_what_is_held_up_by_us_does_not_count() -> None:
    """A sink that is full for an hour, or a machine that was suspended, says nothing of the client."""
    life = Life()
    life.health.moved(ONE)
    for _ in range(15):
        life.clock.advance(3600)
        life.poll(0.1)
    assert life.health.still() == []
    assert life.health.silent_s(is_owner=True) is None


def test_without_heartbeats_for_a_session_nothing_is_handed_over() -> None:
    """By the clock: whoever was stopped for so long finds it at once. The next heartbeat ends it."""
    life = Life()
    life.poll(9)
    assert not life.health.may_be_replaced
    life.clock.advance(60)
    assert life.health.may_be_replaced
    life.health.beat()
    assert not life.health.may_be_replaced


def test_a_silent_group_is_given_up_after_two_sessions() -> None:
    """Or after a whole rebalance besides, by who owns nothing and may be waiting for one."""
    life = Life()
    life.poll(19)
    assert life.health.silent_s(is_owner=True) is None
    life.poll(2)
    assert life.health.silent_s(is_owner=True) == pytest.approx(21, abs=0.2)
    assert life.health.silent_s(is_owner=False) is None
    life.poll(120)
    assert life.health.silent_s(is_owner=False) is not None
    life.poll(60, beats=True)
    assert life.health.silent_s(is_owner=True) is None


def test_fixed_partitions_need_no_group() -> None:
    """There are no heartbeats to miss."""
    life = Life(in_group=False)
    life.poll(1000)
    assert life.health.silent_s(is_owner=True) is None
    assert not life.health.may_be_replaced


# Partitions by ordinal


def partitions(text: str, **topics: int) -> dict[str, list[int]] | None:
    settings = KafkaSourceSettings(type="kafka", topics=list(topics), partitions=text)
    return fixed_partitions(settings, topics, "kafka source 'plant'")


def test_replicas_share_all_partitions_by_their_ordinals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each partition has exactly one of them, of every topic."""
    shares = []
    for ordinal in range(3):
        monkeypatch.setattr(socket, "gethostname", lambda name=f"tidewarden-{ordinal}.plant.svc": name)
        shares.append(partitions("ordinal/3", a=8, b=2))
    assert shares == [{"a": [0, 3, 6], "b": [0]}, {"a": [1, 4, 7], "b": [1]}, {"a": [2, 5], "b": []}]


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("tidewarden", "the host's name: expected a number from 0 to 2 at its end, as in tidewarden-0, got tidewarden"),
        ("tidewarden-3", "expected a number from 0 to 2 at its end.*got tidewarden-3"),
        ("tidewarden.pod1", "got tidewarden.pod1"),
        ("tidewarden-2", "leave none for replica 2: expected ordinal/2 at most, got ordinal/3"),
    ],
)
def test_an_ordinal_that_leads_nowhere_is_told(monkeypatch: pytest.MonkeyPatch, host: str, message: str) -> None:
    """No number, too high a number, or more replicas than partitions."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    with pytest.raises(ConfigurationError, match=message):
        partitions("ordinal/3", a=2)


def test_listed_partitions_must_be_there() -> None:
    """Of each topic."""
    assert partitions("0-1", a=2, b=3) == {"a": [0, 1], "b": [0, 1]}
    with pytest.raises(SourceError, match="partitions of topic 'a': expected 0 to 1, got 0-2"):
        partitions("0-2", a=2, b=3)
