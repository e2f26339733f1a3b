"""The pytest fixture of a real broker, one for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kafka.broker import NoBrokerError, broker


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The bootstrap address of a real broker.

    Where none can be had the tests that need it are skipped, loudly; with TIDEWARDEN_REQUIRE_KAFKA=1 they fail.
    """
    running = broker()
    try:
        address = running.__enter__()
    except NoBrokerError as error:
        if os.environ.get("TIDEWARDEN_REQUIRE_KAFKA") == "1":
            pytest.fail(f"TIDEWARDEN_REQUIRE_KAFKA=1, but {error}", pytrace=False)
        pytest.skip(f"NOT TESTED ON A REAL KAFKA: {error}")
    try:
        yield address
    finally:
        running.__exit__(None, None, None)
