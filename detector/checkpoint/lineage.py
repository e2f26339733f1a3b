"""Which bundles made a shard's rows, and how rows of another bundle become rows of the one that runs.

Every block of rows in a segment names its bundle. A manifest lists them twice: `arenas`, one entry per detector and
channel set in the warm segments, and `bundles`, the layout of each bundle that made a row anywhere, cold segments
included. So a new bundle needs nothing but the manifest to take memory over: on the way into the engine each block of
another bundle goes through `Carry`, part by part (model/rows.py); decide's columns, band, times and labels stay.

From the restore until the first base under the new bundle the segments are of two kinds, and the manifest says so
(`mixed`). A crash in between only means to carry the same rows over again. Cold rows go over when they come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from detector.checkpoint.format import ArenaLineage, BundleLineage, Manifest
from detector.errors import LineageError
from detector.model.bundle import Bundle
from detector.model.rows import Comparison, RowLayout, carry_over, compare
from detector.records import ArenaRows

COLD_HINT = "or start what cannot be used without memory: tidewarden run --cold"


@dataclass(frozen=True, slots=True)
class Identity:
    """What is running, as a manifest remembers it."""

    bundles: Mapping[str, tuple[str, str]]
    """Per detector its bundle's SHA-256 and its `name@version`."""
    configuration: str
    numerics: str
    models: Mapping[str, Bundle] = field(default_factory=dict)
    """Per detector the bundle itself, which knows what its rows are made of."""


@dataclass(frozen=True, slots=True)
class Change:
    """A detector whose bundle is another one than before."""

    detector: str
    before: str
    after: str
    parts: Comparison


class Carry:
    """Turns rows of any bundle that a manifest knows into rows of the one that runs."""

    def __init__(self, layouts: Mapping[tuple[str, str], RowLayout], identity: Identity) -> None:
        self._layouts, self._models = layouts, identity.models

    def __call__(self, rows: ArenaRows) -> ArenaRows:
        """The same rows where their bundle runs; else made anew, with what carries over."""
        bundle = self._models.get(rows.detector)
        old = self._layouts.get((rows.detector, rows.bundle_sha256))
        if bundle is None or old is None or rows.bundle_sha256 == bundle.sha256:
            return rows
        state = np.asarray(rows.arrays["state"], np.float32)
        carried = carry_over(state, old, bundle.layout, bundle.initial_row(len(rows.channels)))
        return replace(rows, bundle_sha256=bundle.sha256, arrays={**rows.arrays, "state": carried})

    def moved(self, arenas: Iterable[ArenaRows]) -> int:
        """How many streams of these rows change over."""
        models = self._models
        ours = (rows for rows in arenas if rows.detector in models)
        return len({s for rows in ours if rows.bundle_sha256 != models[rows.detector].sha256 for s in rows.streams})


def check_bundles(manifest: Manifest, where: str, identity: Identity) -> tuple[Carry, list[Change]]:
    """Say how the manifest's rows become rows of the bundles that run.

    Raises:
        LineageError: Some cannot, with what stands in the way.
    """
    layouts = {(each.detector, each.bundle_sha256): each.layout for each in manifest.bundles}
    changes = [
        _change(where, made, layouts.get((made.detector, made.bundle_sha256)), identity)
        for made in _makers(manifest)
        if made.bundle_sha256 != identity.bundles.get(made.detector, ("", ""))[0]
    ]
    return Carry(layouts, identity), list(dict.fromkeys(changes))


def with_running(manifest: Manifest, identity: Identity) -> Manifest:
    """Note the layouts of the bundles that run, and whether segments of others are left."""
    sha256 = {detector: bundle[0] for detector, bundle in identity.bundles.items()}
    mixed = manifest.mixed or any(arena.bundle_sha256 != sha256.get(arena.detector) for arena in manifest.arenas)
    return msgspec.structs.replace(manifest, mixed=mixed, bundles=_bundles(manifest.bundles, manifest.arenas, identity))


def with_rows(manifest: Manifest, arenas: Sequence[ArenaRows], identity: Identity, *, full: bool) -> Manifest:
    """Note who made rows that were just written; a base leaves none of other bundles but in cold segments.

    The arenas stay in the order of first sight: that order is part of the memory.
    """
    written = [
        ArenaLineage(
            detector=rows.detector,
            bundle_sha256=rows.bundle_sha256,
            bundle=identity.bundles[rows.detector][1],
            channels=rows.channels,
        )
        for rows in arenas
    ]
    known = [_renewed(arena, identity) for arena in manifest.arenas] if full else manifest.arenas
    lineage = list(dict.fromkeys([*known, *written]))
    former = [] if full and not manifest.cold else manifest.bundles
    return msgspec.structs.replace(
        manifest, arenas=lineage, bundles=_bundles(former, lineage, identity), mixed=manifest.mixed and not full
    )


def _makers(manifest: Manifest) -> list[ArenaLineage]:
    """Who made rows, with their channels; of what only cold segments hold no channels are known."""
    seen = {(arena.detector, arena.bundle_sha256) for arena in manifest.arenas}
    cold = [each for each in manifest.bundles if (each.detector, each.bundle_sha256) not in seen]
    return manifest.arenas + [
        ArenaLineage(detector=each.detector, bundle_sha256=each.bundle_sha256, bundle=each.bundle, channels=())
        for each in cold
    ]


def _change(where: str, made: ArenaLineage, layout: RowLayout | None, identity: Identity) -> Change:
    """Compare the bundle that made rows with the one that is to go on with them; refuse what does not fit."""
    bundle = identity.models.get(made.detector)
    sha256, label = identity.bundles.get(made.detector, ("", ""))
    before = f"{made.bundle} (sha256 {made.bundle_sha256[:12]})"
    after = f"{label} (sha256 {sha256[:12]})" if sha256 else "no such detector"
    expected = got = ""
    if bundle is None or layout is None:
        known = "" if layout else "; it does not say what its rows are made of"
        expected, got = f"{before}, which made the checkpoint{known}", after
    elif made.channels and bundle.channels is not None and made.channels != bundle.channels:
        expected, got = f"channels {', '.join(made.channels)}, as {before} has them", f"{', '.join(bundle.channels)}"
    elif (parts := compare(layout, bundle.layout)).differing:
        expected, got = f"rows of {before}, with {', '.join(parts.differing)}", f"{after}, whose rows are without"
    else:
        return Change(made.detector, made.bundle, label, parts)
    hint = f"run that bundle again, {COLD_HINT}"
    raise LineageError(where, f"bundle of detector {made.detector!r}", expected=expected, got=got, hint=hint)


def _renewed(arena: ArenaLineage, identity: Identity) -> ArenaLineage:
    sha256, label = identity.bundles[arena.detector]
    return msgspec.structs.replace(arena, bundle_sha256=sha256, bundle=label)


def _bundles(known: Sequence[BundleLineage], arenas: Sequence[ArenaLineage], identity: Identity) -> list[BundleLineage]:
    """The known ones, and those that run and have arenas."""
    running = [
        BundleLineage(detector=name, bundle_sha256=bundle.sha256, bundle=bundle.label, layout=bundle.layout)
        for name in dict.fromkeys(arena.detector for arena in arenas)
        if (bundle := identity.models.get(name)) is not None
    ]
    return list(dict.fromkeys([*known, *running]))
