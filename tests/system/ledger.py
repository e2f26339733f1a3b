"""Who owned which shard when, and what it did to it: kept by the daemons of a test, proved when all is over.

Each process appends an event, the moment it happens, to a file of its own; a SIGKILL loses none of them. From all files
together `prove` shows that every offset was applied once per lineage: a shard's memory is a chain of manifests from a
cold start to the end, each owner begins where a manifest ended, no older one than was durable when it claimed, and
within an ownership the engine was given every record once, in order. No owner that could know of a later one writes on.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from detector import app
from detector.checkpoint import stores
from detector.checkpoint.base import Store
from detector.checkpoint.format import decode_manifest
from detector.engine import Engine
from detector.records import Outcome, Records, Shard
from detector.telemetry import Telemetry

_A_MOMENT_S = 3.0  # on a busy machine; polls with records come ten times as often


def keep(folder: Path) -> None:
    """A tamper: the daemon keeps a ledger in `folder`, unknowing."""
    file = os.open(folder / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(shard: Shard, what: str, **more: Any) -> None:
        event = {"at_s": time.monotonic(), "what": what, "shard": [shard.cluster, shard.topic, shard.partition]}
        os.write(file, json.dumps(event | more).encode() + b"\n")

    _watch_advance(note)
    _watch_fenced(note)
    wrap_store(partial(_Watched, note))


def wrap_store(wrap: Any) -> None:
    """Let the daemon have `wrap(store)` where it makes its store."""
    make = app.make_store
    app.make_store = stores.make_store = lambda settings: wrap(make(settings))


class _Watched:
    """A store that notes claims, manifests, and who could have seen which claim."""

    def __init__(self, note: Any, store: Store) -> None:
        self._note, self._store = note, store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def create(self, shard: Shard, name: str) -> bool:
        created = await self._store.create(shard, name)
        if created and name.startswith("fence-"):
            self._note(shard, "claim", fence=int(name.removeprefix("fence-")))
        return created

    async def names(self, shard: Shard) -> list[str]:
        self._note(shard, "look")
        return await self._store.names(shard)

    async def write(self, shard: Shard, name: str, blocks: Sequence[bytes]) -> None:
        if not name.startswith("manifest-"):
            await self._store.write(shard, name, blocks)
            return
        manifest = decode_manifest(b"".join(blocks), name)
        terms = {"fence": manifest.fence, "epoch": manifest.epoch, "position": manifest.position}
        terms["segments"] = [segment.name for segment in manifest.segments]
        self._note(shard, "writing", **terms)
        await self._store.write(shard, name, blocks)
        self._note(shard, "written", **terms)


def _watch_advance(note: Any) -> None:
    plain = Engine.advance

    def advance(self: Engine, records: Records) -> Outcome:
        first = int(records.positions[0]) if len(records.positions) else records.next_position
        note(self.shard, "advance", first=first, next=records.next_position)
        return plain(self, records)

    Engine.advance = advance  # type: ignore[method-assign]  # from outside


def _watch_fenced(note: Any) -> None:
    plain = Telemetry.fenced

    def fenced(self: Telemetry, source: str, shard: Shard) -> None:
        note(shard, "fenced")
        plain(self, source, shard)

    Telemetry.fenced = fenced  # type: ignore[method-assign]  # from outside


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a process did to a shard."""

    at_s: float
    """On the machine's monotonic clock."""
    pid: int
    shard: Shard
    what: str
    terms: dict[str, Any]

    @property
    def key(self) -> tuple[int, int]:
        """Of a manifest: where it stands among all of its shard."""
        return self.terms["fence"], self.terms["epoch"]

    def says_the_same_as(self, other: Event) -> bool:
        """Of two manifests: whether they stand for the same memory."""
        return all(self.terms[name] == other.terms[name] for name in ("epoch", "position", "segments"))


def read(folder: Path, pid: int | None = None) -> list[Event]:
    """What happened, in order: by one process, or by all."""
    events = [
        _event(int(path.stem), line)
        for path in folder.glob("*.jsonl" if pid is None else f"{pid}.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]
    return sorted(events, key=lambda event: event.at_s)


def _event(pid: int, line: bytes) -> Event:
    terms = json.loads(line)
    return Event(terms.pop("at_s"), pid, Shard(*terms.pop("shard")), terms.pop("what"), terms)


def serving(folder: Path, pid: int) -> set[Shard]:
    """The shards that a process has restored."""
    return {event.shard for event in read(folder, pid) if event.what == "written"}


def is_at_work(folder: Path, pid: int) -> bool:
    """Whether a process has given records to an engine a moment ago."""
    advances = [event.at_s for event in read(folder, pid) if event.what == "advance"]
    return bool(advances) and time.monotonic() - advances[-1] < _A_MOMENT_S


@dataclass
class Proof:
    """What a ledger shows."""

    counts: Counter[str] = field(default_factory=Counter)
    """claims, manifests, cold starts, fenced: what happened, for those who must see that it did."""
    fenced: set[Shard] = field(default_factory=set)
    """Shards of which a former owner was refused."""
    faults: list[str] = field(default_factory=list)
    """What must not be."""


def prove(folder: Path, ends: dict[Shard, int]) -> Proof:
    """Show that every offset of every shard, up to its end, was applied once per lineage."""
    proof, by_shard = Proof(), defaultdict(list)
    for event in read(folder):
        by_shard[event.shard].append(event)
        proof.counts[event.what] += 1
    proof.fenced = {shard for shard, events in by_shard.items() if any(event.what == "fenced" for event in events)}
    for shard, end in ends.items():
        _Lineage(shard, by_shard[shard], proof).check(end)
    return proof


class _Lineage:
    """One shard's chain of manifests."""

    def __init__(self, shard: Shard, events: list[Event], proof: Proof) -> None:
        self._shard, self._events, self._proof = shard, events, proof
        self._claims = {event.terms["fence"]: event for event in events if event.what == "claim"}
        self._writing = [event for event in events if event.what == "writing"]
        self._written = [event for event in events if event.what == "written"]

    def check(self, end: int) -> None:
        for fence in sorted({event.terms["fence"] for event in self._writing}):
            self._check_takeover(fence)
        by_owner = defaultdict(list)
        for event in self._events:
            by_owner[event.pid].append(event)
        for events in by_owner.values():
            self._check_owner(events)
        newest = max(self._written, key=lambda event: event.key, default=None)
        if newest is None or newest.terms["position"] != end:
            self._fault(f"the last manifest does not end at {end}", newest)

    def _check_takeover(self, fence: int) -> None:
        """An owner begins where the newest manifest ended that was durable when it claimed, or a later one."""
        first = next(event for event in self._writing if event.terms["fence"] == fence)
        claim = self._claims.get(fence)
        if claim is None or claim.pid != first.pid:
            self._fault("a manifest under a fence that its process has not claimed", first)
            return
        durable = [event.key for event in self._written if event.at_s < claim.at_s and event.key < first.key]
        parents = [event for event in self._writing if event.key[0] < fence and event.says_the_same_as(first)]
        if not parents:
            self._proof.counts["cold starts"] += 1
            if durable:
                self._fault("a cold start where there was a checkpoint", first)
        elif durable and max(parent.key for parent in parents) < max(durable):
            self._fault(f"passed over manifest {max(durable)}", first)

    def _check_owner(self, events: list[Event]) -> None:
        """A process gives its engine every record once, from its take-over on; its manifests stand between polls."""
        fence, boundaries, position, looked_s = 0, {-1}, None, 0.0
        for event in events:
            if event.what == "writing" and self._is_fenced(event, looked_s):
                self._fault("a manifest of an owner that had seen another one's claim", event)
            if event.what == "look":
                looked_s = event.at_s
            elif event.what == "writing" and event.terms["fence"] != fence:
                fence, position = event.terms["fence"], event.terms["position"]
                boundaries = {position}
            elif event.what == "writing":
                if event.terms["position"] not in boundaries:
                    self._fault("a manifest at a position that no poll ended at", event)
            elif event.what == "advance":
                if event.terms["first"] != position:
                    self._fault(f"records given to the engine, which stood at {position}", event)
                position = event.terms["next"]
                boundaries.add(position)

    def _is_fenced(self, event: Event, looked_s: float) -> bool:
        """Whether a higher claim stood there when this manifest's writer looked for the last time."""
        return any(fence > event.terms["fence"] and claim.at_s < looked_s for fence, claim in self._claims.items())

    def _fault(self, text: str, event: Event | None) -> None:
        self._proof.faults.append(f"{self._shard}: {text}: {event}")
