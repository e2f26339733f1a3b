"""What every test may ask for."""

from __future__ import annotations

from tests.kafka.fixture import kafka

__all__ = ["kafka"]
