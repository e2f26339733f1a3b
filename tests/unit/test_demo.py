"""What the demo shows: the story told by alerts beside the truth."""

import io
import os
import shutil
import subprocess
from dataclasses import replace

import msgspec
import pytest
from rich.console import Console

from detector.alerts import rfc3339
from detector.clock import ManualClock
from detector.commands import demo
from detector.demo.live import Address, AlertFile, Story, event_ns
from detector.demo.plant import Plant
from detector.demo.truth import Truth
from detector.records import Alert, ChannelReading, Shard, SourcePosition
from detector.status import ShardStatus
from detector.telemetry import Telemetry


def alert(stream: str, event: str, at_ns: int, detected_ns: int) -> Alert:
    """One alert of an anomaly that is named after its stream and detection."""
    time, detected = map(rfc3339, (at_ns, detected_ns))
    reading = ChannelReading(channel="flow", observed=None, expected=2.0, lower=1.0, upper=3.0, blame=0.7)
    other = ChannelReading(channel="current", observed=5.0, expected=2.0, lower=1.0, upper=3.0, blame=0.3)
    return Alert(
        id=f"{stream}{event}", anomaly_id=f"{stream}{detected}", sequence=0, event=event,
        status="resolved" if event == "close" else "firing", reason="threshold", stream=stream, labels={},
        detector="default", bundle="b@1", time=time, started_at=time, detected_at=detected, ended_at=None,
        score=5.25, peak_score=6.5, threshold=4.0, channels=[other, reading],
        source=SourcePosition(cluster="plant", topic="demo", partition=0, offset=1),
    )  # fmt: skip


@pytest.fixture
def story():
    return Story(Truth(Plant(50, 7), 12.0), warm_up=128)


def test_lines_say_which_channel_and_what_it_really_was(story):
    """Opening and closing are told, with the channel to blame and the fault behind it; an update is not."""
    fault = story.truth.faults[0]
    name, at = story.truth.plant.names[fault.stream], fault.start_ns + 10**9
    line = story.learn(alert(name, "open", at, at))
    assert f"FIRING   {name} flow (70% of the blame): observed missing, expected 1 to 3; 5.2 nines" in line
    assert f"[fault: {fault.kind}]" in line
    assert story.learn(alert(name, "update", at + 10**9, at)) is None
    assert "RESOLVED" in story.learn(alert(name, "close", at + 2 * 10**9, at))
    assert "[false alarm]" in story.learn(alert(name, "open", story.truth.plant.start_ns, story.truth.plant.start_ns))
    assert story.so_far(at) == "found 1 of 1 known faults, half of them within 0 min; 1 false alarm"


def test_the_screen_shows_everything_at_once(story):
    """Throughput, streams, warm-up, anomalies, addresses, and how well it goes."""
    telemetry = Telemetry(clock=ManualClock())
    status = telemetry.status
    fault = story.truth.faults[0]
    name, at = story.truth.plant.names[fault.stream], fault.start_ns + 10**9
    status.shards[Shard("plant", "demo", 0)] = ShardStatus("demo", "demo", 0, streams=50, last_event_ns=at)
    status.samples = 50 * 64
    status.record_rate.add(0.0, 3000)
    story.learn(alert(name, "open", at, at))
    console = Console(file=io.StringIO(), width=140)
    console.print(story.screen(status, 1.0, Address("127.0.0.1", 1234), "50 pumps"))
    text = console.file.getvalue()
    for part in ("http://127.0.0.1:1234/metrics", "3,000 samples/s", "50 streams", "warm-up 50%", "firing", name,
                 "flow 70%", "1 to 3", fault.kind, "found 1 of 1"):  # fmt: skip
        assert part in text
    console.print(story.ending(event_ns(status)))
    assert "median delay" in console.file.getvalue()


def test_alerts_are_read_once_and_whole(tmp_path):
    """A line that is still being written waits until it is complete."""
    path = tmp_path / "alerts.jsonl"
    file = AlertFile(path)
    assert list(file.new()) == []
    line = msgspec.json.encode(alert("pump-01", "open", 0, 0))
    path.write_bytes(line + b"\n" + line[:50])
    assert len(list(file.new())) == 1
    assert len(list(file.new())) == 0
    with path.open("ab") as more:
        more.write(line[50:] + b"\n")
    assert len(list(file.new())) == 1


def test_only_the_same_demo_is_continued(tmp_path):
    """Another plant, one that is over, or --fresh begins anew and says why; the same one keeps its state."""
    said = io.StringIO()
    say = Console(file=said)
    show = demo.Show("default", 50, 7, 12.0, 600.0, "sha256", "1.0")
    over = replace(show, is_over=True)
    other = replace(show, seed=8)

    def remains(earlier: demo.Show, now: demo.Show, fresh: bool = False) -> bool:
        demo._write(tmp_path, earlier)
        (tmp_path / "alerts.jsonl").write_text("")
        (tmp_path / "checkpoint").mkdir(exist_ok=True)
        demo._make_room(tmp_path, now, fresh, say)
        assert (tmp_path / "checkpoint").exists() == (tmp_path / "alerts.jsonl").exists()
        return (tmp_path / "checkpoint").exists()

    assert remains(show, show)
    assert said.getvalue() == ""
    assert not remains(over, show)
    assert "the earlier demo had come to its end: starting anew" in said.getvalue()
    assert not remains(other, show)
    assert "the earlier demo was another one: starting anew" in said.getvalue()
    assert not remains(show, show, fresh=True)
    assert "forgetting the earlier demo: starting anew" in said.getvalue()


def test_what_it_leaves_is_no_part_of_a_repository(tmp_path):
    """Whoever tries it in a checkout finds nothing new in what git tells."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*words: str) -> str:
        outside = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}  # a hook that runs us may have said which one
        return subprocess.run(
            ["git", *words], cwd=tmp_path, env=outside, check=True, capture_output=True
        ).stdout.decode()

    git("init", "-q")
    demo._write(tmp_path / "state", demo.Show("default", 50, 7, 12.0, 600.0, "sha256", "1.0"))
    assert git("status", "--short") == ""
    (tmp_path / "state/.gitignore").unlink()
    assert "state/" in git("status", "--short"), "the control: else it would be told"
