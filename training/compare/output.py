"""What a comparison leaves behind: results.csv and results.json for programs, report.html for people."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from training.compare.figures import figures
from training.compare.finding import Finding
from training.compare.report import write_report
from training.compare.result import Result
from training.compare.words import recommendation


def write(folder: Path, result: Result) -> None:
    """Write the three files."""
    rows = [_row(result, one) for one in (result.floor, *result.candidates, *result.again)]
    _write_csv(folder / "results.csv", result, rows)
    (folder / "results.json").write_text(json.dumps(_document(result, rows), indent=2) + "\n", encoding="utf-8")
    write_report(folder / "report.html", result)


def _row(result: Result, one: Finding) -> dict[str, Any]:
    known = {"label": one.label, "role": one.role, "state": one.state, "reason": one.reason, "seed": one.seed}
    return {
        **known,
        "values": one.values,
        **figures(one, result.costs.get(one.number), result.settings.decide.budget_per_day),
    }


def _write_csv(path: Path, result: Result, rows: list[dict[str, Any]]) -> None:
    """One row per candidate; a figure that is not defined is empty."""
    flat = [{**{key: row["values"].get(key) for key in result.asked.over}, **row} for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        names = ["label", *(name for name in flat[0] if name not in ("label", "values"))]
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)


def _document(result: Result, rows: list[dict[str, Any]]) -> dict[str, Any]:
    choice = result.choice
    return {
        "recommended": choice.taken.values,
        "reason": recommendation(result),
        "ranked_by": choice.lead.name,
        "as_good_as_the_best": [one.values for one in choice.steps[-1].left],
        "pareto_front": [one.values for one in result.done if one.number in choice.front],
        "asked": result.asked.model_dump(mode="json"),
        "plan": {"way": result.plan.way, "train_s": result.plan.fit_s, "combinations": result.combinations},
        "left_out": [{"values": one.values, "reason": one.reason} for one in result.left_out],
        "data": {
            "sha256": result.floor.data_sha256,
            "streams": result.streams,
            "samples": result.samples,
            "channels": result.channels,
            "truth": result.truth,
            "events": result.events,
        },
        "candidates": rows,
    }
