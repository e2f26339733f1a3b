"""`tidewarden inspect`: looks into a bundle, or a folder of checkpoints; reads, never writes.

tidewarden inspect pumps.onnx     what a bundle is and was trained on; one in the box by its name
tidewarden inspect state/         shards, positions, streams, ages; more by `tidewarden state`
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from detector.bundles import locate
from detector.checkpoint.stores.dir import DirStore
from detector.commands import memory
from detector.commands.output import print_json, print_table
from detector.commands.shards import overview
from detector.commands.state import print_shards
from detector.model.bundle import Bundle, read_bundle

_CHANNELS = (1, 3, 7, 16, 64)  # for which the size of a stream's memory is told where the bundle takes any number
_FIRST_FLOATS = 6  # of a long field that a table shows; --json shows all


def command(
    what: Annotated[Path, typer.Argument(help="A bundle, or a folder of checkpoints.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look into a bundle, or a folder of checkpoints."""
    if not what.is_dir():
        _print(f"bundle {what}", bundle_facts(read_bundle(locate(what))), as_json=as_json)
        return
    print_shards(asyncio.run(overview(DirStore(what))), as_json=as_json)


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """What a bundle says of itself, with the row layout and without the numbers of its initial row."""
    told = {key: value for key, value in bundle.metadata.items() if key != "initial"}
    size = "S" if bundle.channels is None else bundle.row_floats(len(bundle.channels))
    counts = _CHANNELS if bundle.channels is None else (len(bundle.channels),)
    return {
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "bytes": len(bundle.model_bytes),
        "row": f"{size} = {bundle.joint} + {bundle.per_channel} C floats",
        "bytes_per_stream": {f"{count} channels": memory.stream_bytes(bundle, count) for count in counts},
        **told,
    }


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
