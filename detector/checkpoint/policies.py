"""What is done when a checkpoint and the world no longer fit together, as the operator said; refused unless said.

other bundle, detector or version    check_lineage
records gone, or fewer than before   check_position
other records than before            check_anchor
"""

from __future__ import annotations

from detector.checkpoint.format import Manifest
from detector.checkpoint.protocol import Identity
from detector.errors import DataLostError, LineageError
from detector.records import Shard
from detector.sources.base import Bounds, Source
from detector.stages.decide import DECIDE_VERSION


def check_lineage(manifest: Manifest, shard: Shard, identity: Identity) -> None:
    """Refuse rows of another shard or bundle.

    Raises:
        LineageError: With what to do about it.
    """
    if manifest.shard != shard:
        raise LineageError(shard, "checkpoint of another shard", expected=shard, got=manifest.shard)
    if manifest.decide_version != DECIDE_VERSION:
        raise LineageError(
            shard,
            "version of decide's columns",
            expected=DECIDE_VERSION,
            got=manifest.decide_version,
            hint="run the release that made the checkpoint, or move its folder away to start without memory",
        )
    for arena in manifest.arenas:
        sha256, label = identity.bundles.get(arena.detector, (None, "no such detector"))
        if sha256 != arena.bundle_sha256:
            raise LineageError(
                shard,
                f"bundle of detector {arena.detector!r}",
                expected=f"{arena.bundle} (sha256 {arena.bundle_sha256[:12]}), which made the checkpoint",
                got=f"{label} (sha256 {sha256[:12]})" if sha256 else label,
                hint="run that bundle again, or move the checkpoint folder away to start without memory",
            )


def check_position(manifest: Manifest, bounds: Bounds) -> None:
    """Refuse a position that the source no longer has, or does not have yet.

    Raises:
        DataLostError: Records were deleted before we read them.
        LineageError: The source ends before the position: it is another one, or it was cut.
    """
    if manifest.position < bounds.low:
        raise DataLostError(
            manifest.shard,
            "records after the checkpoint are gone",
            expected=f"position {manifest.position}",
            got=f"the first that is left, {bounds.low}",
            hint="keep records for longer than an outage; move the checkpoint folder away to start without memory",
        )
    if manifest.position > bounds.high:
        raise LineageError(
            manifest.shard,
            "the source ends before the checkpoint",
            expected=f"position {manifest.position}",
            got=f"an end of {bounds.high}",
            hint="was the topic created anew? move the checkpoint folder away to start without memory",
        )


async def check_anchor(manifest: Manifest, bounds: Bounds, source: Source) -> None:
    """Refuse a source in which something else stands before the position than at the checkpoint.

    Raises:
        LineageError: With both fingerprints.
    """
    if manifest.anchor is None or manifest.position <= bounds.low:
        return  # nothing stood there, or what stood there has been deleted in good order
    anchor = await source.anchor(manifest.shard, manifest.position)
    if anchor != manifest.anchor:
        raise LineageError(
            manifest.shard,
            f"what stands before position {manifest.position} has changed",
            expected=manifest.anchor,
            got=anchor or "nothing",
            hint="was the topic or the file created anew? move the checkpoint folder away to start without memory",
        )


def changed(manifest: Manifest, identity: Identity) -> list[str]:
    """Which of configuration and numerics are not what they were."""
    was = {"configuration": manifest.configuration, "numerics": manifest.numerics}
    now = {"configuration": identity.configuration, "numerics": identity.numerics}
    return [what for what in was if was[what] != now[what]]
