"""The daemon as a whole: builds the parts from settings, starts them, runs until the end, drains, stops.

    1. Bundles    read once, a session each, self-tested: what is wrong with them is known before anything starts
    2. HTTP       so that a slow start can be watched
    3. Sinks      and the checkpoint store, before sources: nothing is read that could not be delivered or kept
    4. Sources
    5. Pipeline   until SIGTERM, Ctrl-C, the end of finite sources, or the first failure
    6. Stop       in reverse, each bounded

A failure that may pass, such as a broker that went away, leads from 5 over 6 back to 3: see `supervision`.

SIGTERM and Ctrl-C drain: polling stops, what is in flight is finished, every shard gets a last checkpoint and is
committed. A second signal ends the process at once; so could the power, and nothing would be lost either way.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import msgspec
import structlog

from detector.admin import Server, serve
from detector.bundles import locate
from detector.checkpoint.base import Store
from detector.checkpoint.policies import Policies
from detector.checkpoint.protocol import Identity
from detector.checkpoint.stores import make_store
from detector.clock import Clock, SystemClock
from detector.engine import Detector, Engine, require_channels
from detector.errors import TidewardenError
from detector.model.bundle import Bundle, read_bundle
from detector.model.session import Session
from detector.pipeline import Input, Pipeline
from detector.records import Shard
from detector.settings import (
    DetectorSettings,
    KafkaSourceSettings,
    RecordSettings,
    Settings,
    SinkSettings,
    SourceSettings,
)
from detector.sinks import make_sink
from detector.sinks.base import Sink
from detector.sinks.deliver import Deliveries
from detector.sources import make_source
from detector.sources.base import Source
from detector.supervision import Supervisor
from detector.telemetry import Telemetry

_DRAIN_S = 20.0  # of the 30 s that Kubernetes grants; the rest is for closing connections
_COLLECT = (100_000, 20, 20)  # a poll of 4,000 records makes some 15,000 containers, all freed by their last reference
_LATER = ("roles", "freeze")  # settings of a detector that came after the first hashes
_SELF_TEST_CHANNELS = (1, 5)  # where the bundle takes any number of them

_log = structlog.get_logger(__name__)


class App:
    """One daemon. `run` returns when it has drained, and raises the first failure."""

    def __init__(
        self,
        settings: Settings,
        *,
        telemetry: Telemetry | None = None,
        clock: Clock | None = None,
        cold: bool = False,
    ) -> None:
        self.settings = settings
        self._cold = cold  # shards whose checkpoint cannot be used start without memory
        self.clock = clock or SystemClock()
        self.telemetry = telemetry or Telemetry(clock=self.clock)
        self.server: Server | None = None
        """The HTTP server while it runs."""
        self.pipeline: Pipeline | None = None
        """The pipeline once everything is connected."""
        self._main: asyncio.Task[None] | None = None
        self._deadline: asyncio.Timeout | None = None
        self._is_draining = False

    async def run(self) -> None:
        """Start, serve, drain, stop.

        Raises:
            TidewardenError: What failed first; its `exit_code` is the process's.
        """
        if self._ended_early():
            return
        self._main = asyncio.current_task()
        with contextlib.ExitStack() as handlers:
            for number in (signal.SIGTERM, signal.SIGINT):
                handlers.callback(self._listen(number))
            try:
                await self._run()
            except asyncio.CancelledError:
                if not self._ended_early():
                    raise

    def drain(self) -> None:
        """Stop polling, finish what is in flight, make the last checkpoints; `run` then returns."""
        if self._is_draining:
            return
        self._is_draining = True
        _log.info("draining")
        if self.pipeline is not None and self._deadline is not None:
            self.pipeline.drain()
            self._deadline.reschedule(asyncio.get_running_loop().time() + _DRAIN_S)
        elif self._main is not None:
            self._main.cancel()  # still starting: there is nothing to finish

    def _ended_early(self) -> bool:
        """Whether a drain came before there was anything to drain."""
        return self._is_draining and self.pipeline is None

    async def _run(self) -> None:
        # 1. Bundles.
        detectors, numerics = await asyncio.to_thread(load_detectors, self.settings)
        self.telemetry.awaited(self.settings.sources)
        self.telemetry.self_tested()
        for detector in detectors:
            self._tell_loaded(detector)
        async with AsyncExitStack() as parts:
            # 2. HTTP.
            self.server = await serve(self.settings.http, self.telemetry)
            parts.push_async_callback(self.server.stop)
            _log.info("serving status and metrics", url=f"http://{self.settings.http.host}:{self.server.port}")
            await self._supervise(detectors, identity_of(self.settings, detectors, numerics))
        _log.info("stopped")

    async def _supervise(self, detectors: Sequence[Detector], identity: Identity) -> None:
        """Steps 3 to 6, and again after a failure that may pass."""
        supervisor = Supervisor(self.telemetry, self.clock)
        while True:
            try:
                return await self._connect_and_run(detectors, identity, supervisor)
            except Exception as failure:  # the supervisor raises again what does not pass by itself
                pause_s = supervisor.pause_after(failure, is_draining=self._is_draining)
            # Not in the handler: as long as the failure lives, the engines of its frames live with it.
            await asyncio.sleep(pause_s)
            self.telemetry.awaited(self.settings.sources)

    async def _connect_and_run(self, detectors: Sequence[Detector], identity: Identity, supervisor: Supervisor) -> None:
        async with AsyncExitStack() as parts:
            # 3. Sinks.
            deliveries = make_deliveries(self.settings)
            for sink in deliveries.all():
                await _start(sink, parts)
            store = make_store(self.settings.checkpoint)
            await _start(store, parts)
            # 4. Sources.
            inputs = [self._input(name, detectors) for name in self.settings.sources]
            for each in inputs:
                await _start(each.source, parts)
            # 5. Pipeline.
            supervisor.began()
            self.pipeline = self._make_pipeline(inputs, deliveries, store, identity)
            try:
                with rare_collections():
                    await self._until_drained(self.pipeline)
            finally:
                self.pipeline = None
            # 6. Stop: the stack, in reverse.

    async def _until_drained(self, pipeline: Pipeline) -> None:
        try:
            async with asyncio.timeout(None) as self._deadline:
                await pipeline.run()
        except TimeoutError as error:
            hint = "nothing is lost: the next start replays from the last checkpoint"
            raise TidewardenError("drain", "took too long", expected=f"{_DRAIN_S} s", hint=hint) from error

    def _make_pipeline(
        self, inputs: Sequence[Input], deliveries: Deliveries, store: Store, identity: Identity
    ) -> Pipeline:
        return Pipeline(
            inputs=inputs,
            deliveries=deliveries,
            store=store,
            identity=identity,
            telemetry=self.telemetry,
            clock=self.clock,
            checkpoint=self.settings.checkpoint,
        )

    def _input(self, name: str, detectors: Sequence[Detector]) -> Input:
        settings = self.settings.sources[name]
        new_engine = partial(self._new_engine, record=settings.record, detectors=detectors)
        policies = policies_of(settings, cold=self._cold)
        return Input(make_source(name, settings, self.clock), settings.start, new_engine, policies)

    def _new_engine(self, shard: Shard, *, record: RecordSettings, detectors: Sequence[Detector]) -> Engine:
        sinks = self.settings.sinks
        wants_detail = bool(sinks.scores) and sinks.scores_detail
        return Engine(shard, detectors, record, self.settings.engine, scores_detail=wants_detail)

    def _tell_loaded(self, detector: Detector) -> None:
        bundle, decide = detector.bundle, detector.settings.decide
        is_fixed = decide.threshold_nines is not None
        self.telemetry.bundle_loaded(
            detector.name,
            bundle.label,
            bundle.sha256,
            channels=detector.settings.channels or bundle.channels,
            budget_per_day=None if is_fixed else decide.budget_per_day or bundle.budget_per_day,
        )

    def _listen(self, number: signal.Signals) -> Callable[[], object]:
        """Handle a signal; returns what ends that."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(number, self._on_signal, number)
        return partial(loop.remove_signal_handler, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._is_draining:
            os._exit(128 + number)  # the second one: do not wait for anything
        self.drain()


def load_detectors(settings: Settings) -> tuple[list[Detector], str]:
    """Read each bundle once, make a session of it and prove that it computes here as it must; detectors may share one.

    Returns:
        The detectors in their order, and the fingerprint of their numerics.

    Raises:
        BundleError: A bundle cannot be used, or not on this machine.
        ConfigurationError: The device is not there, or narrow records come for a detector without declared channels.
    """
    loaded: dict[str, tuple[Bundle, Session]] = {}
    for each in settings.detectors.values():
        if each.bundle not in loaded:
            bundle = read_bundle(locate(each.bundle))
            loaded[each.bundle] = bundle, Session(bundle, settings.device)
        bundle, session = loaded[each.bundle]
        channels = each.channels or bundle.channels
        for count in [len(channels)] if channels else _SELF_TEST_CHANNELS:
            session.self_test(count)
    detectors = [Detector(name, each, *loaded[each.bundle]) for name, each in settings.detectors.items()]
    for name, source in settings.sources.items():
        if source.record.channel is not None:
            topics = source.topics if isinstance(source, KafkaSourceSettings) and source.topics else None
            require_channels(detectors, f"sources.{name}", topics)
    return detectors, ", ".join(sorted({session.numerics for _, session in loaded.values()}))


def make_deliveries(settings: Settings) -> Deliveries:
    """All sinks, not yet started."""
    sinks = settings.sinks
    ratio = None if sinks.scores_mode == "complete" else sinks.scores_sample_ratio
    return Deliveries(_sinks(sinks.alerts), _sinks(sinks.scores), _sinks(sinks.dead_letters), ratio)


def identity_of(settings: Settings, detectors: Sequence[Detector], numerics: str) -> Identity:
    """What a checkpoint remembers of bundles, configuration and numerics."""
    bundles = {detector.name: (detector.bundle.sha256, detector.bundle.label) for detector in detectors}
    matters = {
        "detectors": [(name, _what_counts(detector)) for name, detector in settings.detectors.items()],
        "records": {name: source.record.model_dump(mode="json") for name, source in settings.sources.items()},
        # How many rows are in memory changes nothing; how many streams there may be, and when one is forgotten, does.
        "most_streams": settings.engine.max_streams + settings.engine.max_cold_streams,
        "forget_after_s": settings.engine.forget_after_s,
    }
    configuration = hashlib.sha256(msgspec.json.encode(matters)).hexdigest()
    models = {detector.name: detector.bundle for detector in detectors}
    return Identity(bundles, configuration, numerics, models)


def _what_counts(detector: DetectorSettings) -> dict[str, object]:
    """What of a detector decides about scores and alerts, beside its bundle; of the later settings what is said."""
    said = detector.model_dump(mode="json", exclude={"bundle"})
    return {key: value for key, value in said.items() if value or key not in _LATER}  # else every hash would change


def policies_of(settings: SourceSettings, *, cold: bool = False) -> Policies:
    """What the operator said of a source for the day when a checkpoint no longer fits."""
    if isinstance(settings, KafkaSourceSettings):
        return Policies(settings.on_data_loss, settings.on_partitions_changed, cold)
    return Policies(cold=cold)


def _sinks(settings: Mapping[str, SinkSettings]) -> dict[str, Sink]:
    return {name: make_sink(name, each) for name, each in settings.items()}


async def _start(part: Source | Sink | Store, parts: AsyncExitStack) -> None:
    parts.push_async_exit(partial(_stop, part))  # before the start: safe after a failed one, and frees what it took
    await part.start()


async def _stop(
    part: Source | Sink | Store, kind: type[BaseException] | None, failure: BaseException | None, _: object
) -> None:
    """Stop a part; what goes wrong there counts only where nothing else did."""
    try:
        await part.stop()
    except TidewardenError as error:
        if failure is None:
            raise
        _log.warning("did not stop cleanly", error=str(error))


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Let the collector of cycles look less often, and not at what lives as long as the daemon.

    With Python's defaults it walks the records of a poll over and over and takes a third of all time (measured by
    `make bench`). Our hot path makes no cycles; those of libraries are still collected.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
