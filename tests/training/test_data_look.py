"""What is wrong with history is found before training, with its place; where nothing is wrong, nothing is said."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from rich.console import Console

from detector.records import Float64
from tests.training.test_data_disk import gathered
from training.data.look import ADVICE, Finding, look
from training.data.series import Series
from training.findings import as_advice, as_section, as_table
from training.progress import Progress
from training.run import look_at, read_history
from training.settings import TrainSettings

S, SAMPLES, CUT = 1_000_000_000, 4000, 3200


def clean(seed: int = 0, samples: int = SAMPLES) -> Series:
    """Two channels with cycles and heavy-tailed noise, a sample a minute that comes a little early or late."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples)
    time_ns = (t * 60 * S + rng.normal(0, 0.5, samples) * S).astype(np.int64)
    values = np.stack([np.sin(t / 50 + c) for c in (1, 2)], axis=1) + 0.2 * rng.standard_t(4, (samples, 2))
    return Series(f"s{seed}", ("flow", "level"), time_ns, 50 + values, int(0.8 * samples))


def changed(change: Callable[[Float64], object]) -> Series:
    """A clean stream with something done to its first channel."""
    one = clean()
    change(one.values[:, 0])
    return one


def put(at: int | slice, what: float) -> Callable[[Float64], object]:
    return lambda cells: cells.__setitem__(at, what)


def widened(cells: Float64) -> None:
    cells[CUT:] = 50 + 9 * (cells[CUT:] - 50)


def times(step_s: Float64) -> list[Series]:
    """A stream whose samples come after these pauses."""
    return [replace(clean(), time_ns=np.cumsum(step_s * S).astype(np.int64))]


def usual() -> Float64:
    return np.full(SAMPLES, 60.0)


def paused() -> list[Series]:
    steps = usual()
    steps[[1000, 2000]] = 86_400 / 2
    return times(steps)


def copied(start: int, to: int, other: Series | None = None) -> list[Series]:
    """600 samples that stand again elsewhere, in the same stream or in another one."""
    one = clean()
    target = other or one
    target.values[to : to + 600] = one.values[start : start + 600]
    return [one] if other is None else [one, other]


FAULTS: dict[str, tuple[str, str, Callable[[], list[Series]], str]] = {
    "pauses": ("gaps", "", paused, "26% of the time missing in 2, the longest 12 h"),
    "irregular": ("sampling", "", lambda: times(np.random.default_rng(1).exponential(60, SAMPLES)), "samples off it"),
    "never moves": ("constant", "flow", lambda: [changed(put(slice(None), 7.0))], "always 7"),
    "stuck": ("constant", "flow", lambda: [changed(put(slice(1000, 3500), 7.0))], "stands still for 62%"),
    "mostly lost": ("missing", "flow", lambda: [changed(put(slice(0, 3000), np.nan))], "75% of its cells are empty"),
    "a code for missing": (
        "outliers",
        "flow",
        lambda: [changed(put(slice(0, 4000, 500), -999.0))],
        "8 values such as -999",
    ),
    "a counter": (
        "drift",
        "flow",
        lambda: [changed(lambda cells: cells.__iadd__(np.arange(SAMPLES)))],
        "times its spread",
    ),
    "another level": ("unlike", "flow", lambda: [changed(lambda cells: cells[CUT:].__iadd__(9))], "after it 58.84"),
    "another spread": ("unlike", "flow", lambda: [changed(widened)], "after it"),
    "two streams alike": ("leakage", "", lambda: copied(100, 100, clean(1)), "stand in s0 too"),
    "moved in time": ("leakage", "", lambda: copied(100, 137, clean(1)), "stand in s0 too"),
    "across the cut": ("leakage", "", lambda: copied(100, 3300), "the same stream too, "),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(name: str) -> None:
    """With its kind, channel and stream, what is the case, and what to do; and nothing else is said."""
    kind, where, make, told = FAULTS[name]
    series = make()
    (found,) = look(series)
    assert (found.kind, found.where, found.streams, found.worst) == (kind, where, 1, series[-1].stream)
    assert told in found.told
    assert found.advice == ADVICE[kind]


def test_of_clean_streams_nothing_is_said() -> None:
    """The negative control of every kind: cycles, heavy tails, jitter, some missing cells and a short pause."""
    streams = [clean(seed) for seed in range(12)]
    for one in streams:
        one.values[::50, 1] = np.nan
        one.time_ns[2000:] += 300 * S
    assert look(streams) == []


def test_a_seasons_level_is_no_drift() -> None:
    """What comes back is a cycle, however slow: only a level that keeps going away is told."""
    slow = changed(lambda cells: cells.__iadd__(20 * np.sin(np.arange(SAMPLES) / SAMPLES * 4 * np.pi)))
    assert [each.kind for each in look([slow]) if each.kind == "drift"] == []


def test_streams_with_the_same_fault_are_told_together() -> None:
    """How many there are, and where it is worst; the gravest kind first."""
    streams = [changed(put(slice(0, 4000, 500), code)) for code in (-999.0, -9999.0)]
    streams[1] = replace(
        streams[1], stream="worst", values=streams[1].values + np.random.default_rng(2).random((SAMPLES, 2))
    )
    findings = look([*streams, clean(5), *copied(100, 3300)[:1]])
    assert [(each.kind, each.streams, each.worst) for each in findings if each.kind == "outliers"] == [
        ("outliers", 2, "worst")
    ]
    assert findings[0].kind == "leakage"


def test_a_stream_on_disk_is_looked_at_in_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same is found of a long stream from parts of it."""
    monkeypatch.setattr("training.data.look._CELLS", 4000)
    (stored,) = gathered([changed(put(slice(0, 4000, 50), -999.0))], tmp_path, 1000)
    assert stored.is_stored
    assert [(each.kind, each.where) for each in look([stored])] == []  # 2 percent are a state of their own
    (stored,) = gathered([changed(put(slice(0, 4000, 150), -999.0))], tmp_path, 1000)
    assert [(each.kind, each.where) for each in look([stored])] == [("outliers", "flow")]


def test_the_table_and_the_page_say_what_was_found() -> None:
    """In the terminal with advice by kind below, in the report with all of it; a name is text, not HTML."""
    found = [Finding("outliers", "<flow>", 3, "pump-1", "8 values such as -999", ADVICE["outliers"])]
    console = Console(file=io.StringIO(), width=100)
    console.print(as_table(found, 10))
    told = console.file.getvalue()
    assert [word for word in ("outliers", "<flow>", "3 of 10", "pump-1", "-999") if word not in told] == []
    assert as_advice(found * 2) == [f"outliers: {ADVICE['outliers']}"]
    page = as_section(found, 10)
    assert "&lt;flow&gt;" in page
    assert ADVICE["outliers"] in page
    assert "found nothing" in as_section([], 10)


def test_looking_needs_no_training(tmp_path: Path) -> None:
    """`train --look` reads, tells, and leaves nothing behind."""
    rows = "".join(f"{60 * t},{np.sin(t / 9):.4f},7\n" for t in range(500))
    (tmp_path / "a.csv").write_text("time,flow,valve\n" + rows)
    data = {"paths": [str(tmp_path / "a.csv")], "time_unit": "s"}
    settings = TrainSettings.model_validate({"name": "a", "data": data, "output": tmp_path})
    console = Console(file=io.StringIO(), width=120)
    with Progress(console) as progress:
        (found,) = look_at(read_history(settings, progress), progress)
    assert (found.kind, found.where) == ("constant", "valve")
    assert "always 7" in console.file.getvalue()
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
