"""The comparison's report in a real browser: whole, readable on a phone and in the dark, nothing empty or hidden."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("plotly")
pytest.importorskip("torch")

from tests.evaluate.browser import DESK, PAPER, PHONE, WALK, WIDTHS, Chromium, Seen, browser
from tests.training.comparisons import GRID, NASTY, finding, result, watched, written
from training.compare.output import write


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module", params=[PHONE, DESK], ids=["dark phone", "light desk"])
def seen(request: pytest.FixtureRequest, chromium: Chromium, report: Path) -> Seen:
    return chromium.visit(report, request.param, WALK, WIDTHS, PAPER, "document.title")


def test_the_page_opens_without_a_complaint(seen: Seen) -> None:
    """No exception, no failed load; and a channel that is called like a script is a name."""
    assert seen.errors == []
    assert seen.answers[3].startswith("pumps: cell, hidden compared")


def test_every_plot_shows_something(seen: Seen) -> None:
    """Points and fronts by both costs; a curve per candidate that learnt; two bands with a fault each."""
    plots = {plot["section"].partition(":")[0]: plot for plot in seen.answers[0]}
    assert plots["Accuracy against cost"]["marks"] == 2 * (10 + 1)
    assert plots["Accuracy against cost"]["lines"] == 2
    for name in ("Learning curves", "Gradient norms before clipping"):
        assert plots[name]["lines"] == len(GRID)
    for plot in (plot for plot in seen.answers[0] if plot["section"].startswith("Forecasts")):
        assert plot["lines"] >= 4
        assert plot["shades"] == 2


def test_nothing_is_wider_than_the_screen(seen: Seen) -> None:
    """A phone scrolls the page up and down only; wide tables scroll by themselves."""
    assert seen.answers[1][0] <= seen.answers[1][1]
    assert [text for plot in seen.answers[0] for text in plot["outside"]] == []


def test_no_text_lies_upon_another(seen: Seen) -> None:
    """Within a plot the boxes of all texts are apart, at any width."""
    assert [overlap for plot in seen.answers[0] for overlap in plot["overlapping"]] == []


def test_ink_stands_out_from_paper(seen: Seen) -> None:
    """Texts of plots have the page's own ink, which is light on dark screens and dark on light ones."""
    paper, ink = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in seen.answers[2])
    assert abs(paper - ink) > 450
    assert {fill for plot in seen.answers[0] for fill in plot["inks"]} == {seen.answers[2][1]}


def test_the_report_needs_nothing_else_and_hides_nothing(report: Path) -> None:
    """It loads nothing; what failed, was given up or left out is told, with its reason."""
    body = report.read_text().partition("<body>")[2]
    assert NASTY not in body
    assert "src=" not in re.sub(r"&lt;.*?&gt;|\\u003c[^\"]*", "", body)
    for reason in ("its process died: signal 9", "given up after 12 s", "model: no"):
        assert reason in body


def test_a_report_of_little_has_no_empty_plot(chromium: Chromium, tmp_path: Path) -> None:
    """One candidate that learnt nothing, no events, no drawing: what there is nothing to show of is not there."""
    bare = finding(1, GRID[0], epochs=[], watched=watched(0.5, 0), drawn=None, losses=[0.3])
    floor = finding(0, {}, role="floor", epochs=[], watched=[], drawn=None, losses=[0.3])
    path = written(tmp_path, candidates=[bare], again=[], floor=floor)
    seen = chromium.visit(path, PHONE, WALK)
    assert seen.errors == []
    assert [plot["section"] for plot in seen.answers[0]] == ["Accuracy against cost"]
    assert seen.answers[0][0]["marks"] == 4


def test_the_same_is_left_for_programs(tmp_path: Path) -> None:
    """A row per candidate, floor and failures among them, and what is recommended with its reason."""
    write(tmp_path, result())
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 1 + len(GRID) + 1
    assert (rows[0]["role"], rows[1]["model.cell"], rows[4]["state"]) == ("floor", "gru", "failed")
    assert float(rows[1]["us/sample"]) > 0
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["recommended"] in document["as_good_as_the_best"]
    assert document["reason"][0].startswith("Take ")
    assert len(document["candidates"]) == len(rows)
