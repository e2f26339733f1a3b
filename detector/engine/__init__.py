"""The sans-I/O heart: decode > route > align > wave > infer > decide, over one shard.

    engine = Engine(shard, detectors, settings.record, settings.engine)
    outcome = engine.advance(records)       # one poll in; scores, alerts, rejects and counts out

What comes out for a stream depends on the bundle, the configuration and the stream's own samples in order, never on
how records fall into polls or samples into waves. One thing looks across streams, the notice of silence, and it is
tied to positions: it sees the memory as it is after all records before the one at which it is due. A poll is cut
there, but only where something could be silent, which is rare.

    engine   the stages in their order; silence; memory
    lane     a detector and what follows from its settings
    freezing which samples teach their stream nothing
    poll     one poll on its way
    partials samples of narrow records of which not all has arrived
"""

from __future__ import annotations

from detector.engine.engine import Engine
from detector.engine.lane import Detector, require_channels

__all__ = ["Detector", "Engine", "require_channels"]
