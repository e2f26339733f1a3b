"""Samples from Kafka topics.

`source` is the edge; beside it stand the one `fetch` that is under way, what the `group` is told, which `partitions`
are ours without asking it, what a batch is as `records`, and the `health` of a client that may fall silent.
"""

from __future__ import annotations

from detector.sources.kafka.records import as_records
from detector.sources.kafka.source import KafkaSource

__all__ = ["KafkaSource", "as_records"]
