"""Any order of write, crash, torn write, lost write, failing write, claim, follow and load: nothing durable is lost.

The disk here keeps a file's bytes only as of its last fsync, and the names in a folder only as of the folder's; of
what was done since then each change may have reached the disk or not, as a coin decides. Owners are made of the parts
of the daemon, with an engine for two streams, so that rows are evicted, come back and are gone; a history is kept.
A checkpoint may be struck at any of its steps: by a crash, the loss of power, a write that fails, or another owner who
claims the shard right then, and both go on. Now and then a standby looks, and the next owner goes on with its copy.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from detector.checkpoint import protocol
from detector.checkpoint.base import fence_name, garbage, manifest_name, segment_name
from detector.checkpoint.edit import read_held
from detector.checkpoint.format import Manifest, decode_manifest, encode_manifest
from detector.checkpoint.history import copies
from detector.checkpoint.protocol import Checkpointer, Identity, Outputs
from detector.checkpoint.restore import load, restore
from detector.checkpoint.standby import newer, refreshed
from detector.checkpoint.stores import dir as store_dir
from detector.checkpoint.stores.dir import DirStore
from detector.checkpoint.warm import Warm
from detector.clock import ManualClock
from detector.engine import Engine
from detector.errors import CheckpointError, CorruptCheckpointError, FencedError
from detector.records import ArenaRows, Records, Shard
from detector.settings import EngineSettings, RecordSettings, parse_history
from detector.sources.base import Bounds
from tests.engine_feed import SHARD, PlainModel, detector, records, s

STREAMS, WARM_STREAMS = 7, 2
KINDS = ("segment", "cold", "manifest", "history")
STRIKES = ["crash", "power", "failure", "claim"]
STEPS = [f"{when} {kind}" for when in ("before", "after") for kind in KINDS] + ["before delete"]


class Disk:
    """Watches fsync below a folder and can take back what was not synced."""

    def __init__(self, folder: Path, rng: random.Random, forgets: str | None) -> None:
        self.folder, self.random, self.forgets = folder, rng, forgets
        self._content: dict[int, bytes] = {}
        """Per inode the bytes that are safe."""
        self._names: dict[str, int] = {}
        """Path to inode, as is safe."""

    def fsync(self, descriptor: int) -> None:
        """Note what is safe from now on."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if self.forgets == ("folder" if path.is_dir() else "file"):
            return
        if path.is_dir():
            self._names = {name: inode for name, inode in self._names.items() if Path(name).parent != path}
            self._names |= {str(each): each.stat().st_ino for each in path.iterdir() if each.is_file()}
        else:
            self._content[os.fstat(descriptor).st_ino] = path.read_bytes()

    def lose_power(self) -> None:
        """Rebuild the folder from what is safe and a random choice of the rest."""
        now = {str(each): each for each in self.folder.rglob("*") if each.is_file()}
        after: dict[str, bytes] = {}
        for name in sorted({*now, *self._names}):  # in one order: a seed repeats
            synced, present = self._names.get(name), now.get(name)
            inode = present.stat().st_ino if present else None
            if inode != synced and self.random.random() < 0.5:
                inode = synced  # the change of the name did not reach the disk
            if inode is not None:
                after[name] = self._bytes(inode, now)
        for each in now.values():
            each.unlink()
        for name, content in after.items():
            Path(name).write_bytes(content)
        self._names = {name: Path(name).stat().st_ino for name in after}
        self._content = {Path(name).stat().st_ino: content for name, content in after.items()}

    def _bytes(self, inode: int, now: dict[str, Path]) -> bytes:
        """The synced bytes, or a beginning of those that were never synced."""
        if inode in self._content:
            return self._content[inode]
        written = next((each.read_bytes() for each in now.values() if each.stat().st_ino == inode), b"")
        return written[: self.random.randint(0, len(written))]


class Crash(BaseException):
    """The process is gone."""


class StruckStore:
    """The store as one owner sees it; its steps can be struck."""

    def __init__(self, machine: Protocol) -> None:
        self._machine = machine
        self.strike: tuple[str, str] | None = None
        """At which step, and by what; once."""

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._machine.store, verb)

    async def write(self, shard: Shard, name: str, blocks: Sequence[bytes]) -> None:
        """Strike before or after; a manifest that was written counts from then on."""
        kind, fence, epoch = name.split(".")[0].split("-")[:3]
        await self._reach(f"before {kind}")
        await self._machine.store.write(shard, name, blocks)
        if kind == "manifest":
            self._machine.durable = max(self._machine.durable, (int(fence), int(epoch)))
        await self._reach(f"after {kind}")

    async def delete(self, shard: Shard, names: Sequence[str]) -> None:
        """Strike before."""
        await self._reach("before delete")
        await self._machine.store.delete(shard, names)

    async def _reach(self, step: str) -> None:
        if self.strike is None or self.strike[0] != step:
            return
        what, self.strike = self.strike[1], None
        self._machine.struck.append(f"{what} {step}")
        if what in ("crash", "power"):
            raise Crash(what)
        if what == "failure":
            raise CheckpointError("disk", "full")
        await self._machine.succeed()


class Owner:
    """A process that owns the shard, or thinks so."""

    def __init__(self, engine: Engine, store: StruckStore, keeper: Checkpointer) -> None:
        self.engine, self.store, self.keeper = engine, store, keeper
        self.position = keeper.manifest.position

    async def advance(self, batch: Records) -> None:
        """Process a poll."""
        if len(batch):
            await self.keeper.cold.bring_back(batch)
            self.engine.advance(batch)
            self.position = batch.next_position


class Protocol(RuleBasedStateMachine):
    """What is loaded is always whole, the newest that is durable, and exactly the records below its position."""

    root: Path
    forgets: str | None = None
    """`file` or `folder`: what this disk does not sync although it was told to."""
    struck: list[str]
    """What was struck, over all runs."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        """An empty disk and nobody."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self.store = DirStore(self.root)
        self.disk = Disk(self.root, random.Random(seed), self.forgets)
        store_dir.os = _OsWith(self.disk)  # type: ignore[assignment]  # put back in teardown
        self.clock, self.thread = ManualClock(), ThreadPoolExecutor(1)
        self.owners: list[Owner] = []
        self.warm: Warm[Engine] | None = None
        self.durable = (0, 0)  # fence and epoch of the newest manifest that was acknowledged
        self.log: list[Any] = []
        self.rows: dict[int, dict[str, dict[str, bytes]]] = {}  # what memory is at a position
        self.take_over()

    # Rules

    @rule()
    def take_over(self) -> None:
        """A process claims the shard and loads; the one before may still be running."""
        asyncio.run(self.succeed())

    @rule()
    def follow(self) -> None:
        """A standby looks."""
        loaded = asyncio.run(newer(self.store, SHARD, self.warm))
        if loaded is not None:
            self.warm = asyncio.run(refreshed(self.warm, loaded, _engine))

    @rule(seed=st.integers(0, 2**32))
    def live(self, seed: int) -> None:
        """An owner processes some records, and makes a checkpoint, up to the step that is struck."""
        rng, at = random.Random(seed), len(self.log)  # by itself Hypothesis would draw the same few over and over
        owner, strike = rng.choice(self.owners), rng.choice([None, (rng.choice(STEPS), rng.choice(STRIKES))])
        for i in range(rng.choice([0, 4, 8])):
            self.log.append(s(f"s-{rng.randrange(STREAMS)}", (at + i) * 10.0, rng.randrange(100) / 20))
        owner.store.strike = strike
        self._live(owner, rng.randint(owner.position, len(self.log)))
        owner.store.strike = None

    @rule(hours=st.sampled_from([0.1, 1, 5]))
    def wait(self, hours: float) -> None:
        """Time passes; some history is no longer kept."""
        self.clock.advance(hours * 3600)

    @rule(name=st.sampled_from(["manifest", "segment"]), share=st.floats(0, 1))
    def tear_a_write(self, name: str, share: float) -> None:
        """A process dies in the middle of writing a file: its beginning stands under the temporary name."""
        manifest = self.owners[-1].keeper.manifest
        target = (manifest_name if name == "manifest" else segment_name)(manifest.fence, manifest.epoch + 1)
        content = encode_manifest(manifest)
        self.store.folder(SHARD).joinpath(f"{target}.tmp").write_bytes(content[: int(len(content) * share)])

    @rule()
    def crash(self) -> None:
        """All processes die; the disk keeps everything."""
        self.owners = []
        self.take_over()

    @rule()
    def lose_power(self) -> None:
        """All processes die, and the disk keeps only what was synced, and some of the rest."""
        self.disk.lose_power()
        self.crash()

    # What holds at any time

    @invariant()
    def what_is_loaded_is_whole_and_the_newest(self) -> None:
        """And its rows are those of the records below its position, hot and cold together."""
        loaded = asyncio.run(load(self.store, SHARD))
        assert loaded is not None
        assert (loaded.manifest.fence, loaded.manifest.epoch) == self.durable
        assert loaded.manifest.position >= self.owners[-1].keeper.manifest.position  # no former owner takes it back
        assert not loaded.passed_over
        self._check(loaded.manifest)

    @invariant()
    def what_the_history_names_is_there(self) -> None:
        """Every copy can be gone back to."""
        for name in copies(asyncio.run(self.store.names(SHARD))):
            self._check(decode_manifest(asyncio.run(self.store.read(SHARD, name)), name))

    def teardown(self) -> None:
        """Give the real `os` back."""
        store_dir.os = os
        self.thread.shutdown()

    # How

    async def succeed(self) -> None:
        """One more owner; of those before, the last may go on."""
        store, warm, engine = StruckStore(self), self.warm, _engine()
        self.warm = None  # used up
        identity = Identity({"plain": (PlainModel().bundle.sha256, "plain@1")}, "configuration", "numerics")
        parts: dict[str, Any] = {"store": store, "source": self, "identity": identity, "clock": self.clock}
        restored = await restore(SHARD, memory=engine, warm=warm, start="earliest", alerts={}, **parts)
        engine = warm.memory if warm is not None and restored.was_warm else engine
        keeper = Checkpointer(
            manifest=restored.manifest,
            memory=engine,
            engine_thread=self.thread,
            outputs=Outputs({}),
            every_s=1,
            keep_history=parse_history("1/h for 4h"),
            **parts,
        )
        self.owners = [*self.owners[-1:], Owner(engine, store, keeper)]

    def _live(self, owner: Owner, end: int) -> None:
        async def act() -> None:
            await owner.advance(self._records(owner.position, end))
            await owner.keeper.make_durable(await owner.keeper.take(is_replaying=False))

        try:
            asyncio.run(act())
        except Crash as crash:
            if str(crash) == "power":
                self.disk.lose_power()
            self.crash()
        except (FencedError, CorruptCheckpointError):  # its manifest is refused, its cold rows are garbage
            assert owner is not self.owners[-1]
            self.owners.remove(owner)
        except CheckpointError:
            pass  # the disk was full for a moment; it tries again

    def _records(self, start: int, end: int) -> Records:
        return records(self.log[start:end], start)

    def _check(self, manifest: Manifest) -> None:
        """Memory is that of exactly the records below the position."""
        if manifest.position not in self.rows:
            plain = _engine(10**6)
            if manifest.position:
                plain.advance(self._records(0, manifest.position))
            self.rows[manifest.position] = _rows(plain.snapshot(full=True).arenas)
        held = asyncio.run(read_held(self.store, manifest))
        assert _rows(held.arenas) == self.rows[manifest.position]

    # The source, as far as it is asked

    async def bounds(self, shard: Shard, near: int | None = None) -> Bounds:
        """All of the log."""
        return Bounds(0, len(self.log))

    async def anchor(self, shard: Shard, position: int) -> str | None:
        """Nothing is told of it."""
        return None

    async def partitions(self, shard: Shard) -> int | None:
        """There are none."""
        return None

    async def commit(self, positions: dict[Shard, int]) -> None:
        """Nobody listens."""


class _OsWith:
    """The module `os` with a disk behind its fsync."""

    def __init__(self, disk: Disk) -> None:
        self.fsync = disk.fsync

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def _engine(most: int = WARM_STREAMS) -> Engine:
    return Engine(SHARD, [detector(PlainModel())], RecordSettings(), EngineSettings(max_streams=most))


def _rows(arenas: Sequence[ArenaRows]) -> dict[str, dict[str, bytes]]:
    return {
        stream: {name: array[at].tobytes() for name, array in rows.arrays.items()}
        for rows in arenas
        for at, stream in enumerate(rows.streams)
    }


def _run_machine(
    folder: Path, phases: Sequence[Phase], forgets: str | None = None, without: Sequence[str] = ()
) -> list[str]:
    """Run it, without some of its rules where others are to come more often; returns what was struck."""
    struck: list[str] = []
    machine = type(
        "Machine", (Protocol,), {"root": folder / "disk", "forgets": forgets, "struck": struck} | dict.fromkeys(without)
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return struck


def test_whatever_happens_the_newest_durable_checkpoint_is_loaded(tmp_path: Path) -> None:
    """With a former owner still running, rows that come and go, and a history."""
    struck = _run_machine(tmp_path, [Phase.generate, Phase.shrink])
    assert {each.split()[0] for each in struck} == {*STRIKES}
    assert {each.split()[-1] for each in struck} == {*KINDS, "delete"}


# The machine has teeth


@pytest.mark.parametrize("forgets", ["file", "folder"])
def test_control_without_a_sync_checkpoints_are_lost(tmp_path: Path, forgets: str) -> None:
    """The same rules fail where files, or the names in folders, are not synced."""
    with pytest.raises((AssertionError, CorruptCheckpointError, ExceptionGroup)):
        _run_machine(tmp_path, [Phase.generate], forgets)


def test_control_without_fences_owners_overwrite_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where every owner has the same one."""

    async def same(store: Any, shard: Shard) -> int:
        await store.create(shard, fence_name(1))
        return 1

    monkeypatch.setattr("detector.checkpoint.restore.claim", same)
    with pytest.raises((AssertionError, CheckpointError, ExceptionGroup)):
        _run_machine(tmp_path, [Phase.generate], without=["wait", "tear_a_write", "follow", "lose_power"])


def test_control_garbage_that_ignores_the_history_takes_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copies would stand there without what they name."""

    def blind(names: Any, kept: Sequence[Manifest], history: Any) -> list[str]:
        return [name for name in garbage(names, kept) if not name.startswith("history")]

    monkeypatch.setattr(protocol, "garbage", blind)
    with pytest.raises((AssertionError, CheckpointError, ExceptionGroup)):
        _run_machine(tmp_path, [Phase.generate])


def test_control_garbage_that_ignores_cold_rows_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for rows of streams that left memory."""

    def blind(names: Any, kept: Sequence[Manifest], history: Any) -> list[str]:
        return garbage(names, kept, history) + [name for name in names if name.startswith("cold")]

    monkeypatch.setattr(protocol, "garbage", blind)
    with pytest.raises((AssertionError, CheckpointError, ExceptionGroup)):
        _run_machine(tmp_path, [Phase.generate])
