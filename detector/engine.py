"""The sans-I/O heart: decode > route > align > wave > infer > decide, over one shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detector.records import ArenaRows, Outcome, Records, Samples, Shard, Snapshot
from detector.settings import DetectorSettings, EngineSettings, RecordSettings


@dataclass(frozen=True, slots=True)
class Detector:
    """A bundle ready to run, with the streams it takes and how it decides."""

    name: str
    settings: DetectorSettings
    bundle: object  # detector.model.bundle.Bundle
    session: object  # detector.model.session.Session


class Engine:
    """One shard's memory and the stages over it. Not thread-safe; call from one thread at a time."""

    def __init__(
        self,
        shard: Shard,
        detectors: Sequence[Detector],
        record: RecordSettings,
        settings: EngineSettings,
        *,
        scores_detail: bool = False,
        report_silence: bool = True,
    ) -> None: ...

    def advance(self, records: Records) -> Outcome:
        """Carry one poll through all stages."""
        ...

    def advance_samples(self, samples: Samples, outcome: Outcome) -> Outcome:
        """The same from `route` on, for callers that decoded by themselves; adds to `outcome`."""
        ...

    def wanted(self, records: Records) -> list[str]:
        """Streams of these records whose rows the engine does not hold; a caller may `adopt` them first."""
        ...

    def adopt(self, rows: ArenaRows) -> None:
        """Take rows that were saved before: of a checkpoint, or brought back one by one."""
        ...

    def snapshot(self, *, full: bool = False) -> Snapshot:
        """Copy what changed since the last snapshot that was kept; the rows stay marked until `keep`."""
        ...

    def kept(self) -> None:
        """The last snapshot is durable: forget that its rows were dirty."""
        ...

    def dropped(self) -> None:
        """The last snapshot could not be kept: its rows are dirty again."""
        ...

    def restore(self, next_position: int, highest_event_ns: int, arenas: Sequence[ArenaRows]) -> None:
        """Start from a checkpoint."""
        ...
