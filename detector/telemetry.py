"""What the daemon tells the world about itself: one method per event, named noun and past verb.

The parts of the daemon return what happened; the pipeline tells it here, once per poll. Each event moves metrics
(`metrics.py`, read by Prometheus) and `status` (read by people and by the readiness probe).
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from detector import __version__, versions
from detector.clock import Clock, SystemClock
from detector.metrics import Described, Metrics
from detector.records import NO_TIME, Alert, Outcome, Reason, Records, Scores, Shard
from detector.status import BundleStatus, ShardStatus, Status

_STAGES = ("decode", "route", "align", "wave", "infer", "decide")

_REFUSED_BY = {
    Reason.UNWANTED: "route",
    Reason.TOO_MANY_STREAMS: "route",
    Reason.UNKNOWN_CHANNEL: "route",
    Reason.NOTHING_OBSERVED: "align",
    Reason.LATE: "align",
    Reason.DUPLICATE: "align",
}
"""Which stage refuses for which reason; every other is decode's."""

_DAY_S = 86_400.0


class Telemetry:
    """What the pipeline, the sinks and the checkpoints report to; some 50 microseconds a poll, never blocking."""

    def __init__(self, registry: CollectorRegistry | None = None, clock: Clock | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.clock = clock or SystemClock()
        self.status = Status(started_ns=self.clock.now_ns())
        self._metrics = Metrics(self.registry)
        told = (self._metrics.stage_in, self._metrics.stage_out, self._metrics.stage_seconds)
        self._stages = {stage: tuple(metric.labels(stage) for metric in told) for stage in _STAGES}  # looked up once
        self._metrics.build_info.labels(__version__, platform.python_version(), versions.onnxruntime()).set(1)
        self._metrics.started.set(self.clock.now_ns() / 1e9)
        self._metrics.ready.set_function(lambda: float(not self.status.unready()))
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    @property
    def described(self) -> list[Described]:
        """All metrics of our own, for the reference."""
        return self._metrics.described

    # Life ---------------------------------------------------------------------------------------------------------

    def bundle_loaded(
        self,
        detector: str,
        bundle: str,
        sha256: str,
        *,
        channels: Sequence[str] | None = None,
        budget_per_day: float | None = None,
    ) -> None:
        """A detector has its bundle, known as `name@version`; `budget_per_day` is None for a fixed threshold."""
        self._metrics.bundle_info.labels(detector, bundle, sha256[:12]).set(1)
        if budget_per_day is not None:
            self._metrics.budget.labels(detector).set(budget_per_day)
        names = None if channels is None else list(channels)
        self.status.bundles[detector] = BundleStatus(detector, bundle, sha256, names, budget_per_day)

    def awaited(self, sources: Iterable[str]) -> None:
        """These sources are going to say which shards are ours; until then we are not ready."""
        self.status.awaited = set(sources)

    def connected(self) -> None:
        """Sinks, store and sources are there, the pipeline begins."""
        self.status.failure = None

    def rebuilding(self, what: str, failure: str) -> None:
        """A source, sink or store failed: all connections are built anew, and no shard is ours until then."""
        self._metrics.rebuilds.labels(what).inc()
        sources = {shard.source for shard in self.status.shards.values()}
        for source in sources:
            self.released(source, [shard for shard, mine in self.status.shards.items() if mine.source == source])
        self.status.failure = failure

    def self_tested(self) -> None:
        """The model runtime gave the bits that it must give, on this machine."""
        self.status.is_tested = True

    def assigned(self, source: str, gained: Sequence[Shard]) -> None:
        """A source said which shards came; its first word, even an empty one, ends our waiting for it."""
        for shard in gained:
            self.status.shards[shard] = ShardStatus(source, shard.topic, shard.partition)
        self.status.awaited.discard(source)
        self._count_shards(source)

    def released(self, source: str, lost: Sequence[Shard]) -> None:
        """Shards are ours no more."""
        for shard in lost:
            if mine := self.status.shards.pop(shard, None):
                for metric in self._metrics.of_shards:
                    metric.remove(*mine.labels)
        self._count_shards(source)

    def _count_shards(self, source: str) -> None:
        ours = sum(mine.source == source for mine in self.status.shards.values())
        self._metrics.shards.labels(source).set(ours)

    def fenced(self, source: str, shard: Shard) -> None:
        """Another owner has claimed a shard that we took for ours."""
        self._metrics.fence_losses.labels(source).inc()
        if mine := self.status.shards.get(shard):
            mine.is_restored = False

    def rested(self, shard: Shard, why: str | None) -> None:
        """A shard is not read for now, and why; None once it goes on."""
        if mine := self.status.shards.get(shard):
            mine.paused = why
            self._metrics.shard_paused.labels(*mine.labels).set(why is not None)

    def unkept(self, shard: Shard, seconds: float) -> None:
        """For so long there has been something that no checkpoint has; a store that stalls shows here."""
        if mine := self.status.shards.get(shard):
            self._metrics.checkpoint_age.labels(*mine.labels).set(seconds)

    def followed(self, shard: Shard, behind_s: float | None) -> None:
        """Our copy of another replica's shard was the newest one so long ago; None where we keep none any more."""
        labels = (shard.topic, str(shard.partition))
        if behind_s is None:
            self._metrics.standby_age.remove(*labels)
        else:
            self._metrics.standby_age.labels(*labels).set(behind_s)

    def restored(
        self,
        shard: Shard,
        position: int,
        *,
        seconds: float = 0.0,
        rows: int = 0,
        replay: int = 0,
        positions_lost: int = 0,
        carried_over: int = 0,
        memory_lost: int = 0,
        was_warm: bool = False,
    ) -> None:
        """A shard goes on at `position` with `rows` streams of a checkpoint, `replay` positions behind the end.

        On the way `positions_lost` turned out to be gone from the source, the memory of `carried_over` streams went to
        another bundle, and that of `memory_lost` was given up.
        """
        mine = self.status.shards[shard]
        mine.is_restored, mine.next_position, mine.streams = True, position, rows
        self._metrics.next_position.labels(*mine.labels).set(position)
        self._metrics.streams.labels(*mine.labels).set(rows)
        self._metrics.open_anomalies.labels(*mine.labels).set(0)
        self._metrics.frozen_streams.labels(*mine.labels).set(0)
        self._metrics.restore_seconds.observe(seconds)
        self._metrics.restored_rows.inc(rows)
        self._metrics.replay.inc(replay)
        self._metrics.warm_restores.inc(was_warm)
        self._metrics.positions_lost.labels(*mine.labels).inc(positions_lost)
        self._metrics.carried_over.labels(*mine.labels).inc(carried_over)
        self._metrics.memory_lost.labels(*mine.labels).inc(memory_lost)

    def draining(self) -> None:
        """Polling has ended for good; what is in flight is finished."""
        self.status.is_draining = True

    def loop_lagged(self, seconds: float) -> None:
        """The event loop ran a timer so late."""
        self._metrics.loop_lag.observe(seconds)

    # Polls --------------------------------------------------------------------------------------------------------

    def polled(
        self,
        records: Records,
        outcome: Outcome,
        *,
        streams: int | None = None,
        cold_streams: int | None = None,
        open_anomalies: int | None = None,
        frozen_streams: int | None = None,
    ) -> None:
        """One poll of one shard went through the engine, which now holds so many streams and open anomalies."""
        mine = self.status.shards.get(outcome.shard)
        if mine is None:
            return  # it was taken away while a full sink held its outputs up
        mine.next_position = outcome.next_position
        if streams is not None:
            mine.streams = streams
            self._metrics.streams.labels(*mine.labels).set(streams)
        if cold_streams is not None:
            self._metrics.cold_streams.labels(*mine.labels).set(cold_streams)
        if open_anomalies is not None:
            mine.open_anomalies = open_anomalies
            self._metrics.open_anomalies.labels(*mine.labels).set(open_anomalies)
        if frozen_streams is not None:
            self._metrics.frozen_streams.labels(*mine.labels).set(frozen_streams)
        self._count_records(records, mine)
        self._count_stages(len(records), outcome, self._count_rejects(outcome, mine.source))
        self._count_engine(outcome, mine.source)
        for scores in outcome.scores:
            if len(scores):
                self._count_scores(scores, mine)
        for alert in outcome.alerts:
            self._count_alert(alert)

    def _count_records(self, records: Records, mine: ShardStatus) -> None:
        count, now_ns = len(records), self.clock.now_ns()
        mine.records += count
        self.status.records += count
        self.status.record_rate.add(self.clock.monotonic_s(), count)
        self._metrics.records.labels(*mine.labels).inc(count)
        self._metrics.next_position.labels(*mine.labels).set(records.next_position)
        self._metrics.last_poll.labels(*mine.labels).set(now_ns / 1e9)
        self._metrics.poll_records.observe(count)
        if count and (append_ns := int(records.append_ns[-1])) != NO_TIME:
            self._metrics.last_append.labels(*mine.labels).set(append_ns / 1e9)
            self._metrics.delay.observe(max(0, now_ns - append_ns) / 1e9)

    def _count_rejects(self, outcome: Outcome, source: str) -> Counter[str]:
        """Count what was refused; returns how much by which stage."""
        by_stage: Counter[str] = Counter()
        for reason, count in Counter(reject.reason for reject in outcome.rejects).items():
            by_stage[_REFUSED_BY.get(reason, "decode")] += count
            self._metrics.rejects.labels(source, reason.label).inc(count)
            self.status.rejects[reason.label] = self.status.rejects.get(reason.label, 0) + count
        return by_stage

    def _count_stages(self, records: int, outcome: Outcome, refused: Counter[str]) -> None:
        """Into each stage goes what the one before it let through; `align` gives samples and `decide` alerts."""
        items, made = records, {"align": outcome.counts.get("samples", 0), "decide": len(outcome.alerts)}
        for stage, (went_in, came_out, seconds) in self._stages.items():
            went_in.inc(items)
            items = made.get(stage, max(0, items - refused[stage]))
            came_out.inc(items)
            seconds.inc(outcome.stage_s.get(stage, 0.0))
        self._metrics.poll_seconds.observe(sum(outcome.stage_s.values()))

    def _count_engine(self, outcome: Outcome, source: str) -> None:
        for key, counter in self._metrics.counts.items():
            if count := outcome.counts.get(key):
                counter.labels(source).inc(count)
        for rows in outcome.wave_rows:
            self._metrics.wave_rows.observe(rows)
        for seconds in outcome.wave_s:
            self._metrics.step_seconds.observe(seconds)

    def _count_scores(self, scores: Scores, mine: ShardStatus) -> None:
        detector = scores.detector
        self.status.samples += len(scores)
        self._metrics.samples.labels(detector).inc(len(scores))
        self._metrics.threshold.labels(detector).set(float(np.mean(scores.threshold)))
        self._metrics.watched.labels(detector).inc(scores.watched_s)
        mine.last_event_ns = max(mine.last_event_ns, int(scores.event_ns.max()))
        self._metrics.last_event.labels(*mine.labels).set(mine.last_event_ns / 1e9)
        if bundle := self.status.bundles.get(detector):
            bundle.watched_days += scores.watched_s / _DAY_S
            self._metrics.realised.labels(detector).set(bundle.realised_per_day or 0.0)

    def _count_alert(self, alert: Alert) -> None:
        self._metrics.alerts.labels(alert.detector, alert.event).inc()
        if alert.event == "open":
            self._metrics.alarms.labels(alert.detector).inc()
            if bundle := self.status.bundles.get(alert.detector):
                bundle.alarms += 1

    def streams_split(self, shard: Shard, count: int) -> None:
        """So many new streams of a shard have narrow records in another one too."""
        self._metrics.streams_split.labels(self.status.shards[shard].source).inc(count)

    def lagged(self, shard: Shard, lag: int) -> None:
        """So many positions of a shard are written and not yet processed."""
        if mine := self.status.shards.get(shard):
            mine.lag = lag
            self._metrics.lag.labels(*mine.labels).set(lag)

    def paused(self, seconds: float) -> None:
        """Polling rested so long because something behind was full."""
        self._metrics.backpressure.inc(seconds)

    # Sinks --------------------------------------------------------------------------------------------------------

    def alerts_delivered(self, alerts: Sequence[Alert]) -> None:
        """Alerts were handed to the sinks, those not suppressed; the status page shows the latest."""
        self.status.alerts.extend(alerts)

    def suppressed(self, shard: Shard, count: int) -> None:
        """Alerts stood on the output already, from before a restart, and were not sent again."""
        self._metrics.suppressed.labels(shard.topic).inc(count)

    def delivered(self, items: Mapping[tuple[str, str], int]) -> None:
        """Sinks took items, by (sink, kind); kind is alerts, scores or dead_letters."""
        for (sink, kind), count in items.items():
            self._metrics.delivered.labels(sink, kind).inc(count)

    # Checkpoints --------------------------------------------------------------------------------------------------

    def checkpointed(
        self, shard: Shard, *, position: int, seconds: float, rows: int, size_bytes: int, evicted: int = 0
    ) -> None:
        """A manifest is durable that says: everything below `position` is kept."""
        self.status.checkpoints += 1
        self._metrics.checkpoint_seconds.observe(seconds)
        if mine := self.status.shards.get(shard):
            mine.checkpoint_position, mine.checkpoint_ns = position, self.clock.now_ns()
            self._metrics.checkpoint_at.labels(*mine.labels).set(mine.checkpoint_ns / 1e9)
            self._metrics.checkpoint_rows.labels(*mine.labels).set(rows)
            self._metrics.checkpoint_size.labels(*mine.labels).set(size_bytes)
            self._metrics.streams_evicted.labels(*mine.labels).inc(evicted)

    def checkpoint_failed(self, shard: Shard) -> None:
        """A checkpoint could not be made durable; the one before it stands."""
        if mine := self.status.shards.get(shard):
            mine.checkpoint_failures += 1
            self._metrics.checkpoint_failures.labels(*mine.labels).inc()

    def fell_back(self, shard: Shard) -> None:
        """A damaged manifest was passed over for the one before it."""
        if mine := self.status.shards.get(shard):
            self._metrics.fallbacks.labels(*mine.labels).inc()
