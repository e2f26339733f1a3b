"""Freezing: which samples teach their stream nothing, and how an operator says so."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.engine import Engine
from detector.errors import ConfigurationError
from detector.settings import FreezeSettings, load
from tests.engine_feed import START_S, PlainModel, detector, engine, memory, records, s

TIMES = {second: f"2024-11-21T11:{53 + (20 + second) // 60}:{(20 + second) % 60:02d}Z" for second in range(0, 200, 10)}
"""Seconds after START_S, as an operator writes them."""


def frozen_engine(*rules: dict[str, Any], **options: Any) -> Engine:
    """An engine over the plain model, whose row sums up what it learns."""
    return engine(detector(PlainModel(), freeze=list(rules)), **options)


def learnt(of: Engine) -> dict[str, float]:
    """What each stream's row has summed up."""
    return {stream: float(np.frombuffer(row["state"], np.float32)[2]) for stream, row in memory(of).items()}


MANUAL = Path(__file__).parents[2] / "docs" / "operations.md"
HERE = {"topic": "topic", "partition": 0}
FEED = [s(f"s-{at % 2}", 10 * (at // 2), 1.0) for at in range(20)]
"""Two streams, ten samples each: positions 0 to 19, 10 s apart."""


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"stream": "s-0", "from": 6}, {"s-0": 3, "s-1": 10}),
        ({"stream": "s-0", "from": 6, "until": 10}, {"s-0": 8, "s-1": 10}),
        ({"stream": "s-0", "from": 7}, {"s-0": 4, "s-1": 10}),  # an offset of another stream's record
        ({"stream": "s-*", **HERE, "from": 6}, {"s-0": 3, "s-1": 3}),
        ({"stream": "s-?", "topic": "other", "partition": 0, "from": 6}, {"s-0": 10, "s-1": 10}),
        ({"stream": "s-?", "topic": "topic", "partition": 1, "from": 6}, {"s-0": 10, "s-1": 10}),
        ({"stream": "s-*", "from": TIMES[30]}, {"s-0": 3, "s-1": 3}),
        ({"stream": "s-1", "from": TIMES[30], "until": TIMES[50]}, {"s-0": 10, "s-1": 8}),
        ({"stream": "s-0", "from": 6, "until": TIMES[50]}, {"s-0": 8, "s-1": 10}),
        ({"stream": "s-0", "from": TIMES[30], "until": 10}, {"s-0": 8, "s-1": 10}),
        ({"stream": "S-0", "from": 0}, {"s-0": 10, "s-1": 10}),
        ({"stream": "s-[!0]", "from": TIMES[0]}, {"s-0": 10, "s-1": 0}),
    ],
)  # fmt: skip
def test_a_rule_holds_from_its_first_sample_to_before_its_end(rule: dict[str, Any], expected: dict[str, float]) -> None:
    """The sample at `from` is frozen, the one at `until` is free again; only of the streams and the shard it names."""
    of = frozen_engine(rule)
    of.advance(records(FEED))
    assert learnt(of) == expected


def test_several_rules_add_up() -> None:
    """A stream is frozen where any of the rules that name it is in force."""
    of = frozen_engine(
        {"stream": "s-0", "from": 2, "until": 6},
        {"stream": "s-*", **HERE, "from": 4, "until": 8},
        {"stream": "s-0", "from": TIMES[80]},
    )
    of.advance(records(FEED))
    assert learnt(of) == {"s-0": 10 - 3 - 2, "s-1": 8}


RULES = st.builds(
    lambda stream, begin, length: {"stream": stream, **HERE, "from": begin, "until": begin + length},
    st.sampled_from(["s-0", "s-1", "s-*", "*", "t"]),
    st.integers(0, 40),
    st.integers(1, 20),
)


@given(rules=st.lists(RULES, max_size=5), cuts=st.lists(st.integers(1, 39)), rows=st.integers(1, 4))
def test_what_is_frozen_depends_on_the_record_alone(rules: list[dict[str, Any]], cuts: list[int], rows: int) -> None:
    """Vectorised, in any polls and waves, the same as asked record by record."""
    feed = [s(f"s-{at % 3}" if at % 7 else "t", at, float(2 ** (at % 5))) for at in range(40)]
    of = frozen_engine(*rules, wave_rows=rows)
    for start, end in zip([0, *sorted(set(cuts))], [*sorted(set(cuts)), 40], strict=True):
        of.advance(records(feed[start:end], start))
    expected: dict[str, float] = {}
    for at, each in enumerate(feed):
        named = [rule for rule in rules if fnmatchcase(each.stream, rule["stream"])]
        is_frozen = any(rule["from"] <= at < rule["until"] for rule in named)
        expected[each.stream] = expected.get(each.stream, 0.0) + (0 if is_frozen else each.values["v"])
    assert learnt(of) == expected


def test_a_slot_that_changes_hands_is_asked_about_anew() -> None:
    """The stream that takes a frozen stream's slot is not frozen with it."""
    of = frozen_engine({"stream": "s-0", "from": 0}, max_streams=1, max_cold_streams=9)
    of.advance(records([s("s-0", 0, 1.0)]))
    of.advance(records([s("other", 1, 1.0)], 1))
    assert [rows.streams for parts in of.evict().values() for rows in parts] == [["s-0"]]
    of.advance(records([s("third", 2, 1.0), s("third", 3, 1.0)], 2))
    assert learnt(of) == {"other": 1, "third": 2}
    assert of.frozen_streams == 0


def test_how_many_streams_are_frozen_is_known() -> None:
    """By the last sample of each; none where nothing is said."""
    of = frozen_engine({"stream": "s-*", **HERE, "from": 10, "until": 18})
    assert [of.advance(records([each], at)) and of.frozen_streams for at, each in enumerate(FEED)] == (
        [0] * 10 + [1] + [2] * 7 + [1, 0]
    )
    free = engine()
    free.advance(records(FEED))
    assert free.frozen_streams == 0


# How it is said -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("123456", 123456),
        ('"123456"', 123456),
        ("2026-11-21T08:00Z", "2026-11-21T08:00:00+00:00"),
        ("2026-11-21T08:00:00Z", "2026-11-21T08:00:00+00:00"),
        ("2026-11-21 08:00:00.25+01:00", "2026-11-21T07:00:00.250000+00:00"),
        ("2026-11-21T08:00", "2026-11-21T08:00:00+00:00"),
        ("2026-11-21", "2026-11-21T00:00:00+00:00"),
    ],
)
def test_an_edge_is_an_offset_or_a_time(tmp_path: Path, text: str, expected: object) -> None:
    """As YAML or a person writes them; UTC where no zone is said."""
    found = written(tmp_path, f"{{stream: pump-7, from: {text}}}").begin
    assert (found if isinstance(found, int) else found.isoformat()) == expected


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "{stream: 'pump-*', from: 5}",
            r"freeze.0: expected topic and partition, or a stream without wildcards",
        ),
        ("{stream: 'pump-*', topic: t, from: 5}", "for it counts in one shard; got stream 'pump-\\*'"),
        ("{stream: a, from: 5, until: 5}", "expected until after from, got 5 after 5"),
        ("{stream: a, from: 2026-11-21T08:00Z, until: 2026-11-21T07:00Z}", "expected until after from"),
        ("{stream: a, from: -1}", "from: expected an offset such as 123456, or a time such as 2026-11-21T08:00Z"),
        ("{stream: a, from: soon}", "or a time such as 2026-11-21T08:00Z, got 'soon'"),
        ("{stream: a, from: true}", "got 'True'"),
        ("{stream: a, from: 1900-01-01}", "got '1900-01-01"),
        ("{stream: a}", "freeze.0.from: expected a value"),
        ("{stream: a, since: 5, from: 5}", "freeze.0.since: expected a known key"),
    ],
)
def test_what_a_rule_cannot_mean_is_refused(tmp_path: Path, rule: str, message: str) -> None:
    """With the place in the file and what would do."""
    with pytest.raises(ConfigurationError, match=message):
        written(tmp_path, rule)


def test_rules_come_from_the_environment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of maps, as YAML."""
    monkeypatch.setenv("TIDEWARDEN_DETECTORS__PUMPS__FREEZE", "[{stream: pump-9, from: 77}]")
    rule = written(tmp_path, "{stream: pump-7, from: 5}")
    assert (rule.stream, rule.begin, rule.until) == ("pump-9", 77, None)


def written(folder: Path, rule: str) -> FreezeSettings:
    """The one rule of a configuration, as it was understood."""
    path = folder / "t.yaml"
    path.write_text(f"sources: {{plant: {{type: plant}}}}\ndetectors: {{pumps: {{freeze: [{rule}]}}}}\n")
    return load(path).detectors["pumps"].freeze[0]


def test_the_manual_shows_what_can_be_said(tmp_path: Path) -> None:
    """The lines of docs/operations.md are a configuration."""
    section = MANUAL.read_text().partition("## Freeze a stream's learning")[2].partition("\n## ")[0]
    lines = re.findall(r"^    (.*)$", section, re.MULTILINE)
    path = tmp_path / "t.yaml"
    path.write_text("sources: {plant: {type: plant}}\n" + "\n".join(lines))
    assert [rule.stream for rule in load(path).detectors["pumps"].freeze] == ["pump-7", "pump-9", "press-*"]


def test_start_is_what_the_times_say() -> None:
    """Of this file's own table."""
    assert START_S == 1_732_190_000
    assert (TIMES[0], TIMES[100]) == ("2024-11-21T11:53:20Z", "2024-11-21T11:55:00Z")
