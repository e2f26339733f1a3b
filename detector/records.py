"""The values that travel through the daemon, in the order in which they come to be.

    Records  what a source hands over: one poll of one shard, columnar
    Samples  what `decode` made of them
    Reject   what was refused, and why
    Scores   what the engine says of every accepted sample
    Alert    what the world is told about an anomaly
    Outcome  all that came of one poll

Axes: n records or samples, B rows of a wave, C channels, S state floats, K clock features.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Float32: TypeAlias = NDArray[np.float32]
Float64: TypeAlias = NDArray[np.float64]
Int64: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = NDArray[np.uint8]

NO_TIME = np.iinfo(np.int64).min
"""Stands for "this edge knows no time" in `append_ns`, and for "never" in decide's columns."""

Header: TypeAlias = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Shard:
    """One input partition, or one file: the unit of ownership, state, checkpoint and hand-over.

    For Kafka: the cluster's id, the topic, the partition. For a file: `file:<source name>`, its path, 0.
    """

    cluster: str
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


@dataclass(slots=True)
class Records:
    """One poll of one shard, as parallel columns in position order."""

    shard: Shard
    values: list[bytes | None]
    keys: list[bytes | None]
    positions: Int64
    """(n,) Kafka's offset; for a file generation << 40 | byte offset (Parquet: row). Rises strictly, may skip."""
    append_ns: Int64
    """(n,) the record's own timestamp, Unix nanoseconds, or NO_TIME."""
    next_position: int
    """The first position that is not yet in here: where to go on after this batch."""
    headers_of: Callable[[int], Sequence[Header]] = lambda _: ()
    """Headers of record i; asked only when it becomes a dead letter."""

    def __len__(self) -> int:
        return len(self.values)


def no_records(shard: Shard, next_position: int) -> Records:
    """A poll that brought nothing."""
    nothing = np.empty(0, np.int64)
    return Records(shard, [], [], nothing, nothing, next_position)


class Reason(enum.Enum):
    """Why a record or sample was refused: the label of the counter, and whether it goes to the dead letters.

    What is broken goes there with its original bytes. What is whole but not wanted (late, duplicate, an unwanted
    stream) is counted only: replaying it would not change anything.
    """

    EMPTY = ("empty", True, "the record has no value (a tombstone)")
    NOT_UTF8 = ("not_utf8", True, "the value is not UTF-8 text")
    MALFORMED = ("malformed", True, "the value is not the declared format, or is cut off")
    TOO_LARGE = ("too_large", True, "the value is longer than max_record_bytes")
    MISSING_FIELD = ("missing_field", True, "a declared field is absent")
    BAD_TYPE = ("bad_type", True, "a field has another type than declared")
    BAD_TIME = ("bad_time", True, "the time cannot be read, or lies outside 1970 to 2262")
    NOT_FINITE = ("not_finite", True, "a value is NaN, Infinity or beyond float64, such as 1e999")
    FUTURE = ("future", True, "the event time lies further than future_s after the record's own timestamp")
    NOTHING_OBSERVED = ("nothing_observed", False, "every channel is missing")
    UNKNOWN_CHANNEL = ("unknown_channel", True, "a channel is not among the stream's, and unknown_channels is reject")
    UNWANTED = ("unwanted", False, "no detector's match wants the stream")
    TOO_MANY_STREAMS = ("too_many_streams", True, "max_streams and max_cold_streams are reached, and the stream is new")
    LATE = ("late", False, "older than the stream's last sample")
    DUPLICATE = ("duplicate", False, "the same time as the stream's last sample")

    def __init__(self, label: str, is_dead_letter: bool, meaning: str) -> None:
        self.label, self.is_dead_letter, self.meaning = label, is_dead_letter, meaning


@dataclass(frozen=True, slots=True)
class Reject:
    """A record or sample refused."""

    index: int
    """Which record of the batch."""
    position: int
    reason: Reason
    detail: str = ""


@dataclass(slots=True)
class Samples:
    """Decoded samples of one shard, columnar, in position order.

    Channels are ragged: samples with the same channel names share a shape, and nearly always there is one.
    """

    shard: Shard
    index: Int64
    """(n,) which record of the batch each sample came from."""
    streams: list[str]
    event_ns: Int64
    append_ns: Int64
    positions: Int64
    shapes: list[tuple[str, ...]]
    """The distinct tuples of channel names in this batch."""
    shape_of: NDArray[np.intp]
    """(n,) index into `shapes`."""
    cells: list[Float64]
    """One array per shape, (samples of that shape, channels of it), raw units, NaN where missing; in order."""
    labels: list[dict[str, str] | None] | None = None
    """(n,) or None where no record carries any."""
    channel_of: NDArray[np.intp] | None = None
    """Narrow records only: (n,) which channel each one's value is of. Then the one shape names the channels of the
    batch, and its cells are (n, 1)."""

    def __len__(self) -> int:
        return len(self.streams)

    def take(self, keep: NDArray[np.intp]) -> Samples:
        """The samples at the rising indexes `keep`."""
        at = keep.tolist()
        shape_of = self.shape_of[keep]
        within = np.empty(len(self), np.intp)  # which row of its shape's cells each sample is
        for shape in range(len(self.shapes)):
            of_shape = self.shape_of == shape
            within[of_shape] = np.arange(np.count_nonzero(of_shape))
        return Samples(
            shard=self.shard,
            index=self.index[keep],
            streams=[self.streams[i] for i in at],
            event_ns=self.event_ns[keep],
            append_ns=self.append_ns[keep],
            positions=self.positions[keep],
            shapes=self.shapes,
            shape_of=shape_of,
            cells=[cells[within[keep[shape_of == shape]]] for shape, cells in enumerate(self.cells)],
            labels=None if self.labels is None else [self.labels[i] for i in at],
            channel_of=None if self.channel_of is None else self.channel_of[keep],
        )


@dataclass(slots=True)
class Scores:
    """What the engine says of the accepted samples of one arena, in record order; n rows."""

    detector: str
    channels: tuple[str, ...]
    index: Int64
    """(n,) which record of the batch."""
    streams: list[str]
    event_ns: Int64
    positions: Int64
    score: Float32
    """(n,) nines; 0 while warming up."""
    threshold: Float32
    """(n,) nines, in force for that sample."""
    anomaly: Bytes
    """(n,) 1 from the firing to the closing sample of an anomaly."""
    expected: Float64 | None = None
    """(n, C) raw units; the four details are None unless asked for."""
    lower: Float64 | None = None
    upper: Float64 | None = None
    blame: Float32 | None = None
    watched_s: float = 0.0
    """Sum of the samples' elapsed, in event time: what realised alarms are counted against."""

    def __len__(self) -> int:
        return len(self.streams)


Rfc3339: TypeAlias = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""A time as text, in UTC."""


class ChannelReading(msgspec.Struct, frozen=True, kw_only=True):
    """One channel of the sample that an alert speaks of."""

    channel: str
    observed: float | None
    """Raw units; null where the channel was missing."""
    expected: float
    lower: float
    upper: float
    blame: float
    """Share of the score owed to this channel; all of them sum to 1."""


class SourcePosition(msgspec.Struct, frozen=True, kw_only=True):
    """The record that an alert came from."""

    cluster: str
    topic: str
    partition: int
    offset: int


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What the world is told about an anomaly. Holds no wall time; the same records give the same bytes."""

    version: Literal[1] = 1
    id: str
    """Hash of (anomaly_id, sequence), for silent with the offset of the last sample: equal ids are copies."""
    anomaly_id: str
    """Hash of (cluster, topic, partition, offset of the firing sample, stream, detector)."""
    sequence: int
    """0 for open, then 1, 2, ... within the anomaly; silent repeats the number of the message before it."""
    event: Literal["open", "update", "close", "silent"]
    status: Literal["firing", "resolved"]
    reason: Literal["threshold", "peak", "blame", "interval", "recovered", "adapted", "silent", "gap"]
    """Why this message was sent."""
    stream: str
    labels: dict[str, str]
    detector: str
    bundle: str
    """`name@version` of the bundle that scored it."""
    time: Rfc3339
    """Event time of the sample that this message speaks of. RFC 3339, UTC, as all times here."""
    started_at: Rfc3339
    """Estimated start of the anomaly."""
    detected_at: Rfc3339
    """Event time of the sample that fired."""
    ended_at: Rfc3339 | None
    """Event time of the anomaly's last sample; only with close and silent."""
    score: float
    """Nines, of this sample."""
    peak_score: float
    """Nines, the highest so far."""
    threshold: float
    """Nines, in force when it fired."""
    channels: list[ChannelReading]
    """Of the sample that this message speaks of; empty with silent, which has none."""
    source: SourcePosition


@dataclass(slots=True)
class Outcome:
    """All that came of one poll of one shard."""

    shard: Shard
    next_position: int
    scores: list[Scores] = field(default_factory=list)
    """One entry per arena that the batch touched."""
    alerts: list[Alert] = field(default_factory=list)
    """In the order in which they are to be delivered."""
    rejects: list[Reject] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    """Streams that were seen for the first time."""
    counts: dict[str, int] = field(default_factory=dict)
    """What telemetry is told: records, samples, waves, streams_created, gaps, unknown_channels, ..."""
    stage_s: dict[str, float] = field(default_factory=dict)
    """Seconds spent per stage, keyed by the stage's name."""
    wave_rows: list[int] = field(default_factory=list)
    """Rows of each wave, in order."""
    wave_s: list[float] = field(default_factory=list)
    """Seconds that each wave's model step took."""


@dataclass(slots=True)
class ArenaRows:
    """Rows of one arena on their way to or from a checkpoint; n streams. Opaque to whoever stores them."""

    detector: str
    bundle_sha256: str
    channels: tuple[str, ...]
    streams: list[str]
    labels: list[dict[str, str]]
    arrays: dict[str, NDArray[np.generic]]
    """Each (n, ...): `state` (n, S) float32, `decide` (n,) structured, `band` (n, 2, C) float64, `last_ns` (n,) int64;
    for narrow records also what is joined so far."""
    gone: list[str] = field(default_factory=list)
    """Streams whose rows left since the snapshot before, evicted or forgotten; they go before the rows come."""

    def take(self, at: Sequence[int]) -> ArenaRows:
        """The rows `at`, copied."""
        return ArenaRows(
            self.detector,
            self.bundle_sha256,
            self.channels,
            [self.streams[row] for row in at],
            [self.labels[row] for row in at],
            {name: array.take(np.array(at, np.intp), axis=0) for name, array in self.arrays.items()},
        )


@dataclass(slots=True)
class Snapshot:
    """A consistent copy of what changed in a shard since the snapshot before it."""

    shard: Shard
    next_position: int
    highest_event_ns: int
    """The highest accepted event time of the shard; decides about silence."""
    arenas: list[ArenaRows]
    """Dirty rows only, unless `full`."""
    full: bool = False
    last_position: int = -1
    """Of the last record that went in, -1 before the first; says at which record the next look for silence is due."""
    forgotten_ns: int = NO_TIME
    """Rows last heard before this event time were forgotten, wherever they are."""
