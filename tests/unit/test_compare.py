"""What counts as equal between computed and sent records, and how a difference is named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from detector.model.bundle import Tolerance
from detector.records import Scores, Shard
from detector.verification.compare import Comparison, Expected
from tests.scenarios.echo import alert

SHARD = Shard("cluster", "sensors", 0)


def expected(*, count: int = 10, first: int = 100) -> Expected:
    """Scores of consecutive offsets, and an alert at every fifth."""
    rows = np.arange(first, first + count)
    found = Expected()
    found.add_scores(
        SHARD,
        Scores(
            detector="pumps",
            channels=("flow",),
            index=rows - first,
            streams=[f"pump-{offset % 2}" for offset in rows],
            event_ns=rows * 10**9,
            positions=rows,
            score=(rows / 100).astype(np.float32),
            threshold=np.full(count, 2, np.float32),
            anomaly=np.zeros(count, np.uint8),
            expected=rows[:, None] / 7,
        ),
    )
    for offset in rows[::5].tolist():
        found.add_alert(alert(offset, f"pump-{offset % 2}", 3.25))
    return found


def compared(kind: str, sent: list[bytes | None], **changes: Any) -> Comparison:
    """A comparison over what was sent."""
    settings = {"shard": SHARD, "span": (100, 110)} | changes
    found = Comparison(kind, "topic t", expected().of(kind), **settings)
    for number, value in enumerate(sent):
        found.take(value, f"offset {number}")
    found.finish()
    return found


def values(kind: str, **changes: Any) -> list[bytes | None]:
    """What must be sent."""
    return [each.value for each in expected(**changes).of(kind).values()]


def changed(value: bytes | None, **changes: Any) -> bytes:
    """With other fields."""
    return json.dumps(json.loads(value or b"") | changes, separators=(",", ":")).encode()


@pytest.mark.parametrize("kind", ["scores", "alerts"])
def test_equal_records_are_equal_however_often_they_stand_there(kind: str) -> None:
    """A crash repeats what was sent already: same id, same bytes."""
    sent = values(kind)
    found = compared(kind, [*sent, *sent[:1]])
    assert found.differences == []
    assert (found.compared, found.copies) == (len(sent), 1)


def test_what_others_wrote_and_other_ranges_are_passed_over() -> None:
    """Text, tombstones, other shards, offsets before and after."""
    others = [None, b"", b"{}", b"\xff", changed(values("scores")[0], source={}), *values("scores", first=110)]
    elsewhere = {"cluster": "cluster", "topic": "sensors", "partition": 1, "offset": 104}
    found = compared("scores", [*others, *values("scores"), changed(values("scores")[0], source=elsewhere)])
    assert found.differences == []
    assert found.compared == 10


def test_a_changed_digit_is_named() -> None:
    """Stream, offset, field, what it must be and what it is, and where it stands."""
    sent = values("scores")
    sent[3] = changed(sent[3], score=1.04)
    (difference,) = compared("scores", sent).differences
    assert (difference.what, difference.stream, difference.offset) == ("altered", "pump-1", 103)
    assert (difference.field, difference.expected, difference.got) == ("score", 1.03, 1.04)
    assert difference.where == "topic t, offset 3"
    assert str(difference) == (
        "topic t, offset 3: score of stream 'pump-1' at offset 103: altered: score: expected 1.03, got 1.04"
    )


def test_fields_inside_lists_are_named_by_their_path() -> None:
    """Of a channel."""
    sent = values("scores")
    readings = [{**json.loads(sent[0] or b"")["channels"][0], "expected": 1.5}]
    sent[0] = changed(sent[0], channels=readings)
    (difference,) = compared("scores", sent).differences
    assert difference.field == "channels.0.expected"


def test_other_bytes_of_equal_contents_are_a_difference() -> None:
    """The promise is of bytes."""
    sent = values("alerts")
    sent[0] = json.dumps(json.loads(sent[0] or b"")).encode()
    (difference,) = compared("alerts", sent).differences
    assert (difference.what, difference.field) == ("altered", None)


def test_an_altered_copy_behind_the_true_one_is_found() -> None:
    """Not only the first of an id counts."""
    sent = values("alerts")
    (difference,) = compared("alerts", [*sent, changed(sent[1], stream="pump-9")]).differences
    assert (difference.field, difference.expected, difference.got) == ("stream", "pump-1", "pump-9")


def test_missing_and_extra_records_are_named_in_order() -> None:
    """An alert with an id that the range does not give is extra; the one in its place is missing."""
    sent = values("alerts")
    sent[1] = changed(sent[1], id="forged")
    extra, missing = sorted(compared("alerts", sent).differences, key=lambda each: each.what)
    assert (extra.what, extra.offset, extra.got) == ("extra", 105, "forged")
    assert (missing.what, missing.offset) == ("missing", 105)
    gone = compared("scores", [values("scores")[5]]).differences
    assert [each.offset for each in gone] == [100, 101, 102, 103, 104, 106, 107, 108, 109]


def test_sampled_scores_may_be_missing_and_must_not_differ() -> None:
    """They promise nothing but their contents."""
    sent = values("scores")[:3]
    assert compared("scores", sent, is_complete=False).differences == []
    sent[1] = changed(sent[1], anomaly=1)
    assert [each.field for each in compared("scores", sent, is_complete=False).differences] == ["anomaly"]


def test_a_silence_told_after_the_range_is_left_out() -> None:
    """It speaks of a sample in the range, and follows from records behind it."""
    silent = changed(values("alerts")[0], id="later", event="silent")
    found = compared("alerts", [*values("alerts"), silent])
    assert (found.differences, found.told_later) == ([], 1)


@pytest.mark.parametrize(
    ("field", "factor", "is_near"), [("score", 0.5, True), ("score", 2.0, False), ("threshold", 2.0, False)]
)
def test_with_other_numerics_numbers_may_differ_by_the_tolerance(field: str, factor: float, is_near: bool) -> None:
    """Nines absolutely."""
    tolerances = {"pumps": Tolerance(score=1e-3, state=1e-3)}
    sent = values("scores")
    sent[2] = changed(sent[2], **{field: json.loads(sent[2] or b"")[field] + factor * 1e-3})
    assert (compared("scores", sent, tolerances=tolerances).differences == []) is is_near
    assert compared("scores", sent).differences != []


def test_with_other_numerics_raw_units_may_differ_relatively_and_texts_not_at_all() -> None:
    """A count, a flag or a name has no tolerance."""
    tolerances = {"pumps": Tolerance(score=1e-3, state=1e-3)}
    sent = values("scores")
    reading = json.loads(sent[2] or b"")["channels"][0]
    near = changed(sent[2], channels=[reading | {"expected": reading["expected"] * 1.0005}])
    far = changed(sent[2], channels=[reading | {"expected": reading["expected"] * 1.002}])
    for value, fields in ((near, []), (far, ["channels.0.expected"]), (changed(sent[2], anomaly=1), ["anomaly"])):
        sent[2] = value
        assert [each.field for each in compared("scores", sent, tolerances=tolerances).differences] == fields
