"""Exports of every format that was ever written stay readable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.checkpoint.export import Exported, read_export
from detector.checkpoint.format import Manifest
from detector.records import ArenaRows
from detector.stages.decide import new_rows
from tests.unit.test_edit import content

GOLDEN = Path(__file__).parents[1] / "golden" / "export-v1.rows"


def exported() -> list[Exported]:
    """What was put into the golden file."""
    manifest = Manifest(
        cluster="cluster",
        topic="sensors",
        partition=3,
        epoch=12,
        fence=2,
        position=34_567,
        highest_event_ns=1_600_000_000_000_000_000,
        anchor="crc32:0badcafe@1600000000000",
        created="2026-11-21T12:00:00+00:00",
    )
    return [Exported(manifest, [counted(["pump-1", "pump-2"]), counted(["kiln"], channels=("heat", "flow"))])]


def counted(streams: Sequence[str], channels: tuple[str, ...] = ("flow",)) -> ArenaRows:
    """Rows whose numbers need no generator of random ones."""
    count = len(streams)
    decide = new_rows(count, 10.0)
    decide["clusters"] = np.arange(count) + 3
    arrays = {
        "state": np.arange(count * 4, dtype=np.float32).reshape(count, 4) / 8,
        "decide": decide,
        "band": np.arange(count * 2 * len(channels)).reshape(count, 2, len(channels)) / 16,
        "last_ns": np.arange(count) + 1_600_000_000_000_000_000,
    }
    return ArenaRows("pumps", "ab" * 32, channels, list(streams), [{"site": name} for name in streams], arrays)


def test_the_golden_export_is_read_as_it_was_written() -> None:
    """Each row, and where it comes from."""
    (part,), (golden,) = exported(), read_export(GOLDEN)
    assert golden.manifest == part.manifest
    assert [content([each]) for each in golden.arenas] == [content([each]) for each in part.arenas]
