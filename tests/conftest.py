"""What every test may ask for."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.kafka.fixture import kafka, own_kafka

__all__ = ["kafka", "own_kafka"]

# How fast a machine is, and how much of it others take, is nothing that a property speaks of.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
