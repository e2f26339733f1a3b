"""What every system test may ask for."""

from __future__ import annotations

import os
import random

import pytest

_SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(10**6)))


@pytest.fixture
def seed() -> int:
    """Printed; SEED=n repeats a run."""
    say(f"SEED={_SEED}")
    return _SEED


def say(text: str) -> None:
    """What a run did, for whoever reads its log."""
    print(text)  # noqa: T201  # shown by pytest -s, and with a failure
