"""What every test may ask for."""

from __future__ import annotations

from tests.kafka.fixture import kafka, own_kafka

__all__ = ["kafka", "own_kafka"]
