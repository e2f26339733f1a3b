"""Narrow records in files, through the whole daemon: joined, closed at the end, told where they can never meet."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from detector.app import App
from detector.errors import ConfigurationError
from detector.pipeline.shards import Shards
from tests.scenarios.daemon import DETECTOR, NARROW, lines, settings

CHANNELS = ["flow", "heat"]
DETECTORS = {"pumps": DETECTOR | {"channels": CHANNELS}}
TICKS = 300


def samples() -> list[dict[str, Any]]:
    """Of two streams, with level shifts, a channel missing now and then; anomalies are open when the feed ends."""
    rng = random.Random(3)
    found = []
    for tick in range(TICKS):
        for stream in ("p0", "p1"):
            flow = rng.gauss(0, 1) + (40 if 20 <= tick % 100 < 24 or tick == TICKS - 1 else 0)
            values = {"flow": flow, "heat": rng.gauss(20, 1)}
            if tick % 7 == 5 or tick == TICKS - 1:
                values["heat"] = None
            found.append({"stream": stream, "time": 1_600_000_000 + tick * 10, "values": values})
    return found


def rows() -> list[tuple[str, int, str, float]]:
    """The same, a channel each; what is missing is not sent, and channels come in any order."""
    rng = random.Random(4)
    found = []
    for sample in samples():
        cells = [(name, value) for name, value in sample["values"].items() if value is not None]
        found += [(sample["stream"], sample["time"], *cell) for cell in rng.sample(cells, len(cells))]
    return found


def write(folder: Path, kind: str) -> dict[str, Any]:
    """The feed as a file of a kind; returns the source that reads it."""
    folder.mkdir(exist_ok=True)
    path = folder / ("in.csv" if kind == "csv" else "in.jsonl")
    if kind == "wide":
        texts = [json.dumps(sample) for sample in samples()]
    elif kind == "csv":
        texts = ["stream,time,channel,value,quality", *(",".join(map(str, (*row, "good"))) for row in rows())]
    else:
        fields = ("stream", "time", "channel", "value")
        texts = [json.dumps(dict(zip(fields, row, strict=True))) for row in rows()]
    path.write_text("\n".join(texts) + "\n")
    return {"type": "file", "paths": [str(path)], "record": {} if kind == "wide" else NARROW}


def run(folder: Path, source: dict[str, Any], **changes: Any) -> App:
    """One daemon, to the end of its files."""
    app = App(settings(folder, sources={"lines": source}, detectors=DETECTORS, **changes))
    asyncio.run(app.run())
    return app


def told(folder: Path) -> tuple[list[Any], list[Any]]:
    """Scores and alerts, less what hangs on positions."""
    scores = [(one["stream"], one["time_ns"], one["score"], one["threshold"], one["anomaly"]) for one in
              lines(folder / "scores.jsonl")]  # fmt: skip
    alerts = [one | {"id": None, "anomaly_id": None, "source": None} for one in lines(folder / "alerts.jsonl")]
    return sorted(scores), sorted(alerts, key=lambda one: (one["stream"], one["time"], one["sequence"]))


def test_json_lines_and_csv_say_what_wide_records_say(tmp_path: Path) -> None:
    """Every sample has its score and every anomaly its alerts, to the last one, which the end of the file closes."""
    for kind in ("wide", "narrow", "csv"):
        run(tmp_path / kind, write(tmp_path / kind, kind))
    wide = told(tmp_path / "wide")
    assert len(wide[0]) == 2 * TICKS
    last = [one for one in wide[1] if one["time"] == "2020-09-13T13:16:30Z"]
    assert [(one["stream"], one["event"]) for one in last] == [("p0", "open"), ("p1", "open")]
    assert told(tmp_path / "narrow") == wide
    assert told(tmp_path / "csv") == wide


@pytest.mark.parametrize("crash", [False, True])
def test_the_end_comes_once(crash: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it closed is in the last checkpoint; killed between the two, the next start tells it again, as it was."""
    source = write(tmp_path, "narrow")
    sound = Shards.finish
    if crash:

        async def die(self: Shards) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Shards, "finish", die)
        with pytest.raises(BaseException) as caught:  # noqa: PT011  # the test's own death
            run(tmp_path, source, checkpoint={"path": str(tmp_path / "state"), "every_s": 3600})
        assert "KeyboardInterrupt" in repr(caught.value)
        monkeypatch.setattr(Shards, "finish", sound)
    else:
        run(tmp_path, source)
    before = told(tmp_path)
    run(tmp_path, source)
    after = told(tmp_path)
    assert len(before[0]) == 2 * TICKS
    assert sorted(set(after[0])) == before[0]
    assert len(after[0]) == (2 if crash else 1) * len(before[0])
    assert after[1] == before[1]  # found on the output, hence not told again


def test_a_file_that_grows_goes_on_where_it_ended(tmp_path: Path) -> None:
    """The end closed what was open: a value for that time comes too late, and a later sample is whole."""
    source = write(tmp_path, "narrow")
    run(tmp_path, source)
    time_s = 1_600_000_000 + TICKS * 10
    more = [("p0", time_s - 10, "heat", 20.0), ("p0", time_s, "heat", 20.0), ("p0", time_s, "flow", 0.0)]
    with (tmp_path / "in.jsonl").open("a") as file:
        for stream, at, channel, value in more:
            file.write(json.dumps({"stream": stream, "time": at, "channel": channel, "value": value}) + "\n")
    before = lines(tmp_path / "scores.jsonl")
    app = run(tmp_path, source)
    new = lines(tmp_path / "scores.jsonl")[len(before) :]
    assert [(one["stream"], one["time_ns"]) for one in new] == [("p0", time_s * 10**9)]
    assert app.telemetry.status.rejects == {"duplicate": 1}
    ids = [one["id"] for one in lines(tmp_path / "alerts.jsonl")]
    assert len(ids) == len(set(ids))


def test_streams_split_over_shards_are_told_of_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Channels that come on two partitions never meet: the operator hears which, and what to do."""
    source = write(tmp_path, "narrow")
    texts = (tmp_path / "in.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "in.jsonl").unlink()
    for name in CHANNELS:
        (tmp_path / f"in-{name}.jsonl").write_text("".join(line for line in texts if name in line))
    app = run(tmp_path, source | {"paths": [str(tmp_path / "in-*.jsonl")]})
    told_of = app.telemetry.registry.get_sample_value("tidewarden_streams_split_total", {"source": "lines"})
    assert told_of == 2
    assert "key the producer's records by stream" in "".join(capfd.readouterr())


def test_channels_must_be_declared(tmp_path: Path) -> None:
    """Else nobody could say when a sample is whole; said at the start, with the place to mend."""
    source = write(tmp_path, "narrow")
    app = App(settings(tmp_path, sources={"lines": source}))
    with pytest.raises(ConfigurationError, match=r"detectors\.pumps\.channels.*narrow records of sources\.lines"):
        asyncio.run(app.run())
    assert not (tmp_path / "scores.jsonl").exists()
