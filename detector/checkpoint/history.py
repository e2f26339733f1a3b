"""Which checkpoints stay for `tidewarden verify`, by a policy such as "1/h for 7d".

When the newest copy is older than the interval, the next checkpoint writes a base and a copy of its manifest; a copy
older than the whole span goes, and with it what it alone named. Age is `Manifest.created` against the wall clock: the
policy depends on time, no result does. What former owners kept counts like our own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import datetime

from detector.checkpoint.base import Store, history_name
from detector.checkpoint.format import Manifest, decode_manifest
from detector.errors import CorruptCheckpointError
from detector.records import Shard
from detector.settings import Keep


def is_due(keep: Keep | None, kept: Iterable[Manifest], now_ns: int) -> bool:
    """Whether the next checkpoint is to be kept: none of `kept` is younger than the interval.

    One from the future counts by its distance too: a clock that was set back may not stop the history.
    """
    return keep is not None and all(abs(_age_s(each, now_ns)) >= keep.every_s for each in kept)


def within(keep: Keep | None, kept: Iterable[Manifest], now_ns: int) -> list[Manifest]:
    """Those that the policy still keeps, oldest first."""
    if keep is None:
        return []
    return sorted((each for each in kept if _age_s(each, now_ns) < keep.for_s), key=lambda each: each.position)


def copies(names: Iterable[str]) -> list[str]:
    """Names of history, oldest first; those of a write that was never finished are none."""
    return sorted(name for name in names if name.startswith("history-") and name.endswith(".json"))


class History:
    """What one shard keeps: the manifests are read once and remembered."""

    def __init__(self, keep: Keep | None) -> None:
        self._keep = keep
        self._kept: dict[str, Manifest] = {}
        self._is_known = False

    def is_due(self, now_ns: int) -> bool:
        """Whether the next checkpoint is to be kept; not before `glance` or `learn` have told what there is."""
        return self._is_known and is_due(self._keep, self._kept.values(), now_ns)

    async def glance(self, store: Store, shard: Shard) -> None:
        """Read the newest copy, which is all that the first `is_due` needs; the shard waits meanwhile.

        Raises:
            CheckpointError: The store failed; nothing is due until it works again.
        """
        if self._keep is None or self._is_known:
            return
        for name in copies(await store.names(shard))[-1:]:
            await self._read(store, shard, name)
        self._is_known = True

    def add(self, manifest: Manifest) -> None:
        """A copy of this manifest is durable."""
        self._kept[history_name(manifest.fence, manifest.epoch)] = manifest

    async def learn(self, store: Store, shard: Shard, names: Iterable[str]) -> None:
        """Read what is not known yet. A damaged copy is of no use to anybody, and is left to be garbage.

        Raises:
            CheckpointError: One cannot be read now; then nobody can say what it needs, and nothing may be deleted.
        """
        there = copies(names)
        for name in there:
            if name not in self._kept and self._keep is not None:
                await self._read(store, shard, name)
        self._kept = {name: self._kept[name] for name in there if name in self._kept}
        self._is_known = True

    async def _read(self, store: Store, shard: Shard, name: str) -> None:
        data = await store.read(shard, name)
        with contextlib.suppress(CorruptCheckpointError):
            self._kept[name] = decode_manifest(data, f"{shard}/{name}")

    def within(self, now_ns: int) -> list[Manifest]:
        """What garbage must leave alone."""
        return within(self._keep, self._kept.values(), now_ns)


def _age_s(manifest: Manifest, now_ns: int) -> float:
    return now_ns / 1e9 - datetime.fromisoformat(manifest.created).timestamp()
