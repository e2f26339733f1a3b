"""What is lost, extra, changed, out of order or doubled in what a site's daemons left behind.

Everything is held against the engine over the same records in one piece: alerts to the byte and in order per stream,
scores to the bit, the memory of every stream to the byte, and the chain of manifests through the ledger.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from detector.checkpoint.restore import load
from detector.records import Shard, Snapshot
from detector.sinks.encode import encode_alert
from tests.system.ledger import Proof, prove
from tests.system.site import Golden, Site, shard_of


async def examine(site: Site, golden: dict[Shard, Golden] | None = None) -> Counter[str]:
    """Count the faults by kind; an empty counter is what must come out."""
    golden = golden or site.golden()
    faults = alert_faults(await site.alerts(), golden)
    faults["wrong scores"] += not scores_are(await site.scores(), golden)
    faults["wrong rows"] += await wrong_rows(site, golden)
    return +faults


def lineage(site: Site) -> Proof:
    """The ledger's proof, which must have no faults."""
    return prove(site.ledger, site.ends())


def alert_faults(alerts: Iterable[bytes], golden: dict[Shard, Golden]) -> Counter[str]:
    """Hold alerts against the engine's."""
    faults: Counter[str] = Counter()
    found: defaultdict[Shard, list[bytes]] = defaultdict(list)
    for alert in alerts:
        found[shard_of(alert)].append(alert)
    faults["alerts of nowhere"] += len(found.keys() - golden.keys())
    for shard, each in golden.items():
        wanted = {alert.id: encode_alert(alert) for outcome in each.outcomes for alert in outcome.alerts}
        given: dict[str, bytes] = {}
        for alert in found[shard]:
            faults["changed copies"] += given.setdefault(json.loads(alert)["id"], alert) != alert
        faults["doubled alerts"] += len(found[shard]) - len(given)
        faults["lost alerts"] += len(wanted.keys() - given.keys())
        faults["extra alerts"] += len(given.keys() - wanted.keys())
        faults["changed alerts"] += sum(given[key] != wanted[key] for key in wanted.keys() & given.keys())
        faults["misplaced alerts"] += _per_stream(given.values()) != _per_stream(wanted.values())
    return faults


def copied(alerts: Iterable[bytes]) -> Counter[Shard]:
    """How many alerts of which shard came out again."""
    found = list(alerts)
    return Counter(map(shard_of, found)) - Counter(map(shard_of, set(found)))


def _per_stream(alerts: Iterable[bytes]) -> dict[str, list[str]]:
    """The ids of each stream in order."""
    order: dict[str, list[str]] = {}
    for alert in map(json.loads, alerts):
        order.setdefault(alert["stream"], []).append(alert["id"])
    return order


def scores_are(scores: Iterable[bytes], golden: dict[Shard, Golden]) -> bool:
    """Whether every sample has its score, and each score, however often it came, has the engine's bits."""
    return score_bits(scores) == {
        (shard.topic, stream, event_ns): {bits(score, anomaly)}
        for shard, each in golden.items()
        for outcome in each.outcomes
        for scores in outcome.scores
        for stream, event_ns, score, anomaly in zip(
            scores.streams, scores.event_ns.tolist(), scores.score, scores.anomaly.tolist(), strict=True
        )
    }


def score_bits(scores: Iterable[bytes]) -> dict[tuple[str, str, int], set[bytes]]:
    """Per (topic, stream, time) the bits of every score that came out."""
    found: dict[tuple[str, str, int], set[bytes]] = {}
    for score in map(json.loads, scores):
        where = (score["source"]["topic"], score["stream"], score["time_ns"])
        found.setdefault(where, set()).add(bits(score["score"], score["anomaly"]))
    return found


def bits(score: float, anomaly: int) -> bytes:
    """A score as bytes."""
    return np.float32(score).tobytes() + bytes([anomaly])


async def wrong_rows(site: Site, golden: dict[Shard, Golden]) -> int:
    """How many shards' newest checkpoint holds another memory than the engine's, or stands elsewhere."""
    store, wrong = site.store(), 0
    await store.start()
    try:
        for source, records in site.records():
            loaded = await load(store, records.shard)
            assert loaded is not None, f"{records.shard} has no checkpoint"
            engine, manifest = site.engine(records.shard, source), loaded.manifest
            engine.restore(manifest.position, manifest.highest_event_ns, loaded.arenas, manifest.last_position)
            wrong += _memory(engine.snapshot(full=True)) != _memory(golden[records.shard].memory)
            assert loaded.passed_over == []
    finally:
        await store.stop()
    return wrong


def _memory(snapshot: Snapshot) -> tuple[object, ...]:
    """All of it, as values that can be compared."""
    rows = {
        (arena.detector, arena.channels, stream): (
            arena.labels[at],
            {name: column[at].tobytes() for name, column in arena.arrays.items()},
        )
        for arena in snapshot.arenas
        for at, stream in enumerate(arena.streams)
    }
    return snapshot.next_position, snapshot.last_position, snapshot.highest_event_ns, rows
