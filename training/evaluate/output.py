"""What an evaluation leaves behind: results.csv, summary.json and report.html, each written whole or not at all."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from detector import __version__, versions
from detector.model.bundle import Bundle
from training.evaluate.measures.bootstrap import Interval
from training.evaluate.report import write_report
from training.evaluate.results import OURS, CaseResult, SuiteResult
from training.evaluate.run import Options

_FACTS = ("suite", "family", "case", "split", "rows", "channels", "events", "method", "kind")


def write(folder: Path, results: Sequence[SuiteResult], facts: dict[str, Any]) -> None:
    """Write the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_rows(folder / "results.csv", results)
    summary = {**facts, "suites": [_summary(result) for result in results]}
    _replace(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    partial = folder / "report.html.partial"
    write_report(partial, results, f"{facts['bundle']} on {', '.join(result.suite for result in results)}")
    partial.replace(folder / "report.html")


def facts(options: Options, bundle: Bundle) -> dict[str, Any]:
    """What the figures follow from: when, what was called, which bundle, which code."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "command": " ".join(["tidewarden", *sys.argv[1:]]),
        "bundle": bundle.label,
        "bundle_sha256": bundle.sha256,
        "graph_sha256": bundle.graph_sha256,
        "commit": _commit(),
        "tidewarden": __version__,
        "onnxruntime": versions.onnxruntime(),
        "split": options.split or "dev and validation",
        "only": options.only,
        "roles": options.roles,
        "budget_per_day": options.budget_per_day or bundle.budget_per_day,
    }


def _commit() -> str | None:
    """The commit of this code, marked where it has been changed since; None where it is not in a repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit} and changes" if changed.strip() else commit


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="")
    partial.replace(path)


def _write_rows(path: Path, results: Sequence[SuiteResult]) -> None:
    """One row per case and method; a measure that is not defined is empty."""
    rows = [row for result in results for case in result.cases for row in _flat(result, case)]
    rows += [
        {"suite": result.suite, "case": refusal.case, "refused": refusal.reason}
        for result in results
        for refusal in result.refusals
    ]
    names = dict.fromkeys([*_FACTS, *(name for row in rows for name in row if name != "refused"), "refused"])
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def _flat(result: SuiteResult, each: CaseResult) -> list[dict[str, Any]]:
    case = each.case
    known = dict(
        zip(
            _FACTS[:7],
            (result.suite, case.family, case.name, case.split, len(case), len(case.channels), len(case.events)),
            strict=True,
        )
    )
    kinds = {row.method: row.kind for row in result.rows}
    rows = [{**known, "method": OURS, "kind": "ours", **each.measures, "alarms": len(each.verdict.opened)}]
    rows += [{**known, "method": method, "kind": kinds[method], **values} for method, values in each.baselines.items()]
    published = each.published.items()
    return rows + [{**known, "method": method, "kind": "published", "VUS-PR": value} for method, value in published]


def _summary(result: SuiteResult) -> dict[str, Any]:
    return {
        "suite": result.suite,
        "ranked_by": result.lead,
        "series": [f"{each.case.name} ({each.case.split})" for each in result.cases],
        "rows": [
            {
                "method": row.method,
                "kind": row.kind,
                "figures": {name: _plain(figure) for name, figure in row.figures.items()},
                "families": row.families,
            }
            for row in result.rows
        ],
        "notes": list(result.notes),
        "refusals": [asdict(refusal) for refusal in result.refusals],
    }


def _plain(figure: Interval) -> dict[str, float | int | None]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figure._asdict().items()
    }
