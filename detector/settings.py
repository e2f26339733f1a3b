"""The whole configuration: one YAML file, overridden by `TIDEWARDEN_` variables, nothing else.

    TIDEWARDEN_SOURCES__PLANT__BOOTSTRAP_SERVERS=broker:9092 tidewarden run -c kafka.yaml

Sources, detectors and sinks are maps by name, so that a variable can reach into each of them; their order in the file
is kept and a stream goes to the first detector that matches. Unknown keys are refused with the nearest known one.
The docstring under a field is its documentation: the reference in docs/ and `tidewarden schema` are made from it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from detector.settings_checks import SECRETS, Edge, History, ReadableFile, Regex, TimeZone, check_secrets, is_glob
from detector.settings_checks import parse_history as parse_history  # these are part of what this module offers
from detector.settings_checks import parse_ordinal as parse_ordinal
from detector.settings_checks import parse_partitions as parse_partitions
from detector.settings_faults import configuration_error
from detector.settings_input import DELIMITER, PREFIX, read, understood, variables

Seconds: TypeAlias = Annotated[float, Field(ge=0)]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _variables_are_understood(cls, given: object) -> object:
        return understood(given, cls.model_fields)


class RecordSettings(_Section):
    """Which field of a record is what. The defaults read `{"stream": ..., "time": ..., "values": {...}}`."""

    format: Literal["json", "msgpack"] = "json"
    """How a record's value is encoded; msgpack for Kafka only. A MessagePack timestamp is a time in any `time_unit`."""
    stream: str | None = "stream"
    """Field with the stream's key; null takes the record's own key (Kafka) or the file's name."""
    time: str | None = "time"
    """Field with the event time; null takes the record's own timestamp."""
    time_unit: Literal["s", "ms", "us", "ns", "iso8601"] = "s"
    """Unit of a number in the time field since 1970; iso8601 reads text such as 2026-11-21T12:00:00.25Z."""
    values: str | None = "values"
    """Field with the map from channel to number; null reads `channels` from the top level of the record."""
    channels: list[str] | None = None
    """Top-level fields that are channels, where `values` is null."""
    channel: str | None = None
    """Narrow records, one channel's value each: the field with the channel's name. Values of one time are joined into a
    sample; the stream's channels must be declared, by the detector or its bundle."""
    value: str = "value"
    """Narrow records: the field with the number."""
    labels: str | None = "labels"
    """Field with the stream's labels, a map from text to text; may be absent in a record."""
    unknown_channels: Literal["ignore", "reject"] = "ignore"
    """What becomes of a channel that its stream does not have: counted and left out, or the record rejected."""
    future_s: Seconds = 300.0
    """How far an event time may lie after the record's own timestamp."""
    max_record_bytes: Annotated[int, Field(gt=0)] = 1_048_576
    """Longest value that is read; longer ones are dead letters."""

    @model_validator(mode="after")
    def _channels_go_with_flat_records(self) -> RecordSettings:
        if self.channel is not None:
            if self.channels or "values" in self.model_fields_set:
                raise ValueError("expected channel and value (narrow records), or values, or channels; got several")
            return self
        if self.values is None and not self.channels:
            raise ValueError("expected channels, the top-level fields that are channels, as values is null")
        if self.values is not None and self.channels:
            raise ValueError("expected channels only beside values: null; a detector's own channels pick from the map")
        return self


class KafkaClientSettings(_Section):
    """How a broker is reached; shared by Kafka sources and sinks."""

    bootstrap_servers: str = "localhost:9092"
    """Brokers to start from, host:port, separated by commas."""
    client_id: str = "tidewarden"
    """Name by which the broker's own logs and quotas know us."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the connection is secured."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    """How we sign on with SASL."""
    username: str | None = None
    """User for SASL."""
    password: SecretStr | None = None
    """Password for SASL; better from `password_file` or the environment than from the YAML file."""
    password_file: ReadableFile | None = None
    """File that holds the password; one trailing newline is dropped."""
    ca_file: ReadableFile | None = None
    """Certificate authority to trust, PEM."""
    certificate_file: ReadableFile | None = None
    """Own certificate for mutual TLS, PEM."""
    key_file: ReadableFile | None = None
    """Key of the own certificate, PEM."""
    token_command: Annotated[list[str], Field(min_length=1)] | None = None
    """OAUTHBEARER: program and arguments that print a token, or JSON with `access_token` and `expires_in`."""
    client: dict[str, str | int | float | bool] = {}
    """Further properties of the client, as aiokafka names them; what guards our promises cannot be changed."""

    @property
    def has_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.security_protocol.endswith("SSL")

    @property
    def has_sasl(self) -> bool:
        """Whether we sign on."""
        return self.security_protocol.startswith("SASL")

    @model_validator(mode="after")
    def _secrets_fit_together(self) -> KafkaClientSettings:
        given = {name for name in SECRETS if getattr(self, name) is not None}
        check_secrets(given, self.security_protocol, self.sasl_mechanism)
        return self


class KafkaSourceSettings(KafkaClientSettings):
    """Samples from Kafka topics."""

    type: Literal["kafka"]
    topics: list[str] = []
    """Topics to read."""
    pattern: Regex | None = None
    """Regular expression for topics to read, instead of `topics`."""
    group: str = "tidewarden"
    """Consumer group; with `partitions` it only receives our (advisory) committed offsets."""
    partitions: str | None = None
    """Static assignment such as "0-3" or "0,2,5-7"; "ordinal/3" takes every third, beginning with the number at the end
    of the host's name (a StatefulSet of 3); null joins the consumer group."""
    start: Literal["earliest", "latest", "fail"] = "earliest"
    """Where a shard without a checkpoint begins; pinned by a manifest at once."""
    on_data_loss: Literal["fail", "continue"] = "fail"
    """What to do when records after the checkpoint are gone from the log: refuse, or go on from the first that is left
    with every stream of the shard marked with the gap."""
    on_partitions_changed: Literal["fail", "continue"] = "fail"
    """What to do when the topic has another number of partitions than at the checkpoint: refuse, or go on; a stream
    whose key moved to another partition then starts there without memory."""
    poll_records: Annotated[int, Field(ge=1, le=10_000)] = 4000
    """Most records taken in one poll; larger polls are faster, smaller ones sooner (T10)."""
    session_timeout_s: Annotated[float, Field(ge=6)] = 45.0
    """How long the group waits for a lost replica."""
    record: RecordSettings = RecordSettings()
    """How a record is read."""

    @model_validator(mode="after")
    def _topics_or_pattern(self) -> KafkaSourceSettings:
        if bool(self.topics) == (self.pattern is not None):
            raise ValueError("expected either topics or pattern, got " + ("both" if self.topics else "neither"))
        if self.partitions is not None:
            if self.pattern is not None:
                raise ValueError("expected partitions beside topics, got them beside pattern")
            if parse_ordinal(self.partitions) is None:
                parse_partitions(self.partitions)
        return self


class FileSourceSettings(_Section):
    """Samples from files: CSV, JSON Lines, Parquet (extra `files`)."""

    type: Literal["file"]
    paths: Annotated[list[str], Field(min_length=1)]
    """Files or globs; each file is a shard."""
    mode: Literal["replay", "tail"] = "replay"
    """replay ends with the file; tail waits for more and follows rotation."""
    speed: Annotated[float, Field(gt=0)] | None = None
    """Replay at so many times real speed, by event time; null as fast as possible."""
    channels: list[str] | None = None
    """CSV and Parquet: the columns that are channels; null takes every numeric column left."""
    start: Literal["earliest", "latest", "fail"] = "earliest"
    """Where a shard without a checkpoint begins; pinned by a manifest at once."""
    record: RecordSettings = RecordSettings()
    """How a line is read; for CSV and Parquet `stream` and `time`, and of narrow records `channel` and `value`, name
    columns."""

    @model_validator(mode="after")
    def _lines_are_text(self) -> FileSourceSettings:
        if self.record.format != "json":
            raise ValueError("expected record.format json: a file's records are lines; MessagePack comes from Kafka")
        if self.record.channel is not None and self.channels is not None:
            raise ValueError(
                "expected channels, or record.channel (narrow records), the column that names them; got both"
            )
        return self


class PlantSourceSettings(_Section):
    """The synthetic plant of `tidewarden demo`: pumps with known faults."""

    type: Literal["plant"]
    streams: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Pumps."""
    seed: int = 7
    """The same seed gives the same plant."""
    speed: Annotated[float, Field(gt=0)] | None = 600.0
    """Times real speed; null as fast as possible."""
    hours: Annotated[float, Field(gt=0)] = 12.0
    """How much of the plant's time is replayed."""
    start: Literal["earliest", "latest", "fail"] = "earliest"
    """Where a shard without a checkpoint begins."""
    record: RecordSettings = RecordSettings()
    """How a record is read."""

    @model_validator(mode="after")
    def _records_are_the_plants(self) -> PlantSourceSettings:
        if self.record.format != "json" or self.record.channel is not None:
            raise ValueError("expected record.format json and no record.channel: the plant sends wide JSON")
        return self


SourceSettings: TypeAlias = Annotated[
    KafkaSourceSettings | FileSourceSettings | PlantSourceSettings, Field(discriminator="type")
]


class MatchSettings(_Section):
    """Which streams a detector takes; every condition given must hold."""

    topic: Regex | None = None
    """Regular expression for the whole topic (or path)."""
    stream: Regex | None = None
    """Regular expression for the whole stream key."""
    labels: dict[str, Regex] = {}
    """Label name to regular expression for its whole value."""


class DecideSettings(_Section):
    """How scores become anomalies. Null takes the bundle's own default."""

    budget_per_day: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """False-alarm budget: alarms per stream per day; sets the threshold from the stream's own sample rate."""
    threshold_nines: Annotated[float, Field(gt=0, le=30)] | None = None
    """A fixed threshold instead of the budget."""
    min_samples: Annotated[int, Field(ge=1)] = 1
    """Strange samples in a row before an anomaly fires."""
    hysteresis_nines: Annotated[float, Field(ge=0)] = 1.0
    """How far below the threshold a score must fall to count as low."""
    resolve_samples: Annotated[int, Field(ge=1)] = 3
    """Low samples in a row before an anomaly closes."""
    resolve_after_s: Seconds = 900.0
    """Silence after which an open anomaly is reported as resolved, reason silent."""
    adapt_after_s: Seconds = 14_400.0
    """How long an anomaly stays open whose score is low again but whose values stay outside the band."""
    update_every_s: Seconds = 900.0
    """An open anomaly is updated at least so often, in the stream's own event time."""
    cool_down_s: Seconds = 300.0
    """After a close, so long no new anomaly of the stream fires, in event time."""

    @model_validator(mode="after")
    def _one_threshold(self) -> DecideSettings:
        if self.budget_per_day is not None and self.threshold_nines is not None:
            raise ValueError("expected budget_per_day or threshold_nines, got both")
        return self


class FreezeSettings(_Section):
    """Streams that learn nothing for a while, but are scored all the same.

    It is in force for their samples at or past `from` and before `until`, by the record alone.
    """

    stream: str
    """The stream's key, or a glob such as `pump-*`."""
    topic: str | None = None
    """Only in this topic (or path)."""
    partition: int | None = None
    """Only in this partition; a file has one, 0."""
    begin: Edge = Field(alias="from")
    """An offset such as 123456, or an event time such as 2026-11-21T08:00Z. An offset counts in one shard: it needs
    `topic` and `partition`, or a stream without wildcards."""
    until: Edge | None = None
    """The first that is free again, offset or event time; null for good."""

    @property
    def has_offset(self) -> bool:
        """Whether it goes by offset, on either side."""
        return isinstance(self.begin, int) or isinstance(self.until, int)

    @model_validator(mode="after")
    def _offsets_name_their_shard(self) -> FreezeSettings:
        if self.has_offset and is_glob(self.stream) and (self.topic is None or self.partition is None):
            raise ValueError(
                "expected topic and partition, or a stream without wildcards, beside an offset, for it counts in one "
                f"shard; got stream {self.stream!r}"
            )
        if type(self.begin) is type(self.until) and self.until <= self.begin:  # type: ignore[operator]  # of one type
            raise ValueError(f"expected until after from, got {self.until} after {self.begin}")
        return self


class DetectorSettings(_Section):
    """A bundle, the streams it watches, and how it decides."""

    bundle: str = "default"
    """Path of a bundle, or the name of one in the box, which take any number of channels: `default`, `light`."""
    match: MatchSettings = MatchSettings()
    """Which streams it takes."""
    channels: list[str] | None = None
    """Channels in the bundle's order; null takes the bundle's own names or, for a bundle of any channels, those of a
    stream's first sample."""
    roles: dict[str, Literal["target", "context", "auto"]] = {}
    """Which channels a stream is judged by (target) and which only tell what else goes on (context), such as a command
    or a set point; channels that are not named are auto: the bundle finds out."""
    freeze: list[FreezeSettings] = []
    """Streams whose learning rests, and from when."""
    time_zone: TimeZone = "UTC"
    """Time zone of the plant, for time of day and day of week."""
    decide: DecideSettings = DecideSettings()
    """How scores become anomalies."""


class KafkaSinkSettings(KafkaClientSettings):
    """A Kafka topic: key = stream, partition = input partition modulo the topic's partitions."""

    type: Literal["kafka"]
    topic: str
    """Topic to write to; its cleanup.policy must be delete."""
    linger_ms: Annotated[int, Field(ge=0)] = 2
    """How long a record may wait for others to share a request."""


class FileSinkSettings(_Section):
    """A JSON Lines file."""

    type: Literal["file"]
    path: Path
    """File that lines are appended to; synced to disk before a checkpoint."""


class StdoutSinkSettings(_Section):
    """Standard output, a line each."""

    type: Literal["stdout"]


SinkSettings: TypeAlias = Annotated[
    KafkaSinkSettings | FileSinkSettings | StdoutSinkSettings, Field(discriminator="type")
]


class SinksSettings(_Section):
    """Where results go; each a map from a name to a sink."""

    alerts: dict[Name, SinkSettings] = {}
    """Anomalies as they open, change and close."""
    scores: dict[Name, SinkSettings] = {}
    """Every sample's score."""
    scores_mode: Literal["complete", "sampled"] = "sampled"
    """complete: acknowledged before the checkpoint, one for every accepted sample; sampled: promises nothing."""
    scores_sample_ratio: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Which share of streams' scores is sent when sampled; chosen by a hash of the stream."""
    scores_detail: bool = False
    """Whether scores carry expected, lower, upper and blame per channel."""
    dead_letters: dict[Name, SinkSettings] = {}
    """Broken records with their reason and their original bytes."""


class _CheckpointSettings(_Section):
    every_s: Annotated[float, Field(gt=0)] = 20.0
    """Seconds between checkpoints; what is replayed after a crash."""
    replay_bound_s: Annotated[float, Field(gt=0)] = 200.0
    """Age of the last checkpoint from which a shard is paused: a store that stalls may not make the replay endless."""
    keep_history: History | None = None
    """Checkpoints kept for `tidewarden verify`, such as "1/h for 7d"; null keeps none."""
    linger_s: Seconds = 60.0
    """How long the rows of a shard that the group took away stay in memory, in case it comes straight back."""
    standby: bool = False
    """Follow the checkpoints of shards that other replicas own, to take one over in a moment; takes their memory."""


class DirCheckpointSettings(_CheckpointSettings):
    """A local or shared folder."""

    type: Literal["dir"] = "dir"
    path: Path = Path("state")
    """The folder."""


class KafkaCheckpointSettings(_CheckpointSettings, KafkaClientSettings):
    """A Kafka topic; needs no disk, so that a replica can start anywhere."""

    type: Literal["kafka"]
    topic: str = "tidewarden-state"
    """The topic; created with the right settings where we may, else the command is said. A shard's checkpoints lie in
    the partition with its number modulo the partitions that the topic had in the beginning."""
    replication_factor: Annotated[int, Field(ge=1)] | None = None
    """Of the topic when we create it; null takes the broker's default."""


class ObjectCheckpointSettings(_CheckpointSettings):
    """Object storage: S3, Google Cloud Storage, Azure (extra `objects`)."""

    type: Literal["object"]
    url: str
    """Bucket and prefix, such as s3://bucket/tidewarden, gs://bucket/prefix, az://container/prefix."""
    options: dict[str, str] = {}
    """Options of the storage's client as obstore names them, such as endpoint, region, allow_http; credentials come
    from the environment."""


def _dir_unless_said(given: object) -> object:
    return {"type": "dir"} | given if isinstance(given, dict) else given


CheckpointSettings: TypeAlias = Annotated[
    DirCheckpointSettings | KafkaCheckpointSettings | ObjectCheckpointSettings,
    Field(discriminator="type"),
    BeforeValidator(_dir_unless_said),
]


class EngineSettings(_Section):
    """The hot path."""

    wave_rows: Annotated[int, Field(ge=1, le=65_536)] = 1024
    """Most streams in one model call."""
    max_streams: Annotated[int, Field(ge=1)] = 1_000_000
    """Most streams of a shard in memory; at a checkpoint the least recently seen beyond it move to the store, and come
    back with their next sample as if they had never left."""
    max_cold_streams: Annotated[int, Field(ge=0)] = 10_000_000
    """Most streams of a shard in the store besides; a new stream beyond both is rejected."""
    forget_after_s: Annotated[float, Field(gt=0)] | None = None
    """A stream not heard for so long, against the shard's highest event time, loses its memory; null never. Looked for
    every 65,536 positions; must be longer than every detector's `resolve_after_s`."""


class HttpSettings(_Section):
    """Metrics, health and the status page."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 in a container."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 9464
    """Port; 0 takes a free one."""


class LogSettings(_Section):
    """What is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is written."""
    format: Literal["auto", "console", "json"] = "auto"
    """auto: console on a terminal, else JSON."""


class Settings(BaseSettings):
    """Everything `tidewarden run` does."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        extra="forbid",
        use_attribute_docstrings=True,
        frozen=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Hear the caller alone: the environment speaks through `load`, so that it can't sway a test."""
        return (init_settings,)

    sources: Annotated[dict[Name, SourceSettings], Field(min_length=1)]
    """Where samples come from."""
    detectors: Annotated[dict[Name, DetectorSettings], Field(min_length=1)] = {"default": DetectorSettings()}
    """What watches them; a stream goes to the first that matches."""
    sinks: SinksSettings = SinksSettings()
    """Where results go."""
    checkpoint: CheckpointSettings = DirCheckpointSettings()
    """Where memory is kept."""
    engine: EngineSettings = EngineSettings()
    """Bounds of the hot path."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes a GPU where onnxruntime-gpu finds one. A device that is asked for and missing
    is an error."""
    http: HttpSettings = HttpSettings()
    """Metrics, health, status."""
    log: LogSettings = LogSettings()
    """Logging."""

    @model_validator(mode="after")
    def _silent_before_forgotten(self) -> Settings:
        forget_s = self.engine.forget_after_s
        for name, detector in self.detectors.items():
            if forget_s is not None and forget_s <= detector.decide.resolve_after_s:
                raise ValueError(
                    f"expected engine.forget_after_s above detectors.{name}.decide.resolve_after_s "
                    f"({detector.decide.resolve_after_s:g}), for an anomaly's silence is told before its stream is "
                    f"forgotten; got {forget_s:g}"
                )
        return self


def load(path: Path | str | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the configuration: defaults, below the file, below the environment, below `overrides` (nested maps).

    Relative paths in it are relative to the working directory.

    Args:
        path: The YAML file; None for the environment alone.
        overrides: What the command line says.

    Raises:
        ConfigurationError: Something is wrong; the message tells all of it.
    """
    document = read(None if path is None else Path(path))
    environment = variables(os.environ, document, frozenset(Settings.model_fields))
    layers = (dict(overrides or {}), environment, document.content)

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: object, **__: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, layer) for layer in layers)

    try:
        return Settings.model_construct(**dict(Layered()))
    except ValidationError as error:
        raise configuration_error(error.errors(), Settings.model_json_schema(), document) from None
