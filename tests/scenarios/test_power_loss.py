"""A loss of power: what was not synced may vanish, file by file and name by name; what a manifest names never does.

The disk here keeps a file's bytes only as of its last fsync, and the names in a folder only as of the folder's; of
what was done since then each change may have reached the disk or not, as a coin decides.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from detector.checkpoint import store_dir
from detector.checkpoint.base import garbage, manifest_name, needs_base, segment_name
from detector.checkpoint.format import Manifest, Segment, encode_manifest, encode_segment, segment_of
from detector.checkpoint.protocol import write_manifest
from detector.checkpoint.restore import claim, load
from detector.checkpoint.store_dir import DirStore
from detector.errors import CorruptCheckpointError, FencedError
from tests.scenarios.world import SHARD, EchoEngine, records, s


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
        for name in {*now, *self._names}:
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


class Owner:
    """A process that owns the shard, with its engine; made of the same parts as the daemon."""

    def __init__(self, fence: int, manifest: Manifest, engine: EchoEngine) -> None:
        self.fence, self.manifest, self.engine = fence, manifest, engine
        self.kept, self.epoch = [manifest], manifest.epoch
        self.segments: list[Segment] = list(manifest.segments)
        self.position = manifest.position
        self.is_written = False


class Protocol(RuleBasedStateMachine):
    """Any order of write, crash, torn write, claim, load: what is loaded is whole, and the newest that is durable."""

    root: Path
    forgets: str | None = None
    """`file` or `folder`: what this disk does not sync although it was told to."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        """An empty disk and nobody."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self.store = DirStore(self.root)
        self.disk = Disk(self.root, random.Random(seed), self.forgets)
        store_dir.os = _OsWith(self.disk)  # type: ignore[assignment]  # put back in teardown
        self.owners: list[Owner] = []
        self.durable: tuple[int, int] = (0, 0)  # fence and position of the newest manifest that was acknowledged
        self.log: list[Any] = []
        self.take_over()

    @rule()
    def take_over(self) -> None:
        """A process claims the shard and loads; the one before may still be running."""
        fence = self._run(claim(self.store, SHARD))
        loaded = self._run(load(self.store, SHARD))
        engine = EchoEngine(SHARD)
        manifest = (
            loaded.manifest
            if loaded
            else Manifest(
                cluster=SHARD.cluster, topic=SHARD.topic, partition=0, epoch=0, fence=0, position=0, highest_event_ns=0
            )
        )
        engine.restore(manifest.position, 0, loaded.arenas if loaded else [])
        self._check(engine)
        manifest = msgspec.structs.replace(manifest, fence=fence)
        self._run(write_manifest(self.store, manifest))
        self.durable = (fence, manifest.position)
        self.owners = [*self.owners[-1:], Owner(fence, manifest, engine)]

    @rule(which=st.integers(0, 1), values=st.lists(st.integers(0, 99), min_size=1, max_size=5))
    def advance(self, which: int, values: list[int]) -> None:
        """Records come and are processed by one of the owners."""
        owner = self.owners[which % len(self.owners)]
        position = owner.engine.position
        self.log += [s(value, f"pump-{value % 3}") for value in values]
        owner.engine.advance(records(self.log[position:], position))

    @rule(which=st.integers(0, 1))
    def write_rows(self, which: int) -> None:
        """Step 3."""
        owner = self.owners[which % len(self.owners)]
        owner.engine.dropped()
        snapshot = owner.engine.snapshot(full=needs_base(owner.manifest.segments, 0, 0))
        owner.epoch += 1
        name = segment_name(owner.fence, owner.epoch)
        blocks = encode_segment(snapshot.arenas)
        segment = segment_of(name, blocks, 1)
        self._run(self.store.write(SHARD, name, blocks))
        owner.segments = [segment] if snapshot.full else [*owner.manifest.segments, segment]
        owner.position, owner.is_written = snapshot.next_position, True

    @precondition(lambda self: any(owner.is_written for owner in self.owners))
    @rule()
    def write_manifest(self) -> None:
        """Steps 4, 5 and 7; refused for a former owner."""
        owner = next(owner for owner in self.owners if owner.is_written)
        owner.is_written = False
        manifest = msgspec.structs.replace(
            owner.manifest, epoch=owner.epoch, position=owner.position, segments=owner.segments
        )
        try:
            self._run(write_manifest(self.store, manifest))
        except FencedError:
            assert owner is not self.owners[-1]
            return
        assert owner is self.owners[-1]
        owner.engine.kept()
        owner.kept, owner.manifest = [manifest, owner.manifest], manifest
        self.durable = (owner.fence, manifest.position)
        names = self._run(self.store.names(SHARD))
        self._run(self.store.delete(SHARD, garbage(names, owner.kept)))

    @rule(name=st.sampled_from(["manifest", "segment"]), share=st.floats(0, 1))
    def tear_a_write(self, name: str, share: float) -> None:
        """A process dies in the middle of writing a file: its beginning stands under the temporary name."""
        owner = self.owners[-1]
        target = (manifest_name if name == "manifest" else segment_name)(owner.fence, owner.epoch + 1)
        content = encode_manifest(owner.manifest)
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

    @invariant()
    def what_is_loaded_is_whole_and_the_newest(self) -> None:
        """At any time."""
        loaded = self._run(load(self.store, SHARD))
        assert loaded is not None
        assert (loaded.manifest.fence, loaded.manifest.position) == self.durable
        assert not loaded.passed_over

    def teardown(self) -> None:
        """Give the real `os` back."""
        store_dir.os = os

    def _check(self, engine: EchoEngine) -> None:
        """Memory is that of exactly the records below the position."""
        assert engine.position == self.durable[1]
        plain = EchoEngine(SHARD)
        plain.advance(records(self.log[: engine.position], 0))
        assert engine.rows == plain.rows

    @staticmethod
    def _run(work: Any) -> Any:
        return asyncio.run(work)


class _OsWith:
    """The module `os` with a disk behind its fsync."""

    def __init__(self, disk: Disk) -> None:
        self.fsync = disk.fsync

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def _run_machine(folder: Path, forgets: str | None, phases: Sequence[Phase]) -> None:
    machine = type("Machine", (Protocol,), {"root": folder / "disk", "forgets": forgets})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_whatever_happens_the_newest_durable_checkpoint_is_loaded(tmp_path: Path) -> None:
    """Over {write, crash, torn write, lost write, claim, load}, with a former owner still running."""
    _run_machine(tmp_path, None, [Phase.generate, Phase.shrink])


@pytest.mark.parametrize("forgets", ["file", "folder"])
def test_control_without_a_sync_checkpoints_are_lost(tmp_path: Path, forgets: str) -> None:
    """The machine has teeth: the same rules fail where files, or the names in folders, are not synced."""
    with pytest.raises((AssertionError, CorruptCheckpointError, ExceptionGroup)):
        _run_machine(tmp_path, forgets, [Phase.generate])
