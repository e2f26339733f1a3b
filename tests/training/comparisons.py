"""A comparison that nobody ran: candidates with made-up figures, for tests of what is told about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.compare.choose import choose
from training.compare.costs import Cost
from training.compare.finding import Drawn, Finding, Learnt, Watched
from training.compare.over import LeftOut, told
from training.compare.plan import Plan
from training.compare.result import Result
from training.settings import TrainSettings
from training.settings.compare import CompareSettings

NASTY = '</script><img src=x onerror="document.title=1">'
PLAN = Plan("grid", 40.0, 90.0, 600.0, 2)


def learnt(loss: float, epochs: int = 12) -> list[Learnt]:
    """A loss that falls to `loss`."""
    return [
        Learnt(
            3.0 * at, loss + 0.3 * math.exp(-at / 3) - 0.01, loss + 0.25 * math.exp(-at / 3), 0.4 / (1 + at) * (at > 0)
        )
        for at in range(epochs)
    ]


def drawn(seed: int = 0, channel: str = f"bearing temperature {NASTY}") -> Drawn:
    """A noisy sine with a fault, its band, and a score that notices."""
    at, rng = np.arange(300), np.random.default_rng(seed)
    expected = np.sin(at / 9)
    observed = expected + 0.1 * rng.normal(size=300)
    observed[150:170] += 2
    score = rng.exponential(0.4, 300)
    score[152:170] = 6
    gap: list[float | None] = observed.tolist()
    gap[40:45] = [None] * 5
    times = (1_772_409_600_000 + 10_000 * at).tolist()
    return Drawn(
        "pump-03", channel, times, gap, expected.tolist(), (expected - 0.3).tolist(), (expected + 0.3).tolist(),
        score.tolist(), [4.5] * 300, [(150, 170)],
    )  # fmt: skip


def watched(vus_pr: float, streams: int = 8, seed: int = 0) -> list[Watched]:
    """Streams around a mean VUS-PR; one event each, half of them found."""
    rng = np.random.default_rng(seed)
    values = np.clip(vus_pr + rng.normal(0, 0.05, streams), 0, 1)
    return [
        Watched(f"s{at}", float(value), 1, [7 + at] if at % 2 else [], at % 2, 900, 0.1, {"2": 11, "3": 2})
        for at, value in enumerate(values)
    ]


def finding(
    number: int, values: Mapping[str, Any], loss: float = 0.2, vus_pr: float = 0.5, role: str = "candidate", **more: Any
) -> Finding:
    """A candidate that is done."""
    rng = np.random.default_rng(more.pop("seed", 0))
    known: dict[str, Any] = {
        "number": number, "role": role, "values": dict(values), "seed": 7, "label": told(values) or "not trained",
        "state": "done", "data_sha256": "5f" * 32, "epochs": learnt(loss), "loss": loss, "persistence_loss": 0.31,
        "losses": (loss + rng.normal(0, 0.02, 40)).tolist(), "coverage": 0.97, "weights": 4_000 + number,
        "bytes_per_stream": 1_200, "channels": 5, "before_s": 3.0, "fit_s": 40.0, "after_s": 45.0, "epoch_s": 1.0,
        "watched": watched(vus_pr), "drawn": drawn(number),
    }  # fmt: skip
    return Finding(**(known | more))


GRID = [
    {"model.cell": cell, "model.hidden": hidden} for cell in ("gru", "lstm", "slstm", "rnn") for hidden in (8, 16, 32)
]


def result(candidates: list[Finding] | None = None, again: list[Finding] | None = None, **more: Any) -> Result:
    """A comparison of twelve: the larger the better, and the dearer."""
    if candidates is None:
        candidates = [
            finding(n, values, 0.25 - 0.02 * (n % 3) - 0.003 * n, 0.4 + 0.03 * (n % 3) + 0.001 * n)
            for n, values in enumerate(GRID, 1)
        ]
        candidates[3] = finding(
            4, GRID[3], state="failed", reason="its process died: signal 9, most often out of memory"
        )
        candidates[6] = finding(7, GRID[6], state="pruned", reason="given up after 12 s, at a loss of 0.3121")
    again = [finding(1001, GRID[11], 0.19, 0.5, "again", seed=3)] if again is None else again
    floor = finding(0, {}, 0.33, 0.36, "floor", epochs=learnt(0.33, 1))
    done = [one for one in candidates if one.state == "done"]
    costs = {
        one.number: Cost(5 + 2.0 * (one.number % 3) + 0.3 * one.number, 80.0, 900 + 400 * (one.number % 3))
        for one in [floor, *done]
    }
    known: dict[str, Any] = {
        "settings": TrainSettings.model_validate({"name": "pumps", "data": {"plant": {}}}),
        "asked": CompareSettings(over={"model.cell": ["gru", "rnn"], "model.hidden": [8, 32]}, budget_s=1800, jobs=2),
        "plan": PLAN, "combinations": 12, "left_out": [LeftOut({"model.cell": "rnn", "model.hidden": 64}, "model: no")],
        "streams": 5, "samples": 5_400, "channels": ("flow", NASTY), "truth": "plant", "floor": floor,
        "candidates": candidates, "again": again, "costs": costs, "choice": choose(done, again, costs),
    }  # fmt: skip
    return Result(**(known | more))


def written(folder: Path, **more: Any) -> Path:
    """The report of it."""
    from training.compare.report import write_report

    path = folder / "report.html"
    write_report(path, result(**more))
    return path
