"""Numbers and times as they go over the wire. What is encoded is tested through the sinks, in tests/contracts."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.sinks.encode import rfc3339, shortest


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_float32_survives_as_a_double(numbers: list[float]) -> None:
    """Whatever it is printed as, it reads back to the same float32."""
    values = np.array(numbers, np.float32)
    assert (shortest(values).astype(np.float32) == values).all()


@given(st.lists(st.floats(2.0**-20, 1000, width=32), min_size=1))
def test_float32_prints_as_its_shortest_decimal(numbers: list[float]) -> None:
    """In the range of scores and of blame: as numpy prints the float32 itself."""
    values = np.array(numbers, np.float32)
    assert list(map(repr, shortest(values).tolist())) == [repr(float(str(value))) for value in values]


@pytest.mark.parametrize("number", [0.0, -0.0, 12.0, 0.3, 1e-30, 3.4e38])
def test_special_numbers(number: float) -> None:
    """Zero has no magnitude; the largest and smallest keep their value."""
    value = np.array([number], np.float32)
    assert shortest(value).astype(np.float32).tobytes() == value.tobytes()


@given(st.integers(0, 2**62))
def test_times_are_exact(time_ns: int) -> None:
    """To the nanosecond, in UTC, without zeros that say nothing."""
    (text,) = rfc3339(np.array([time_ns]))
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    assert seconds * 10**9 + int(fraction.ljust(9, "0")) == time_ns
    assert text.endswith("Z")
    assert not fraction.endswith("0")
