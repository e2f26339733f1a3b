"""The daemon as a whole: built from settings, ended by signals, by the end of its sources, or by its first failure."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detector import supervision
from detector.app import App, identity_of, load_detectors, make_deliveries, rare_collections
from detector.errors import BundleError, CheckpointError
from tests.golden import learner
from tests.scenarios.daemon import BUNDLE, append, configuration, lines, settings, start


async def test_a_finite_source_ends_the_daemon(tmp_path: Path) -> None:
    """With everything scored, a last checkpoint, and nothing left to do for the next start."""
    append(tmp_path, 0, 300)
    app = App(settings(tmp_path))
    await asyncio.wait_for(app.run(), 30)
    assert len(lines(tmp_path / "scores.jsonl")) == 900
    assert len(lines(tmp_path / "alerts.jsonl")) > 3
    before = (tmp_path / "scores.jsonl").read_bytes(), (tmp_path / "alerts.jsonl").read_bytes()
    await asyncio.wait_for(App(settings(tmp_path)).run(), 30)
    assert before == ((tmp_path / "scores.jsonl").read_bytes(), (tmp_path / "alerts.jsonl").read_bytes())


async def test_a_restart_gives_what_one_run_gives(tmp_path: Path) -> None:
    """The memory goes on: same alerts, same scores, in files that were appended to twice."""
    for name in ("once", "twice"):
        (tmp_path / name).mkdir()
    append(tmp_path / "once", 0, 300)
    await asyncio.wait_for(App(settings(tmp_path / "once")).run(), 30)
    for ticks in ((0, 170), (170, 300)):
        append(tmp_path / "twice", *ticks)
        await asyncio.wait_for(App(settings(tmp_path / "twice")).run(), 30)
    for output in ("scores.jsonl", "alerts.jsonl"):
        once, twice = ((tmp_path / name / output).read_text() for name in ("once", "twice"))
        assert once.replace("/once/", "/twice/").count("\n") == twice.count("\n")
        assert [line["score"] for line in lines(tmp_path / "once" / output)] == [
            line["score"] for line in lines(tmp_path / "twice" / output)
        ]


async def test_ready_when_tested_assigned_and_restored(tmp_path: Path) -> None:
    """And no longer while draining."""
    append(tmp_path, 0, 50)
    source = {"lines": {"type": "file", "paths": [str(tmp_path / "in.jsonl")], "mode": "tail"}}
    app = App(settings(tmp_path, sources=source))
    assert app.telemetry.status.unready()
    running = asyncio.create_task(app.run())
    async with asyncio.timeout(30):
        while app.telemetry.status.unready():
            await asyncio.sleep(0.02)
        while len(lines(tmp_path / "scores.jsonl")) < 150:
            await asyncio.sleep(0.02)
        app.drain()
        assert app.telemetry.status.unready() == ["draining"]
        await running


async def test_a_drain_before_anything_runs_ends_it(tmp_path: Path) -> None:
    """Before the start, and in the middle of it."""
    append(tmp_path, 0, 5)
    app = App(settings(tmp_path))
    app.drain()
    await app.run()
    app = App(settings(tmp_path))
    running = asyncio.create_task(app.run())
    await asyncio.sleep(0)
    app.drain()
    await asyncio.wait_for(running, 10)
    assert not (tmp_path / "state").exists()


async def test_a_bundle_that_is_missing_is_told_before_anything_starts(tmp_path: Path) -> None:
    """No output file, no checkpoint folder."""
    append(tmp_path, 0, 5)
    with pytest.raises(BundleError, match=r"gone\.onnx"):
        await App(settings(tmp_path, detectors={"pumps": {"bundle": str(tmp_path / "gone.onnx")}})).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "in.jsonl"]


async def test_the_first_failure_ends_the_daemon_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of its groups, with its exit code."""
    monkeypatch.setattr(supervision, "_PAUSES_S", ())
    append(tmp_path, 0, 50)
    (tmp_path / "state").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match="state") as caught:
        await asyncio.wait_for(App(settings(tmp_path)).run(), 30)
    assert caught.value.exit_code == 1


def test_detectors_share_a_bundle_and_its_session(tmp_path: Path) -> None:
    """Each file is read once."""
    two = {name: {"bundle": BUNDLE, "match": {"stream": f"{name}.*"}} for name in ("a", "b")}
    (a, b), numerics = load_detectors(settings(tmp_path, detectors=two))
    assert (a.name, b.name) == ("a", "b")
    assert a.bundle is b.bundle
    assert a.session is b.session
    assert "onnxruntime" in numerics


def test_sampled_scores_are_not_waited_for(tmp_path: Path) -> None:
    """Complete ones are."""
    changes = configuration(tmp_path)["sinks"]
    assert len(make_deliveries(settings(tmp_path)).acknowledged()) == 1
    sampled = make_deliveries(settings(tmp_path, sinks=changes | {"scores_mode": "sampled"}))
    assert sampled.acknowledged() == []
    assert sampled.scores_sample_ratio == 0.01


def test_the_configuration_hash_covers_what_changes_results(tmp_path: Path) -> None:
    """And nothing else: not addresses, not where the bundle lies."""

    def of(**changes: Any) -> str:
        with_changes = settings(tmp_path, **changes)
        return identity_of(with_changes, load_detectors(with_changes)[0], "numerics").configuration

    copy = tmp_path / "copy.onnx"
    copy.write_bytes(Path(BUNDLE).read_bytes())
    decide = {"threshold_nines": 1.6}
    assert of() == of(http={"port": 9999}) == of(detectors={"pumps": {"bundle": str(copy), "decide": decide}})
    assert of() != of(detectors={"pumps": {"bundle": BUNDLE, "decide": {"threshold_nines": 1.7}}})
    assert of() == of(engine={"max_streams": 5, "max_cold_streams": 10_999_995})
    assert of() != of(engine={"max_streams": 5})
    assert of() != of(engine={"forget_after_s": 86_400.0})
    told = [{}, {"roles": {"flow": "target"}}, {"roles": {"flow": "context"}}]
    told += [{"freeze": [{"stream": "a", "from": edge}]} for edge in (5, 6, "2026-11-21T08:00Z")]
    pumps = {"bundle": str(learner.PATH), "decide": decide}
    found = [of(detectors={"pumps": pumps | each}) for each in told]
    assert len({*found}) == len(told)
    assert found[0] == of()
    same_time = {"freeze": [{"stream": "a", "from": "2026-11-21T09:00+01:00"}]}
    assert found[-1] == of(detectors={"pumps": pumps | same_time})


def test_the_hash_of_a_configuration_of_before_is_what_it_was(tmp_path: Path) -> None:
    """Settings that came later and are not used leave it alone: what was checkpointed before can still be verified."""
    said = identity_of(settings(tmp_path), load_detectors(settings(tmp_path))[0], "numerics")
    detectors = [("pumps", settings(tmp_path).detectors["pumps"].model_dump(mode="json", exclude={"bundle"}))]
    for later in ("roles", "freeze"):
        assert not detectors[0][1].pop(later)
    assert set(detectors[0][1]) == {"match", "channels", "time_zone", "decide"}
    matters = {
        "detectors": detectors,
        "records": {name: each.record.model_dump(mode="json") for name, each in settings(tmp_path).sources.items()},
        "most_streams": 11_000_000,
        "forget_after_s": None,
    }
    assert said.configuration == hashlib.sha256(msgspec.json.encode(matters)).hexdigest()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon as a process on a file that never ends."""
    append(tmp_path, 0, 200)
    source = {"lines": {"type": "file", "paths": [str(tmp_path / "in.jsonl")], "mode": "tail"}}
    settings(tmp_path, sources=source)
    daemon = start(tmp_path)
    try:
        yield daemon
    finally:
        daemon.kill()
        daemon.wait()


def wait_until_scored(folder: Path, count: int) -> None:
    """Bounded."""
    deadline_s = time.monotonic() + 90
    while not (folder / "scores.jsonl").exists() or len(lines(folder / "scores.jsonl")) < count:
        assert time.monotonic() < deadline_s, (folder / "log").read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(tmp_path: Path, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Exit code 0, and a last checkpoint at the very end of what was read."""
    wait_until_scored(tmp_path, 600)
    process.send_signal(number)
    assert process.wait(90) == 0, (tmp_path / "log").read_text()
    (manifest, *_) = sorted((tmp_path / "state").glob("*/manifest-*"), reverse=True)
    document = json.loads(manifest.read_text().rpartition("crc32")[0])
    assert document["position"] & (1 << 40) - 1 == (tmp_path / "in.jsonl").stat().st_size


def test_a_second_signal_ends_at_once(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    """Nothing is waited for; the exit code tells."""
    wait_until_scored(tmp_path, 1)
    process.send_signal(signal.SIGSTOP)  # so that both are there before either is handled
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    assert process.wait(90) in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def test_the_collector_is_as_before_afterwards() -> None:
    """Rare collections end with the pipeline, also when it fails."""

    def fail() -> None:
        assert gc.get_threshold() != before
        raise RuntimeError

    before = gc.get_threshold()
    with pytest.raises(RuntimeError), rare_collections():
        fail()
    assert gc.get_threshold() == before
