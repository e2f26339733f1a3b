"""What is told of shards and of streams' memory: facts as plain documents, and in words. No I/O.

A row is opaque to the daemon. The manifest names its parts (the bundle's row layout), and those that our own training
writes are put in words too; of any other bundle the names and numbers are shown as they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.checkpoint.edit import Held
from detector.checkpoint.format import Manifest
from detector.commands.output import utc
from detector.engine.freezing import in_force, is_of, names
from detector.model.bundle import Bundle
from detector.model.rows import RowLayout
from detector.records import NO_TIME, ArenaRows
from detector.settings import FreezeSettings
from detector.stages.decide import DECIDE, open_slots

_PHASES = ("calm", "stirred: a run of elevated scores", "risen: a run with a strange sample", "an anomaly is open")


def shard_facts(held: Held, history: int, where: str) -> dict[str, Any]:
    """What a shard's checkpoint holds."""
    manifest = held.manifest
    return {
        "cluster": manifest.cluster,
        "topic": manifest.topic,
        "partition": manifest.partition,
        "where": where,
        "position": manifest.position,
        "created": manifest.created,
        "highest_event": utc(manifest.highest_event_ns),
        "streams": len(held.streams),
        "warm": sum(len(rows.streams) for rows in held.warm),
        "cold": sum(len(rows.streams) for rows in held.cold),
        "open_anomalies": sum(len(open_slots(_decide(rows))) for rows in held.arenas),
        "gaps": [[gap.start, gap.end] for gap in manifest.gaps],
        "lost_positions": sum(gap.end - gap.start for gap in manifest.gaps),
        "history": history,
        "bytes": sum(segment.bytes for segment in (*manifest.segments, *manifest.cold)),
        "segments": len(manifest.segments),
        "epoch": manifest.epoch,
        "fence": manifest.fence,
        "arenas": [
            {
                "detector": arena.detector,
                "bundle": arena.bundle,
                "bundle_sha256": arena.bundle_sha256,
                "channels": list(arena.channels),
            }
            for arena in manifest.arenas
        ],
    }


def stream_lines(held: Held) -> Iterator[dict[str, Any]]:
    """One line per stream: when it was last heard, whether an anomaly is open, where its row is."""
    for kind, arenas in (("warm", held.warm), ("cold", held.cold)):
        for rows in arenas:
            decide, last_ns = _decide(rows), rows.arrays["last_ns"].tolist()
            is_open = set(open_slots(decide).tolist())
            for row, stream in enumerate(rows.streams):
                yield {
                    "stream": stream,
                    "shard": str(held.manifest.shard),
                    "detector": rows.detector,
                    "last_sample": utc(last_ns[row]),
                    "open_since": utc(int(decide["fired_ns"][row])) if row in is_open else None,
                    "row": kind,
                }


def stream_facts(manifest: Manifest, rows: ArenaRows, row: int, layout: RowLayout | None) -> dict[str, Any]:
    """All that is remembered of one stream, named."""
    arrays = {name: column[row] for name, column in rows.arrays.items()}
    decide = {name: _plain(name, arrays["decide"][name].item()) for name in arrays["decide"].dtype.names}
    state = np.asarray(arrays["state"], np.float32)
    made = next((each.bundle for each in manifest.arenas if each.bundle_sha256 == rows.bundle_sha256), None)
    return {
        "stream": rows.streams[row],
        "shard": str(manifest.shard),
        "position": manifest.position,
        "detector": rows.detector,
        "bundle": made,
        "bundle_sha256": rows.bundle_sha256,
        "channels": list(rows.channels),
        "labels": rows.labels[row],
        "last_sample": utc(int(arrays["last_ns"])),
        "gaps": [[gap.start, gap.end] for gap in manifest.gaps],
        "decide": decide,
        "band": arrays["band"].tolist(),
        "joined": _joined(arrays, rows.channels),
        "row": {"floats": state.tolist()} if layout is None else layout.explain(state, rows.channels),
    }


def _joined(arrays: Mapping[str, Any], channels: Sequence[str]) -> dict[str, Any] | None:
    """Narrow records: the sample that has not closed yet."""
    if "join_ns" not in arrays or int(arrays["join_ns"]) == NO_TIME:
        return None
    arrived = [name for name, is_there in zip(channels, arrays["join_arrived"].tolist(), strict=True) if is_there]
    return {"time": utc(int(arrays["join_ns"])), "arrived": arrived}


def stream_bytes(bundle: Bundle, channels: int) -> int:
    """Bytes of memory that a stream of so many channels takes: the row, decide's columns, band and time."""
    state = bundle.initial_row(channels)
    return state.nbytes + DECIDE.itemsize + 2 * channels * np.dtype(np.float64).itemsize + np.dtype(np.int64).itemsize


def freezes(rules: Sequence[FreezeSettings], manifest: Manifest, rows: ArenaRows, row: int) -> list[dict[str, Any]]:
    """The rules under which a stream learns nothing; whether one is in force for what comes next in its shard."""
    last_ns = int(rows.arrays["last_ns"][row])
    return [
        {
            "from": _edge(rule.begin),
            "until": None if rule.until is None else _edge(rule.until),
            "in_force": in_force(rule, manifest.position, last_ns),
        }
        for rule in rules
        if is_of(rule, manifest.shard) and names(rule, rows.streams[row])
    ]


def _edge(edge: int | datetime) -> int | str:
    return edge if isinstance(edge, int) else edge.isoformat().replace("+00:00", "Z")


# In words -------------------------------------------------------------------------------------------------------------


def in_words(facts: Mapping[str, Any], warm_up: int | None) -> list[str]:
    """What the memory of a stream comes to."""
    row = facts["row"]
    joint: Mapping[str, Any] = row.get("joint", {})
    lines = [facts["stream"], f"  as of position {facts['position']} of {facts['shard']}"]
    lines.append(f"  watched by {facts['detector']} ({facts['bundle']}); last sample {facts['last_sample'] or 'never'}")
    if facts["labels"]:
        lines.append("  labels " + ", ".join(f"{name}={value}" for name, value in sorted(facts["labels"].items())))
    if facts["gaps"]:
        lost = sum(end - start for start, end in facts["gaps"])
        lines.append(f"  its shard lost {lost:,} positions in {len(facts['gaps'])} gaps")
    if joined := facts["joined"]:
        lines.append(f"  a sample of {joined['time']} is open: {', '.join(joined['arrived'])} arrived")
    lines += [_frozen(each) for each in facts.get("freeze", ())]
    lines += _warm_up(joint, warm_up) + _evidence(joint) + _rate(facts["decide"]) + _anomaly(facts["decide"])
    for name, channel in row.get("channels", {}).items():
        lines += _channel(name, channel)
    return lines


def _frozen(freeze: Mapping[str, Any]) -> str:
    first, end = (f"offset {edge}" if isinstance(edge, int) else edge for edge in (freeze["from"], freeze["until"]))
    span = f"from {first} until {end}" if end else f"from {first} on"
    return f"  learning is frozen {span}: {'in force' if freeze['in_force'] else 'not in force at this position'}"


def _warm_up(joint: Mapping[str, Any], warm_up: int | None) -> list[str]:
    if "samples" not in joint:
        return []
    seen = f"  {joint['samples']:,.0f} samples seen"
    if warm_up is None:
        return [seen]
    left = warm_up - joint["samples"]
    return [f"{seen}; warming up, {left:,.0f} to go" if left > 0 else f"{seen}; the warm-up of {warm_up:,} is over"]


def _evidence(joint: Mapping[str, Any]) -> list[str]:
    if "reached" in joint:
        everyone, above = joint["reached"][0], joint["reached"][2]
        return [f"  strangeness is above 1 in {above:,.0f} of {everyone:,.0f} samples, by weight"]
    if {"median", "gaps"} <= joint.keys():
        levels = [math.exp(x) for x in itertools.accumulate(joint["gaps"], initial=joint["median"])]
        return [
            f"  strangeness is usually {levels[0]:.3g}, one sample in 100 reaches {levels[2]:.3g}, "
            f"one in 10,000 {levels[4]:.3g}"
        ]
    if not {"median", "high", "excess"} <= joint.keys():
        return []
    return [
        f"  strangeness is usually {joint['median']:.3g}, one sample in 50 above {joint['high']:.3g}, "
        f"by {joint['excess']:.3g}"
    ]


def _rate(decide: Mapping[str, Any]) -> list[str]:
    return [
        f"  a sample every {decide['elapsed_mean_s']:.4g} s; {decide['exceedances']:,} over the threshold "
        f"in {decide['clusters']:,} clusters; the threshold is corrected by {decide['correction']:+.2f} nines "
        f"after {decide['alarms']:,} alarms"
    ]


def _anomaly(decide: Mapping[str, Any]) -> list[str]:
    if decide["phase"] < len(_PHASES) - 1:
        cool = decide["cool_until_ns"]
        return [f"  {_PHASES[decide['phase']]}" + (f"; nothing fires before {cool}" if cool else "")]
    return [
        f"  {_PHASES[-1]} since {decide['run_started_ns']}",
        f"    fired {decide['fired_ns']} at offset {decide['fired_position']}",
        f"    over a threshold of {decide['fired_threshold']:.3g} nines",
        f"    peak {decide['peak']:.3g} nines, {decide['strange']:,} strange samples, {decide['calm']:,} calm since",
        f"    message {decide['sequence']} was the last, {decide['message_ns']}",
    ]


def _channel(name: str, channel: Mapping[str, Any]) -> list[str]:
    """The running scale of a channel and its evidence, as our own bundles keep them."""
    lines = [f"  {name}"]
    if {"mean_high", "mean_low", "variance", "change_scale", "count"} <= channel.keys():
        mean, spread = channel["mean_high"] + channel["mean_low"], math.sqrt(max(0.0, channel["variance"]))
        lines.append(f"    mean {mean:.6g}, spread {spread:.3g}, usual change {channel['change_scale']:.3g}")
    if {"origin_high", "origin_low"} <= channel.keys():
        last = channel["origin_high"] + channel["origin_low"]
        seen = f", {channel['since']:.4g} s before the stream's last sample" if channel.get("since") else ""
        lines.append(f"    last value {last:.6g}{seen}; {channel['count']:,.0f} values seen")
    if {"averages", "feature_mean", "feature_variance"} <= channel.keys():
        lines.append(f"    evidence: {len(channel['averages'])} features with their usual means and spreads (--json)")
    return lines


# Differences ----------------------------------------------------------------------------------------------------------


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Fields that differ, the largest relative difference first, then what is no number, by name."""
    first, second = dict(flat(one)), dict(flat(other))
    found = [
        (name, first.get(name), second.get(name))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]
    return sorted(found, key=lambda each: (-_size(each[1], each[2]), each[0]))


def flat(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves with their path; a list of numbers is one leaf each, one of texts is one."""
    if isinstance(document, Mapping) and document:
        for name, value in document.items():
            yield from flat(value, f"{path}.{name}" if path else name)
    elif isinstance(document, list) and any(isinstance(each, float | list) for each in document):
        for number, value in enumerate(document):
            yield from flat(value, f"{path}.{number}")
    else:
        yield path, document


def _size(one: Any, other: Any) -> float:
    if not (isinstance(one, int | float) and isinstance(other, int | float)):
        return 0.0
    return abs(one - other) / max(abs(one), abs(other))


def _decide(rows: ArenaRows) -> NDArray[Any]:
    return rows.arrays["decide"]


def _plain(name: str, value: float) -> float | str | None:
    return utc(int(value)) if name.endswith("_ns") else value
