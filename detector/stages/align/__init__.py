"""Align: put each sample after the one before it in its stream, and refuse what comes late or twice.

joined = join(slots, columns, event_ns, values, partials)       # narrow records only: one channel each, to samples
aligned = align(slots, event_ns, last_ns)

order   what is late or a duplicate, and how long after its predecessor each sample came
join    samples out of one-channel records
"""

from __future__ import annotations

from detector.stages.align.join import Joined, Partials, join
from detector.stages.align.order import Aligned, align

__all__ = ["Aligned", "Joined", "Partials", "align", "join"]
