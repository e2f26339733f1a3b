"""Every metric of the daemon, declared once: name, kind, labels, meaning.

Names follow what Prometheus users expect: base units, `_total` for counters, time stamps rather than ages, labels that
stay few. A stream's name is never a label: it belongs in alerts, logs and `tidewarden state`. `Telemetry` moves
them; docs/metrics.md is made from `Metrics.described`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

_SHARD = ("source", "topic", "partition")
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_STEP_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_ROWS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 65_536)


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as the reference tells it."""

    group: str
    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Metrics:
    """The metrics, as attributes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Else a second series stands beside every counter, which nobody charts.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left out its annotation
        self._registry = registry
        self._group = ""
        self.described: list[Described] = []
        self.of_shards: list[Counter | Gauge] = []
        """Those labelled by shard: their series go when the shard goes."""
        self._declare_life()
        self._declare_shards()
        self._declare_stages()
        self._declare_anomalies()
        self._declare_sinks()
        self._declare_checkpoints()

    def _declare_life(self) -> None:
        self._group = "Life"
        self.build_info = self._gauge("build_info", "What is running; always 1.", "version", "python", "onnxruntime")
        self.bundle_info = self._gauge("bundle_info", "A detector's bundle; always 1.", "detector", "bundle", "sha256")
        self.started = self._gauge("start_timestamp_seconds", "When the daemon started, Unix time.")
        self.ready = self._gauge("ready", "1 while assigned, restored and self-tested, else 0.")
        self.shards = self._gauge("shards", "Shards that are ours now.", "source")
        self.rebuilds = self._counter(
            "client_rebuilds", "Times that all connections were built anew; what failed: source, sink, store.", "what"
        )
        self.fence_losses = self._counter(
            "fence_losses", "Shards let go because another replica had claimed them.", "source"
        )
        self.loop_lag = self._histogram(
            "loop_lag_seconds", "How late the event loop ran a timer; more than 0.1 s is trouble.", _SECONDS
        )

    def _declare_shards(self) -> None:
        self._group = "Shards"
        self.records = self._counter("records", "Records read.", *_SHARD)
        self.next_position = self._gauge("next_position", "First position not yet processed (Kafka: offset).", *_SHARD)
        self.lag = self._gauge("lag_records", "Records written and not yet processed (files: bytes).", *_SHARD)
        self.last_event = self._gauge(
            "last_event_timestamp_seconds",
            "Highest event time processed, Unix time.",
            *_SHARD,
        )
        self.last_append = self._gauge(
            "last_append_timestamp_seconds", "When the last record processed was appended, Unix time.", *_SHARD
        )
        self.last_poll = self._gauge("last_poll_timestamp_seconds", "When records were last processed.", *_SHARD)
        self.streams = self._gauge("streams", "Streams whose memory is in memory.", *_SHARD)
        self.cold_streams = self._gauge("cold_streams", "Streams whose memory is in the checkpoint store.", *_SHARD)
        self.streams_evicted = self._counter(
            "streams_evicted", "Streams whose memory left for the store, being beyond `max_streams`.", *_SHARD
        )
        self.open_anomalies = self._gauge("open_anomalies", "Anomalies that are open.", *_SHARD)
        self.frozen_streams = self._gauge(
            "frozen_streams", "Streams in memory whose last sample taught them nothing, by `freeze`.", *_SHARD
        )
        self.shard_paused = self._gauge(
            "shard_paused", "1 while a shard rests because its checkpoints stall beyond `replay_bound_s`.", *_SHARD
        )

    def _declare_stages(self) -> None:
        self._group = "Stages"
        self.stage_in = self._counter("stage_in", "Items that went into a stage.", "stage")
        self.stage_out = self._counter("stage_out", "Items that came out of a stage.", "stage")
        self.stage_seconds = self._counter("stage_seconds", "Time spent in a stage.", "stage")
        self.rejects = self._counter("rejects", "Records and samples refused, by reason.", "source", "reason")
        self.samples = self._counter("samples", "Samples scored.", "detector")
        self.counts = {
            "streams_created": self._counter("streams_created", "Streams seen for the first time.", "source"),
            "streams_returned": self._counter(
                "streams_returned", "Streams whose memory came back from the store.", "source"
            ),
            "streams_forgotten": self._counter(
                "streams_forgotten", "Streams not heard for `forget_after_s`, whose memory is no more.", "source"
            ),
            "gaps": self._counter("gaps", "Samples that came after a gap of several periods.", "source"),
            "unknown_channels": self._counter(
                "unknown_channels", "Cells left out because their stream does not have the channel.", "source"
            ),
        }
        self.streams_split = self._counter(
            "streams_split",
            "Streams whose narrow records come from two partitions, so that their channels are never joined.",
            "source",
        )
        self.poll_records = self._histogram("poll_records", "Records of one poll of one shard.", _ROWS)
        self.poll_seconds = self._histogram("poll_seconds", "All stages, for one poll of one shard.", _SECONDS)
        self.wave_rows = self._histogram("wave_rows", "Streams in one model call.", _ROWS)
        self.step_seconds = self._histogram("model_step_seconds", "Duration of one model call.", _STEP_SECONDS)
        self.delay = self._histogram(
            "processing_delay_seconds", "From a record's append to its score, for the last one of each poll.", _SECONDS
        )
        self.backpressure = self._counter(
            "backpressure_seconds", "Time without polling because something behind was full."
        )

    def _declare_anomalies(self) -> None:
        self._group = "Anomalies"
        self.alerts = self._counter("alerts", "Alerts that came to be, by event.", "detector", "event")
        self.suppressed = self._counter(
            "alerts_suppressed", "Alerts not sent again after a restart: they stood on the output already.", "topic"
        )
        self.threshold = self._gauge("threshold_nines", "Mean threshold of the samples last scored.", "detector")
        self.alarms = self._counter("alarms", "Anomalies opened.", "detector")
        self.watched = self._counter("watched_seconds", "Event time watched, summed over streams.", "detector")
        self.budget = self._gauge("budget_alarms_per_stream_day", "The promise: alarms per stream and day.", "detector")
        self.realised = self._gauge(
            "realised_alarms_per_stream_day", "What happened since the start: alarms over time watched.", "detector"
        )

    def _declare_sinks(self) -> None:
        self._group = "Sinks"
        self.delivered = self._counter(
            "delivered", "Items that a sink took; acknowledged before the next checkpoint.", "sink", "kind"
        )

    def _declare_checkpoints(self) -> None:
        self._group = "Checkpoints"
        self.checkpoint_at = self._gauge(
            "checkpoint_last_success_timestamp_seconds", "When the last manifest became durable, Unix time.", *_SHARD
        )
        self.checkpoint_rows = self._gauge("checkpoint_rows", "Rows written by the last checkpoint.", *_SHARD)
        self.checkpoint_size = self._gauge("checkpoint_bytes", "Bytes written by the last checkpoint.", *_SHARD)
        self.checkpoint_seconds = self._histogram("checkpoint_seconds", "One checkpoint of one shard.", _SECONDS)
        self.checkpoint_failures = self._counter("checkpoint_failures", "Checkpoints that failed.", *_SHARD)
        self.fallbacks = self._counter(
            "checkpoint_fallbacks", "Restores from an older manifest because a newer one was damaged.", *_SHARD
        )
        self.positions_lost = self._counter(
            "positions_lost", "Positions that were gone from the source before they could be read.", *_SHARD
        )
        self.carried_over = self._counter(
            "streams_carried_over", "Streams whose memory went over to another bundle at a restore.", *_SHARD
        )
        self.memory_lost = self._counter(
            "streams_memory_lost", "Streams whose memory was given up by `run --cold`.", *_SHARD
        )
        self.checkpoint_age = self._gauge(
            "checkpoint_age_seconds", "For how long something was processed that no checkpoint has.", *_SHARD
        )
        self.standby_age = self._gauge(
            "standby_age_seconds", "Time since a standby's copy of a shard was the newest.", "topic", "partition"
        )
        self.restore_seconds = self._histogram("restore_seconds", "One restore of one shard.", _SECONDS)
        self.restored_rows = self._counter("restored_rows", "Streams restored from checkpoints.")
        self.warm_restores = self._counter("warm_restores", "Restores that went on with memory that was kept ready.")
        self.replay = self._counter("replay_records", "Records to catch up with at restores (files: bytes).")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self._describe(f"{name}_total", "counter", labels, meaning)
        counter = Counter(f"tidewarden_{name}", meaning, labels, registry=self._registry)
        if labels == _SHARD:
            self.of_shards.append(counter)
        return counter

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self._describe(name, "gauge", labels, meaning)
        gauge = Gauge(f"tidewarden_{name}", meaning, labels, registry=self._registry)
        if labels == _SHARD:
            self.of_shards.append(gauge)
        return gauge

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        self._describe(name, "histogram", labels, meaning)
        return Histogram(f"tidewarden_{name}", meaning, labels, buckets=buckets, registry=self._registry)

    def _describe(self, name: str, kind: str, labels: tuple[str, ...], meaning: str) -> None:
        self.described.append(Described(self._group, f"tidewarden_{name}", kind, labels, meaning))
