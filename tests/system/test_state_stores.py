"""`tidewarden state` over every store: memory moves between places, and the daemon goes on as if nothing was."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from detector import cli
from detector.app import App
from detector.errors import FencedError, InputError
from tests.kafka.topics import new_name
from tests.scenarios.daemon import append, lines, settings

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

EVERY_S = 0.2

EVERY_STORE = pytest.mark.parametrize("store", ["dir", "kafka", "object"], indirect=True)


def state(folder: Path, what: str, *arguments: object) -> Result:
    """A command over the folder's configuration; it must succeed."""
    done = CliRunner().invoke(
        cli.app, ["state", what, "-c", str(folder / "config.yaml"), *(str(each) for each in arguments)]
    )
    if done.exception is not None:
        raise done.exception
    return done


def place(folder: Path, store: dict[str, Any], name: str) -> dict[str, Any]:
    """The checkpoint section of another place in the same kind of store."""
    kind = store.get("type", "dir")
    own: dict[str, Any] = {"path": str(folder / name)}
    if kind == "kafka":
        own = {"topic": new_name(name)}
    elif kind == "object":
        own = {"url": f"{store['url']}/{name}"}
    return {"every_s": EVERY_S, **store, **own}


def watch(folder: Path, checkpoint: dict[str, Any], **changes: Any) -> tuple[bytes, bytes]:
    """The daemon, to the end of its file; what stands on its outputs then."""
    asyncio.run(App(settings(folder, checkpoint=checkpoint, **changes)).run())
    return (folder / "alerts.jsonl").read_bytes(), (folder / "scores.jsonl").read_bytes()


def forget_outputs(folder: Path) -> None:
    """For a daemon that never stopped."""
    for name in ("alerts.jsonl", "scores.jsonl"):
        (folder / name).unlink()


@EVERY_STORE
def test_memory_moves_to_an_empty_store_and_nothing_changes(tmp_path: Path, store: dict[str, Any]) -> None:
    """Export, import, go on: alerts and scores are byte-equal to those of one daemon that never stopped."""
    first, elsewhere, never = (place(tmp_path, store, name) for name in ("first", "elsewhere", "never"))
    append(tmp_path, 0, 187)
    watch(tmp_path, first)
    state(tmp_path, "export", "-o", tmp_path / "all.rows")
    settings(tmp_path, checkpoint=elsewhere)
    state(tmp_path, "import", tmp_path / "all.rows")
    append(tmp_path, 187, 400)
    moved = watch(tmp_path, elsewhere)
    forget_outputs(tmp_path)
    assert moved == watch(tmp_path, never)
    assert len(lines(tmp_path / "alerts.jsonl")) > 10


@EVERY_STORE
def test_a_fork_is_a_checkpoint_like_any_other(tmp_path: Path, store: dict[str, Any]) -> None:
    """The daemon goes on from it; the others' results are those of a daemon that knows nothing of it."""
    first, never = (place(tmp_path, store, name) for name in ("first", "never"))
    append(tmp_path, 0, 187)
    watch(tmp_path, first)
    time.sleep(5 * EVERY_S)
    state(tmp_path, "fork", "p1", "twin")
    (shard,) = json.loads(state(tmp_path, "list", "--json").stdout)
    assert (shard["streams"], shard["fence"]) == (4, 2)
    append(tmp_path, 187, 300)
    forked = watch(tmp_path, first)
    assert json.loads(state(tmp_path, "list", "--json").stdout)[0]["fence"] == 3
    forget_outputs(tmp_path)
    assert forked == watch(tmp_path, never)


@EVERY_STORE
def test_whoever_serves_the_shard_is_fenced(tmp_path: Path, store: dict[str, Any]) -> None:
    """With --yes only; its next checkpoint is refused, and nothing that was put in is lost."""
    checkpoint = place(tmp_path, store, "first") | {"every_s": 1.5}
    append(tmp_path, 0, 150)
    tail = {"sources": {"lines": {"type": "file", "mode": "tail", "paths": [str(tmp_path / "in.jsonl")]}}}
    app = App(settings(tmp_path, checkpoint=checkpoint, **tail))

    async def serve() -> None:
        running = asyncio.create_task(app.run())
        async with asyncio.timeout(120):
            while not (tmp_path / "scores.jsonl").exists() or len(lines(tmp_path / "scores.jsonl")) < 450:
                await asyncio.sleep(0.05)
            await asyncio.sleep(2)
            with pytest.raises(InputError, match="a daemon seems to serve the shard"):
                await asyncio.to_thread(state, tmp_path, "fork", "p1", "twin")
            await asyncio.to_thread(state, tmp_path, "fork", "p1", "twin", "--yes")
            append(tmp_path, 150, 160)
            await running

    with pytest.raises(FencedError):
        asyncio.run(serve())
    streams = json.loads(state(tmp_path, "list", "--streams", "--json").stdout)
    assert "twin" in [each["stream"] for each in streams]


def test_evicted_streams_have_memory_too(tmp_path: Path) -> None:
    """They are listed, shown, exported and forked as the others are, and results stay those of an uncrowded daemon."""
    crowded, roomy = (place(tmp_path, {}, name) for name in ("crowded", "roomy"))
    few = {"engine": {"max_streams": 2}}
    append(tmp_path, 0, 240, streams=6)  # past the anomalies: a stream that has one open is not evicted
    watch(tmp_path, crowded, **few)
    time.sleep(5 * EVERY_S)
    found = json.loads(state(tmp_path, "list", "--streams", "--json").stdout)
    cold = [each["stream"] for each in found if each["row"] == "cold"]
    assert len(found) == 6
    assert cold
    assert "samples seen" in state(tmp_path, "show", cold[0]).stdout
    state(tmp_path, "fork", cold[0], "twin")
    state(tmp_path, "export", cold[0], "twin", "-o", tmp_path / "x.rows")
    append(tmp_path, 240, 300, streams=6)
    told = watch(tmp_path, crowded, **few)
    forget_outputs(tmp_path)
    assert told == watch(tmp_path, roomy)
