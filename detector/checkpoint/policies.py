"""What is done when a checkpoint and the world no longer fit together: as the operator said, and refused unless said.

| situation | unless said | what can be said | what is told |
|---|---|---|---|
| no manifest | `start`, earliest | `start`: earliest, latest, fail | log; pinned by a manifest at once |
| records after it are gone | refused | `on_data_loss`: continue | log, positions_lost_total, `gaps` in the manifest |
| the source ends before it, or other records stand before it | refused | `run --cold` | each stream that is lost |
| same bundle | kept | | |
| other bundle, rows compatible | carried over, part by part | | log: parts kept and fresh; streams_carried_over_total |
| other bundle, rows not compatible, or none of that detector | refused | `run --cold` | each stream that is lost |
| other columns of decide | refused | `run --cold` | each stream that is lost |
| other configuration or numerics | kept | | log |
| other number of partitions | refused | `on_partitions_changed`: continue | log; the manifest takes the new number |
| the newest checkpoint is damaged | the one before | | log, checkpoint_fallbacks_total |
| every checkpoint is damaged | refused | `run --cold` | what can still be read of them |

Every refusal names the shard and the store's place, what was expected, what came, and what the operator can do.

A **gap** belongs to all streams of its shard alike, and nothing in their rows is touched for it: to a stream it is a
silence, its next sample's elapsed time spans it, and an anomaly that was open is closed by that (reason `gap`) or goes
on, as after any silence. What a process may have told of the lost records before it died stays told.

A **cold start** is another memory under the same names. Its alerts are never held back because of what stood on the
outputs before: in a topic that was created anew the same offsets, and so the same ids, mean other alerts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec
import structlog

from detector.checkpoint.format import Gap, Manifest
from detector.checkpoint.lineage import COLD_HINT, Carry, Change, Identity, check_bundles, with_running
from detector.errors import DataLostError, LineageError, PartitionsChangedError
from detector.records import Shard
from detector.sources.base import Bounds, Source
from detector.stages.decide import DECIDE_VERSION, KNOWN_VERSIONS

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Policies:
    """What the operator said."""

    on_data_loss: Literal["fail", "continue"] = "fail"
    on_partitions_changed: Literal["fail", "continue"] = "fail"
    cold: bool = False
    """Start shards whose checkpoint cannot be used without memory."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A checkpoint that was found to fit, and what it took."""

    manifest: Manifest
    """As the shard goes on from it."""
    carry: Carry
    """What every block of its rows goes through."""
    changes: list[Change] = field(default_factory=list)
    """Bundles that are others than before."""
    gap: Gap | None = None
    """Positions that are lost now."""
    partitions_before: int | None = None
    """Where the number is another one now."""
    changed: list[str] = field(default_factory=list)
    """Which of configuration and numerics are not what they were."""


async def fit(
    manifest: Manifest, shard: Shard, where: str, bounds: Bounds, source: Source, identity: Identity, policies: Policies
) -> Fitted:
    """Make a checkpoint fit the world as it is now, as far as the operator allows it.

    Args:
        manifest: The newest one that is whole.
        shard: Which shard is to be restored from it.
        where: The shard and its place in the store, for the messages.
        bounds: What the source has.
        source: Asked for the anchor and the partitions.
        identity: What is running.
        policies: What the operator said.

    Raises:
        LineageError: It belongs to another topic, bundle or version.
        DataLostError: Records after it are gone from the source.
        PartitionsChangedError: The topic has another number of them.
    """
    _check_version(manifest, shard, where)
    carry, changes = check_bundles(manifest, where, identity)
    gap = _check_position(manifest, where, bounds, policies)
    if gap is None:
        await _check_anchor(manifest, where, bounds, source)
    else:
        anchor = await source.anchor(shard, gap.end)
        manifest = msgspec.structs.replace(manifest, position=gap.end, gaps=[*manifest.gaps, gap], anchor=anchor)
    now = await source.partitions(shard)
    before = _check_partitions(manifest, where, now, policies)
    manifest = msgspec.structs.replace(manifest, partitions=manifest.partitions if now is None else now)
    return Fitted(with_running(manifest, identity), carry, changes, gap, before, changed(manifest, identity))


def tell(fitted: Fitted, shard: Shard, moved: int) -> None:
    """Log what was done to make a checkpoint fit; `moved` streams went over to other bundles."""
    if gap := fitted.gap:
        _log.warning(
            "records were gone before they could be read; the shard goes on behind them",
            shard=str(shard),
            first=gap.start,
            last=gap.end - 1,
            hint="keep records for longer than an outage lasts",
        )
    for change in fitted.changes:
        _log.warning(
            "streams go on under another bundle",
            shard=str(shard),
            detector=change.detector,
            before=change.before,
            after=change.after,
            streams_of_the_shard=moved,
            kept=list(change.parts.kept),
            fresh=list(change.parts.fresh),
        )
    if fitted.partitions_before is not None:
        _log.warning(
            "the topic has another number of partitions",
            shard=str(shard),
            before=fitted.partitions_before,
            now=fitted.manifest.partitions,
            hint="a stream whose key moved to another partition starts there without memory",
        )
    if fitted.changed:
        hint = "records that are replayed may give other alerts than before the restart"
        _log.warning("changed since the checkpoint", shard=str(shard), what=fitted.changed, hint=hint)


def changed(manifest: Manifest, identity: Identity) -> list[str]:
    """Which of configuration and numerics are not what they were."""
    was = {"configuration": manifest.configuration, "numerics": manifest.numerics}
    now = {"configuration": identity.configuration, "numerics": identity.numerics}
    return [what for what in was if was[what] != now[what]]


def _check_version(manifest: Manifest, shard: Shard, where: str) -> None:
    if manifest.shard != shard:
        raise LineageError(where, "checkpoint of another shard", expected=shard, got=manifest.shard)
    if manifest.decide_version not in KNOWN_VERSIONS:
        raise LineageError(
            where,
            "version of decide's columns",
            expected=DECIDE_VERSION,
            got=manifest.decide_version,
            hint=f"run the release that made the checkpoint, {COLD_HINT}",
        )


def _check_position(manifest: Manifest, where: str, bounds: Bounds, policies: Policies) -> Gap | None:
    """Refuse a position that the source no longer has, or does not have yet; or say what is lost."""
    if manifest.position > bounds.high:
        raise LineageError(
            where,
            "the source ends before the checkpoint",
            expected=f"position {manifest.position}",
            got=f"an end of {bounds.high}",
            hint=f"was the topic created anew, or cut? bring its records back, {COLD_HINT}",
        )
    if manifest.position >= bounds.low:
        return None
    if policies.on_data_loss == "continue":
        return Gap(start=manifest.position, end=bounds.low)
    raise DataLostError(
        where,
        "records after the checkpoint are gone",
        expected=f"position {manifest.position}",
        got=f"the first that is left, {bounds.low}",
        hint="keep records for longer than an outage; to go on with the memory as it is set on_data_loss to continue",
    )


async def _check_anchor(manifest: Manifest, where: str, bounds: Bounds, source: Source) -> None:
    """Refuse a source in which something else stands before the position than at the checkpoint."""
    if manifest.anchor is None or manifest.position <= bounds.low:
        return  # nothing stood there, or what stood there has been deleted in good order
    anchor = await source.anchor(manifest.shard, manifest.position)
    if anchor != manifest.anchor:
        raise LineageError(
            where,
            f"what stands before position {manifest.position} has changed",
            expected=manifest.anchor,
            got=anchor or "nothing",
            hint=f"was the topic or the file created anew? bring the old one back, {COLD_HINT}",
        )


def _check_partitions(manifest: Manifest, where: str, now: int | None, policies: Policies) -> int | None:
    """Refuse another number of partitions, or say what it was before."""
    before = manifest.partitions
    if before is None or now is None or before == now:
        return None
    if policies.on_partitions_changed == "fail":
        raise PartitionsChangedError(
            where,
            "number of partitions of the topic",
            expected=f"{before}, as at the checkpoint",
            got=now,
            hint="most keys stand in other partitions now, where their streams have no memory: go back to a topic with "
            "as many as before, or set on_partitions_changed to continue and let what moved start anew",
        )
    return before
