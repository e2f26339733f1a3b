"""Fixtures of a real broker: one for the whole session, or one that a test may do with as it likes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

import pytest

from tests.kafka.broker import Broker, NoBrokerError, broker, own_broker

Running = TypeVar("Running")


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The bootstrap address of a real broker."""
    yield from there_or_skipped(broker())


@pytest.fixture
def own_kafka() -> Iterator[Broker]:
    """A broker that the test may freeze, stop and start again."""
    yield from there_or_skipped(own_broker())


def there_or_skipped(running: AbstractContextManager[Running]) -> Iterator[Running]:
    """What a context manager of a broker gives.

    Where none can be had the tests that need it are skipped, loudly; with TIDEWARDEN_REQUIRE_KAFKA=1 they fail.
    """
    with ExitStack() as stack:
        try:
            found = stack.enter_context(running)
        except NoBrokerError as error:
            if os.environ.get("TIDEWARDEN_REQUIRE_KAFKA") == "1":
                pytest.fail(f"TIDEWARDEN_REQUIRE_KAFKA=1, but {error}", pytrace=False)
            pytest.skip(f"NOT TESTED ON A REAL KAFKA: {error}")
        yield found
