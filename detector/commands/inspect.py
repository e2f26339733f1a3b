"""`tidewarden inspect`: looks into a bundle, a checkpoint, or one stream's memory; reads, never writes.

tidewarden inspect pumps.onnx                             what a bundle is and was trained on
tidewarden inspect state/                                 shards, positions, streams, ages
tidewarden inspect state/ --stream pump-7 -b pumps.onnx   a stream's row, named by the bundle's row layout
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from numpy.typing import NDArray

from detector.bundles import default_path
from detector.checkpoint.base import Store, manifests_newest_first
from detector.checkpoint.format import Manifest, decode_manifest, merge
from detector.checkpoint.restore import Loaded, load
from detector.checkpoint.store_dir import DirStore
from detector.clock import SystemClock
from detector.commands.output import Config, age, print_json, print_table, utc
from detector.errors import CorruptCheckpointError, InputError
from detector.model.bundle import Bundle, read_bundle
from detector.records import ArenaRows, Shard
from detector.settings import load as load_settings
from detector.stages.decide import open_slots

_FIRST_FLOATS = 6  # of a long field that a table shows; --json shows all


def command(
    what: Annotated[Path, typer.Argument(help="A bundle, or the folder of checkpoints.", show_default=False)],
    stream: Annotated[str | None, typer.Option("--stream", "-s", help="Show this stream's memory.")] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", "-b", help="Bundle that names what a row holds.", show_default=False)
    ] = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look into a bundle, a checkpoint, or one stream's memory."""
    if not what.is_dir():
        _print(f"bundle {what}", bundle_facts(read_bundle(what)), as_json=as_json)
        return
    shards = read_store(what)
    if not shards:
        raise InputError(what, "the folder", expected="checkpoints of at least one shard", got="none")
    if stream is None:
        _print_shards([shard_facts(each) for each in shards], as_json=as_json)
        return
    bundles = _bundles(bundle, config)
    rows = [(each.manifest, rows) for each in shards for rows in each.arenas if stream in rows.streams]
    if not rows:
        held = sum(len(rows.streams) for each in shards for rows in each.arenas)
        raise InputError(what, f"stream {stream!r}", expected="one that has memory", got=f"{held} others")
    for manifest, arena in rows:
        _print(f"stream {stream}", stream_facts(manifest, arena, stream, bundles), as_json=as_json)


# A bundle -------------------------------------------------------------------------------------------------------------


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """What a bundle says of itself, with the row layout and without the numbers of its initial row."""
    told = {key: value for key, value in bundle.metadata.items() if key != "initial"}
    size = "S" if bundle.channels is None else bundle.row_floats(len(bundle.channels))
    row = f"{size} = {bundle.joint} + {bundle.per_channel} C floats"
    return {"path": str(bundle.path), "sha256": bundle.sha256, "bytes": len(bundle.model_bytes), "row": row, **told}


# A checkpoint ---------------------------------------------------------------------------------------------------------


def read_store(root: Path) -> list[Loaded]:
    """The newest whole checkpoint of every shard of a `dir` store.

    Raises:
        CorruptCheckpointError: A shard has none that is whole.
    """
    shards = {manifest.shard for folder in sorted(root.iterdir()) if folder.is_dir() for manifest in _manifests(folder)}
    return asyncio.run(_loaded(DirStore(root), sorted(shards, key=str)))


async def _loaded(store: Store, shards: Sequence[Shard]) -> list[Loaded]:
    found = [await load(store, shard) for shard in shards]
    return [replace(each, arenas=merge(each.arenas)) for each in found if each is not None]


def _manifests(folder: Path) -> Iterator[Manifest]:
    """The newest manifest that can be read: it tells whose folder this is."""
    damaged = None
    for name in manifests_newest_first([path.name for path in folder.iterdir()]):
        try:
            yield decode_manifest((folder / name).read_bytes(), folder / name)
        except CorruptCheckpointError as error:
            damaged = error
        else:
            return
    if damaged:
        raise damaged


def shard_facts(loaded: Loaded) -> dict[str, Any]:
    """What a shard's checkpoint holds."""
    manifest = loaded.manifest
    return {
        "cluster": manifest.cluster,
        "topic": manifest.topic,
        "partition": manifest.partition,
        "position": manifest.position,
        "created": manifest.created,
        "highest_event": utc(manifest.highest_event_ns),
        "streams": sum(len(rows.streams) for rows in loaded.arenas),
        "open_anomalies": sum(len(open_slots(_decide(rows))) for rows in loaded.arenas),
        "bytes": sum(segment.bytes for segment in manifest.segments),
        "segments": len(manifest.segments),
        "epoch": manifest.epoch,
        "fence": manifest.fence,
        "damaged": len(loaded.passed_over),
        "arenas": [
            {
                "detector": rows.detector,
                "channels": list(rows.channels),
                "streams": len(rows.streams),
                "bundle": next((each.bundle for each in manifest.arenas if each.detector == rows.detector), None),
                "bundle_sha256": rows.bundle_sha256,
            }
            for rows in loaded.arenas
        ],
    }


def _decide(rows: ArenaRows) -> NDArray[np.void]:
    """Decide's columns, structured."""
    return cast(NDArray[np.void], rows.arrays["decide"])


def _print_shards(shards: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(shards)
        return
    now_ns = SystemClock().now_ns()
    heads = ("shard", "position", "event time", "streams", "open", "bytes", "written", "detectors")
    rows = [
        (
            f"{each['topic']}-{each['partition']}",
            each["position"],
            each["highest_event"],
            each["streams"],
            each["open_anomalies"],
            each["bytes"],
            age(each["created"], now_ns),
            ", ".join(f"{arena['detector']} ({arena['bundle']})" for arena in each["arenas"]),
        )
        for each in shards
    ]
    print_table("checkpoint", heads, rows)


# A stream -------------------------------------------------------------------------------------------------------------


def _bundles(bundle: Path | None, config: Path | None) -> Mapping[str, Bundle]:
    """Every bundle that may explain a row, by hash: the one named, those of the configuration, the one in the box."""
    paths = [] if bundle is None else [bundle]
    if config is not None:
        named = [each.bundle for each in load_settings(config).detectors.values()]
        paths += [Path(path) for path in named if path != "default"]
    if default_path().exists():
        paths.append(default_path())
    return {each.sha256: each for each in map(read_bundle, paths)}


def stream_facts(manifest: Manifest, rows: ArenaRows, stream: str, bundles: Mapping[str, Bundle]) -> dict[str, Any]:
    """All that is remembered of a stream, named."""
    at = rows.streams.index(stream)
    arrays = {name: column[at] for name, column in rows.arrays.items()}
    decide = {name: _plain(name, arrays["decide"][name].item()) for name in arrays["decide"].dtype.names}
    bundle = bundles.get(rows.bundle_sha256)
    hint = f"name the bundle with sha256 {rows.bundle_sha256[:12]}... by --bundle to see its fields"
    return {
        "shard": str(manifest.shard),
        "detector": rows.detector,
        "channels": list(rows.channels),
        "labels": rows.labels[at],
        "last_sample": utc(int(arrays["last_ns"])),
        "decide": decide,
        "band": arrays["band"].tolist(),
        "row": hint if bundle is None else bundle.explain(arrays["state"], rows.channels),
    }


def _plain(name: str, value: float) -> float | str | None:
    return utc(int(value)) if name.endswith("_ns") else value


# Printing -------------------------------------------------------------------------------------------------------------


def _print(title: str, facts: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    print_table(title, ("field", "value"), ((name, _short(value)) for name, value in _flat(facts, "")))


def _flat(facts: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _short(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return ", ".join(str(each.get("name", each)) for each in value)
    if isinstance(value, list) and len(value) > _FIRST_FLOATS:
        return ", ".join(map(str, value[:_FIRST_FLOATS])) + f", ... ({len(value)})"
    return "-" if value is None else str(value)
