"""Wide JSON records for the benchmark, made and preloaded into a real broker."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from tests.kafka.topics import create_topic, new_name, produce

BASE_S = 1_790_000_000
CHANNELS = ("flow", "head_pressure", "current", "vibration", "temperature")


@dataclass(frozen=True)
class Feed:
    """One shape of load."""

    channels: int
    streams: int
    order: str
    """round-robin or random."""

    @property
    def title(self) -> str:
        """For the table."""
        return f"C = {self.channels}, {self.streams:,} streams, {self.order}"


FEEDS = [
    Feed(channels, streams, order)
    for channels in (1, 5)
    for streams in (1_000, 100_000)
    for order in ("round-robin", "random")
]


def make_records(feed: Feed, count: int, *, first: int = 0, seed: int = 1) -> list[bytes]:
    """Records first .. first + count of the feed: every stream a slow wave with noise, about one sample a second."""
    generator = np.random.default_rng(seed + first)
    number = np.arange(first, first + count)
    stream = number % feed.streams if feed.order == "round-robin" else generator.integers(0, feed.streams, count)
    seconds = (BASE_S + number / feed.streams).round(6).tolist()
    level = 50 + 10 * np.sin(2 * np.pi * (number / feed.streams + stream) / 600)
    cells = level[:, None] + generator.normal(0, 1, (count, feed.channels))
    names = CHANNELS[: feed.channels]
    template = (
        '{"stream":"plant-7/pump-%06d","time":%.6f,"values":{' + ",".join(f'"{name}":%.4f' for name in names) + "}}"
    )
    return [
        (template % (s, t, *row)).encode() for s, t, row in zip(stream.tolist(), seconds, cells.tolist(), strict=True)
    ]


async def preload(address: str, feed: Feed, count: int) -> str:
    """Fill a new topic of one partition; returns its name."""
    topic = await create_topic(address, 1, name=new_name("bench"))
    for first in range(0, count, 100_000):
        await produce(address, topic, make_records(feed, min(100_000, count - first), first=first))
    return topic


def spiked(record: bytes) -> bytes:
    """The same record, far out of its stream's band."""
    document = json.loads(record)
    document["values"] = dict.fromkeys(document["values"], 500.0)
    return json.dumps(document, separators=(",", ":")).encode()
