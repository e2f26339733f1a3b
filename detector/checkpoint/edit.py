"""Streams' memory as something that can be taken out, put in and copied: pure functions over rows, and one writer.

What is put in takes the place of what a stream had, whole: one arena, one row. A copy under another name or in another
shard starts without an open anomaly, for that has an identity of its own, made of the shard, the stream and the offset
that fired it, and two may not speak for one; all else is carried over bit for bit, so that the same samples then give
the same scores. Evicted rows count like the others; a row that is put in goes to the warm ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.checkpoint.base import Store, segment_name
from detector.checkpoint.format import Manifest, merge
from detector.checkpoint.lineage import Identity, check_bundles, with_rows, with_running
from detector.checkpoint.protocol import created, write_manifest
from detector.checkpoint.restore import claim, load
from detector.checkpoint.segments import read_segments, write_segment
from detector.clock import Clock
from detector.errors import CheckpointError, InputError
from detector.records import ArenaRows
from detector.stages.decide import new_rows, open_slots
from detector.state.cold import heard_ns

# What decide knows of a stream's own rate.
_LEARNED = ("elapsed_mean_s", "elapsed_count", "exceedances", "clusters", "correction", "alarms")


@dataclass(frozen=True, slots=True)
class Held:
    """All rows of a checkpoint, each stream once."""

    manifest: Manifest
    warm: list[ArenaRows]
    cold: list[ArenaRows]
    """Evicted ones that no warm row replaces."""

    @property
    def arenas(self) -> list[ArenaRows]:
        """Both."""
        return merge([*self.warm, *self.cold])

    @property
    def streams(self) -> list[str]:
        """All that have memory."""
        return names(self.warm) + names(self.cold)


async def read_held(store: Store, manifest: Manifest) -> Held:
    """Read every row that a manifest names.

    Raises:
        CorruptCheckpointError: A segment is damaged, or the daemon has deleted it meanwhile.
    """
    warm = merge(await read_segments(store, manifest.shard, manifest.segments))
    cold = merge(await read_segments(store, manifest.shard, manifest.cold))
    replaced = set(names(warm))
    cold = [_rows(each, heard_ns(each) >= manifest.forgotten_ns) for each in cold]
    return Held(manifest, warm, pick(cold, lambda stream: stream not in replaced))


def names(arenas: Iterable[ArenaRows]) -> list[str]:
    """The streams of these rows."""
    return [stream for rows in arenas for stream in rows.streams]


def pick(arenas: Iterable[ArenaRows], wanted: Callable[[str], bool]) -> list[ArenaRows]:
    """The rows of those streams that are wanted."""
    picked = [_rows(rows, np.array([wanted(stream) for stream in rows.streams], bool)) for rows in arenas]
    return [rows for rows in picked if rows.streams]


def put(held: Held, rows: Sequence[ArenaRows], *, replaces: bool, where: object) -> list[ArenaRows]:
    """The warm rows once `rows` have been put in.

    Raises:
        InputError: A stream has memory already, and nobody said to replace it.
    """
    coming = set(names(rows))
    existing = sorted(coming.intersection(held.streams))
    if existing and not replaces:
        got = f"{len(existing)} that have: {', '.join(existing[:5])}{', ...' if len(existing) > 5 else ''}"
        raise InputError(where, "streams", expected="without memory", got=got, hint="--replace puts it aside")
    return merge([*pick(held.warm, lambda stream: stream not in coming), *rows])


def renamed(rows: ArenaRows, stream: str) -> ArenaRows:
    """One stream's row under another name, without its open anomaly."""
    return replace(at_rest(rows), streams=[stream])


def at_rest(rows: ArenaRows) -> ArenaRows:
    """The same rows; where an anomaly is open, what decide keeps of it is forgotten, and what it learned stays."""
    decide: NDArray[np.void] = rows.arrays["decide"].copy()  # type: ignore[assignment]  # it is structured
    band = rows.arrays["band"].copy()
    is_open = open_slots(decide)
    learned = {name: decide[name][is_open] for name in _LEARNED}
    decide[is_open] = new_rows(len(is_open), None)
    for name, column in learned.items():
        decide[name][is_open] = column
    band[is_open] = 0.0
    return replace(rows, arrays={**rows.arrays, "decide": decide, "band": band})


async def rewrite(
    store: Store, manifest: Manifest, change: Callable[[Held], list[ArenaRows]], identity: Identity, clock: Clock
) -> Manifest:
    """Make a new checkpoint of a shard in which `change` was done to its rows; whoever owns it is fenced.

    One manifest is the commit point, so that a change is there whole or not at all.

    Args:
        store: Where it lies.
        manifest: What the shard starts from where it has no checkpoint yet.
        change: Given all rows, gives the warm ones to be; it is tried before the shard is claimed.
        identity: The bundles that run; rows of others are taken over as at a restore.
        clock: For the manifest's `created`.

    Raises:
        InputError: `change` refuses; nothing was touched.
        LineageError: Rows that are there are of another bundle and can't be taken over; nothing was touched.
        CheckpointError: The store failed, or the shard was claimed by somebody else meanwhile.
    """
    change(await newest(store, manifest, identity))
    fence = await claim(store, manifest.shard)
    held = await newest(store, manifest, identity)  # again: its owner may have gone on until our claim
    rows, epoch = change(held), held.manifest.epoch + 1
    segment = await write_segment(store, manifest.shard, segment_name(fence, epoch), rows)
    changed = msgspec.structs.replace(
        with_rows(held.manifest, rows, identity, full=True),
        fence=fence,
        epoch=epoch,
        segments=[segment],
        created=created(clock),
    )
    await write_manifest(store, changed)
    return changed


async def newest(store: Store, manifest: Manifest, identity: Identity) -> Held:
    """The rows of the newest checkpoint as the bundles that run take them; none where there is no checkpoint.

    Raises:
        LineageError: They can't be taken over.
        CheckpointError: The newest checkpoint is damaged: to build on the one before would lose what it knew.
    """
    loaded = await load(store, manifest.shard)
    if loaded is None:
        return Held(with_running(manifest, identity), [], [])
    where = store.where(manifest.shard)
    if loaded.passed_over:
        raise CheckpointError(
            where,
            "the newest checkpoint is damaged",
            expected="a whole one to change",
            got=loaded.passed_over[0],
            hint="start the daemon: it goes on from the one before and writes a new one",
        )
    carry, _ = check_bundles(loaded.manifest, where, identity)
    held = await read_held(store, loaded.manifest)
    warm, cold = [carry(rows) for rows in held.warm], [carry(rows) for rows in held.cold]
    return Held(with_running(held.manifest, identity), merge(warm), merge(cold))


def _rows(rows: ArenaRows, keep: NDArray[np.bool_]) -> ArenaRows:
    return rows if keep.all() else rows.take(np.flatnonzero(keep).tolist())
