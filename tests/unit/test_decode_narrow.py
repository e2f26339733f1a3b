"""Narrow records: one channel's value of one stream at one time."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from detector.records import NO_TIME, Reason, Records, Samples, Shard
from detector.settings import RecordSettings
from detector.stages.decode import Decoder, screen

NARROW: dict[str, Any] = {"channel": "channel", "value": "value"}


def decode(*values: bytes | None, **options: Any) -> tuple[Samples, list[tuple[int, Reason]]]:
    """Samples and reasons, after the screen."""
    n = len(values)
    records = Records(Shard("c", "t", 0), list(values), [None] * n, np.arange(n), np.full(n, NO_TIME), n)
    samples, rejects = Decoder(RecordSettings(**NARROW | options)).decode(records)
    samples, screened = screen(samples, 300.0)
    return samples, sorted((reject.index, reject.reason) for reject in (*rejects, *screened))


def narrow(channel: object = "v", value: object = 1.0, **more: object) -> dict[str, object]:
    """A record with parts replaced; ... leaves one out."""
    document = {"stream": "s", "time": 1, "channel": channel, "value": value} | more
    return {name: content for name, content in document.items() if content is not ...}


def test_values_come_with_their_channels() -> None:
    """One column of values and one that says whose each is; a null is missing, and that it is missing was heard."""
    documents = [narrow("b", 1), narrow("a", 2.5), narrow("b", None)]
    samples, rejects = decode(*(json.dumps(one).encode() for one in documents))
    assert (rejects, samples.shapes, samples.shape_of.tolist()) == ([], [("b", "a")], [0, 0, 0])
    assert samples.channel_of is not None
    assert samples.channel_of.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(samples.cells[0], [[1.0], [2.5], [np.nan]])


def test_parts_of_narrow_samples_keep_their_channels() -> None:
    """Whatever is taken out of a batch."""
    samples, _ = decode(*(json.dumps(narrow(name, at)).encode() for at, name in enumerate("abcab")))
    part = samples.take(np.array([1, 4]))
    assert part.channel_of is not None
    assert [part.shapes[0][channel] for channel in part.channel_of] == ["b", "b"]
    assert part.cells[0].tolist() == [[1.0], [4.0]]


BROKEN = {
    "no channel": (narrow(channel=...), Reason.MISSING_FIELD),
    "no value": (narrow(value=...), Reason.MISSING_FIELD),
    "no stream": (narrow(stream=...), Reason.MISSING_FIELD),
    "no time": (narrow(time=...), Reason.MISSING_FIELD),
    "channel null": (narrow(channel=None), Reason.BAD_TYPE),
    "channel a number": (narrow(channel=7), Reason.BAD_TYPE),
    "value a text": (narrow(value="high"), Reason.BAD_TYPE),
    "value a map": (narrow(value={"v": 1}), Reason.BAD_TYPE),
    "value NaN": (narrow(value=math.nan), Reason.NOT_FINITE),
    "value infinite": (narrow(value=math.inf), Reason.NOT_FINITE),
    "before 1970": (narrow(time=-1), Reason.BAD_TIME),
    "wide": ({"stream": "s", "time": 1, "values": {"v": 1}}, Reason.MISSING_FIELD),
}


@pytest.mark.parametrize("form", ["json", "msgpack"])
@pytest.mark.parametrize(("document", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_record_names_its_fault(document: dict[str, object], reason: Reason, form: str) -> None:
    """In either format; the records beside it are untouched."""
    encode = (lambda one: json.dumps(one).encode()) if form == "json" else msgspec.msgpack.encode
    samples, rejects = decode(encode(narrow()), encode(document), encode(narrow()), format=form)
    assert rejects == [(1, reason)]
    assert samples.index.tolist() == [0, 2]


def test_an_empty_poll_is_no_trouble() -> None:
    """No records, no samples."""
    samples, rejects = decode()
    assert (len(samples), rejects) == (0, [])
