"""A range of one partition, from its words to a verdict.

    1. Range       offsets, from times where times are given, cut at the daemon's last checkpoint
    2. Checkpoint  the last one at or before the range whose rows and whose log are still there
    3. Same        bundle and configuration must be those of that time; other numerics are told of
    4. Replay      with a consumer of no group and an engine of its own
    5. Compare     with every output that can be read back

Reads only: no group is joined, nothing is committed, nothing is written to any topic or store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from detector.checkpoint.base import Store
from detector.checkpoint.edit import read_held
from detector.checkpoint.format import Manifest
from detector.checkpoint.lineage import Identity, check_bundles
from detector.engine import Detector, Engine
from detector.errors import CannotVerifyError, LineageError, SourceError
from detector.kafka.client import describe_cluster, log_bounds, offsets_at, topic_partition
from detector.records import Shard
from detector.settings import KafkaSourceSettings, Settings
from detector.sources.base import Bounds
from detector.verification.compare import Comparison, Difference, Expected
from detector.verification.outputs import Output, read, readable
from detector.verification.ranges import Start, check_same, choose, end_of, passed, starts
from detector.verification.replay import Progress, replay

_WHERE = "verify"


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of a range: an offset, or a time."""

    offset: int | None = None
    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be computed."""

    shard: Shard
    start: int
    end: int
    passed: list[Manifest]
    """The checkpoints from the one that the replay begins with to the one that closed the range."""
    cut_from: int | None
    """The end that was asked for, where the daemon has not made a checkpoint so far yet."""

    @property
    def begin(self) -> Manifest:
        """The checkpoint that the replay begins with."""
        return self.passed[0]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found."""

    plan: Plan
    computed: Expected
    comparisons: list[Comparison]
    unread: list[str] = field(default_factory=list)
    """Outputs that nobody can read back."""
    other_numerics: str | None = None
    """Those of the daemon where they are not ours: compared with a tolerance then."""

    @property
    def differences(self) -> list[Difference]:
        """All of them, by offset."""
        found = [each for comparison in self.comparisons for each in comparison.differences]
        return sorted(found, key=lambda each: each.offset)


async def shard_of(source: KafkaSourceSettings, topic: str, partition: int) -> Shard:
    """The partition's shard.

    Raises:
        CannotVerifyError: It is not there.
    """
    cluster = await describe_cluster(source, _WHERE, SourceError)
    count = cluster.topics.get(topic, 0)
    if not 0 <= partition < count:
        got = "no such topic" if count == 0 else f"partition {partition}"
        expected = f"partitions 0 to {count - 1}" if count else f"topic {topic!r}"
        raise CannotVerifyError(_WHERE, "partition", expected=expected, got=got)
    return Shard(cluster.id, topic, partition)


async def log_of(source: KafkaSourceSettings, shard: Shard) -> Bounds:
    """What of the partition can still be read."""
    partition = topic_partition(shard.topic, shard.partition)
    low, high = (await log_bounds(source, [partition], _WHERE, SourceError))[partition]
    return Bounds(low, high)


async def plan(
    source: KafkaSourceSettings, store: Store, shard: Shard, first: Edge, last: Edge, identity: Identity
) -> Plan:
    """Steps 1 to 3.

    Raises:
        CannotVerifyError: The range cannot be computed, and why.
    """
    # 1. Range.
    bounds = await log_of(source, shard)
    start, asked = await _offsets(source, shard, (first, last), bounds)
    found = await starts(store, shard)
    end = min(asked, end_of(found))
    if start >= end:
        got = f"an empty range, offsets {start} to {asked}" if start >= asked else f"a range that begins at {start}"
        expected = f"records below offset {end_of(found)}, the daemon's last checkpoint"
        raise CannotVerifyError(shard, "range", expected=expected, got=got, hint=_span_told(found, bounds))
    # 2. Checkpoint.
    manifests = passed(found, choose(found, shard, start, bounds), end)
    # 3. Same.
    for manifest in manifests:
        check_same(manifest, identity)
    return Plan(shard, start, end, manifests, asked if asked > end else None)


async def carry_out(
    plan: Plan,
    settings: Settings,
    source: KafkaSourceSettings,
    store: Store,
    detectors: Sequence[Detector],
    identity: Identity,
    *,
    progress: Progress = lambda _: None,
    on_output: Callable[[Output], None] = lambda _: None,
) -> Verdict:
    """Steps 4 and 5.

    Raises:
        CannotVerifyError: There is nothing to compare with, or a daemon has deleted what we were about to read.
    """
    outputs, unread = _outputs(settings)
    # 4. Replay.
    engine = await _restored(plan, settings, source, store, detectors, identity)
    span = plan.start, plan.end
    computed = await replay(engine, source, plan.shard, position=plan.begin.position, span=span, progress=progress)
    # 5. Compare.
    other = next((each for each in plan.passed if each.numerics != identity.numerics), None)
    tolerances = None if other is None else {each.name: each.bundle.tolerance for each in detectors}
    comparisons = []
    for output in outputs:
        on_output(output)
        comparison = Comparison(
            output.kind,
            str(output),
            computed.of(output.kind),
            shard=plan.shard,
            span=span,
            is_complete=output.kind == "alerts" or settings.sinks.scores_mode == "complete",
            tolerances=tolerances,
        )
        async for value, place in read(output, plan.shard, plan.begin, plan.passed[-1]):
            comparison.take(value, place)
        comparison.finish()
        comparisons.append(comparison)
    return Verdict(plan, computed, comparisons, unread, None if other is None else other.numerics)


async def _offsets(
    source: KafkaSourceSettings, shard: Shard, edges: tuple[Edge, Edge], bounds: Bounds
) -> tuple[int, int]:
    """The offsets of [first, last); times are those of the records, and what is later than all of them is the end."""
    times = [edge.time_ms for edge in edges if edge.time_ms is not None]
    partition = topic_partition(shard.topic, shard.partition)
    found = iter(await offsets_at(source, partition, times, _WHERE, SourceError) if times else [])
    start, end = (next(found) if edge.time_ms is not None else edge.offset for edge in edges)
    return bounds.high if start is None else start, bounds.high if end is None else min(end, bounds.high)


def _outputs(settings: Settings) -> tuple[list[Output], list[str]]:
    """What can be read back, and the names of what can't.

    Raises:
        CannotVerifyError: Nothing can.
    """
    sinks = settings.sinks
    every = [("alerts", name, sink) for name, sink in sinks.alerts.items()]
    every += [("scores", name, sink) for name, sink in sinks.scores.items()]
    outputs, unread = [], []
    for kind, name, sink in every:
        output = readable("alerts" if kind == "alerts" else "scores", name, sink)
        if output is None:
            unread.append(f"{kind} sink {name!r} ({sink.type})")
        else:
            outputs.append(output)
    if not outputs:
        raise CannotVerifyError("sinks", "nothing to compare with", expected="a topic or a file of alerts or scores")
    return outputs, unread


async def _restored(
    plan: Plan,
    settings: Settings,
    source: KafkaSourceSettings,
    store: Store,
    detectors: Sequence[Detector],
    identity: Identity,
) -> Engine:
    """An engine with the rows of the checkpoint, evicted ones included: none is ever read back in the middle."""
    bounds = settings.engine
    most = bounds.max_streams + bounds.max_cold_streams
    wants_detail = bool(settings.sinks.scores) and settings.sinks.scores_detail
    roomy = bounds.model_copy(update={"max_streams": most, "max_cold_streams": 0})
    engine = Engine(plan.shard, detectors, source.record, roomy, scores_detail=wants_detail)
    begin = plan.begin
    held = await read_held(store, begin)
    try:
        carry, _ = check_bundles(begin, str(plan.shard), identity)
    except LineageError as error:
        raise CannotVerifyError(plan.shard, "rows of another bundle", got=error) from error
    arenas = [carry(rows) for rows in held.arenas]
    engine.restore(begin.position, begin.highest_event_ns, arenas, begin.last_position, forgotten_ns=begin.forgotten_ns)
    return engine


def _span_told(found: Sequence[Start], bounds: Bounds) -> str:
    able = [each.manifest.position for each in found if each.can_replay(bounds)]
    return f"offsets {able[0]} to {end_of(found)} can be verified" if able else "no range can be verified; see --list"
