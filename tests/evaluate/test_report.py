"""The evaluation's report: worst first, whole, and readable in a real browser by screen, thumb and keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("plotly")

from tests.evaluate.browser import DESK, PAPER, PHONE, WALK, WIDTHS, Chromium, Seen, browser
from training.evaluate.measures.bootstrap import Interval, mean_interval
from training.evaluate.report import write_report
from training.evaluate.results import CaseResult, Refusal, Row, SuiteResult
from training.evaluate.suites import Case
from training.evaluate.verdict import Verdict

NASTY = '</script><img src=x onerror="document.title=1">'


def result(name: str, family: str, vus_pr: float, rows: int = 1_200, **more: float) -> CaseResult:
    """A sine with a fault at 700, found late, and a false alarm at 400."""
    rng, at = np.random.default_rng(len(name)), np.arange(rows)
    values = np.sin(at / 9) + 0.1 * rng.normal(size=rows)
    values[700:730] += 2
    values[100:120] = np.nan
    labels, anomaly = np.zeros(rows, np.uint8), np.zeros(rows, np.uint8)
    labels[700:730], anomaly[[400, 401, *range(705, 740)]] = 1, 1
    score = rng.exponential(0.4, rows).astype(np.float32)
    score[[400, 705]] = 6
    expected = np.sin(at / 9).astype(np.float32)
    expected[:20] = np.nan
    channels = (f"bearing temperature {NASTY}", "load")
    both = np.stack([values, rng.normal(size=rows)], axis=1)
    case = Case("made-up", family, name, "dev", at * 10**9, both, labels, 300, channels, 1.0)
    opened, threshold = np.array([400, 705]), np.full(rows, 4.5, np.float32)
    verdict = Verdict(score, anomaly, opened, threshold, 0, expected, expected - 0.3, expected + 0.3, 0.1)
    floors = {"difference": {"VUS-PR": 0.2}}
    return CaseResult(case, verdict, {"VUS-PR": vus_pr, **more}, floors, {"KShapeAD": 0.9 - vus_pr / 2})


def suite(*cases: CaseResult, lead: str = "VUS-PR", is_higher_better: bool = True) -> SuiteResult:
    figures = {lead: mean_interval([0.2, 0.5, 0.7]), "alarms/day": Interval(1.5, 0.2, 4.0, 3)}
    published = {lead: Interval(0.41, np.nan, np.nan, 3)}
    families = {"pumps": 0.4, "a family with quite a long name": 0.2}
    rows = (
        Row("tidewarden", "ours", figures, families),
        Row("difference", "floor", figures, families),
        Row("KShapeAD", "published", published, families),
    )
    refusals = (Refusal("broken.npz", "row 7: expected a number, got 'seven'"),)
    return SuiteResult("made-up", lead, is_higher_better, cases, rows, ("Run on a Saturday.",), refusals)


SERIES = (
    result("middling", "pumps", 0.5),
    result("undefined", "pumps", float("nan")),
    result("worst", "a family with quite a long name", 0.02),
    result("best", "pumps", 0.97),
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, [suite(*SERIES)], f"Made up {NASTY}")
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with browser() as running:
        yield running


def names(path: Path) -> list[str]:
    return re.findall(r"<h3>([^<]*)</h3><p class=", path.read_text())


def test_the_worst_series_come_first(report: Path) -> None:
    """By the lead measure; a series for which it is not defined comes last."""
    assert names(report) == ["worst", "middling", "best", "undefined"]


def test_where_less_is_better_the_highest_come_first(tmp_path: Path) -> None:
    """The control of the order above."""
    write_report(tmp_path / "report.html", [suite(*SERIES, is_higher_better=False)])
    assert names(tmp_path / "report.html") == ["best", "middling", "worst", "undefined"]


def test_misses_are_ordered_by_how_bad_they_are(tmp_path: Path) -> None:
    """Hits are 0 or 1; among equals VUS-PR decides. A lead that no single series has leaves it to VUS-PR alone."""
    told = {"b": (0.2, 0.0), "a": (0.1, 1.0), "c": (0.1, 0.0)}
    hits = [result(name, "pumps", vus_pr, **{"hit rate": hit}) for name, (vus_pr, hit) in told.items()]
    write_report(tmp_path / "hits.html", [suite(*hits, lead="hit rate")])
    assert names(tmp_path / "hits.html") == ["c", "b", "a"]
    write_report(tmp_path / "nab.html", [suite(*SERIES[:3], lead="NAB")])
    assert names(tmp_path / "nab.html") == ["worst", "middling", "undefined"]


def test_the_report_needs_nothing_else_and_trusts_no_name(report: Path) -> None:
    """It loads nothing, and a channel that is called like a script is a name; what was refused is told, with reason."""
    body = report.read_text().partition("<body>")[2]
    assert "src=" not in re.sub(r"&lt;.*?&gt;|\\u003c[^\"]*", "", body)
    assert NASTY not in body
    assert "broken.npz: row 7" in body
    assert "http" not in body.replace("https://plot.ly", "")


def test_a_large_run_stays_readable_by_a_browser(tmp_path: Path) -> None:
    """Below 15 MB with as many and as long series as come: they are thinned more, and the worst are drawn."""
    many = [result(f"n{n}", "pumps", n / 500, rows=9_000) for n in range(20)]
    write_report(tmp_path / "report.html", [suite(*(many * 25))])
    assert (tmp_path / "report.html").stat().st_size < 15e6
    assert len(names(tmp_path / "report.html")) == 400
    assert "the worst of 500" in (tmp_path / "report.html").read_text()


# What a reader sees; each expression is evaluated in the page.


@pytest.fixture(scope="module", params=[PHONE, DESK], ids=["dark phone", "light desk"])
def seen(request: pytest.FixtureRequest, chromium: Chromium, report: Path) -> Seen:
    return chromium.visit(report, request.param, WALK, WIDTHS, PAPER, "document.title")


def test_the_page_opens_without_a_complaint(seen: Seen) -> None:
    """No exception, no failed load, no error on the console; and names did not become scripts."""
    assert seen.errors == []
    assert seen.answers[3].startswith("Made up")


def test_a_broken_page_is_noticed(chromium: Chromium, tmp_path: Path) -> None:
    """The control of the one above: an exception and an error on the console are seen."""
    page = tmp_path / "broken.html"
    page.write_text("<script>console.error('oh'); nowhere.at.all</script>")
    assert len(chromium.visit(page, DESK).errors) == 2


def test_every_plot_shows_something(seen: Seen) -> None:
    """Bars; and of each series four lines and a band, two alarms, and shades of training, event and open anomaly."""
    bars, *series = seen.answers[0]
    assert bars["lines"] >= 6
    assert [one["series"] for one in series] == ["worst", "middling", "best", "undefined"]
    for one in series:
        assert one["lines"] >= 5
        assert one["marks"] == 2
        assert one["shades"] == 4


def test_nothing_is_wider_than_the_screen(seen: Seen) -> None:
    """A phone scrolls the page up and down only; wide tables scroll by themselves."""
    assert seen.answers[1][0] <= seen.answers[1][1]


def test_no_text_lies_upon_another(seen: Seen) -> None:
    """Within a plot the boxes of all texts are apart, at any width."""
    assert [overlap for plot in seen.answers[0] for overlap in plot["overlapping"]] == []


def test_ink_stands_out_from_paper(seen: Seen) -> None:
    """Texts of page and plots have a contrast of 7 and more (WCAG AAA) on dark screens and on light ones."""
    paper, ink = seen.answers[2]
    for colour in {ink, *(fill for plot in seen.answers[0] for fill in plot["inks"])}:
        assert contrast(colour, paper) >= 7


def contrast(one: str, other: str) -> float:
    """Of two CSS colours, as WCAG 2 has it."""

    def luminance(colour: str) -> float:
        channels = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


SHOWN = "[...document.querySelectorAll('article')].filter(a => !a.hidden).map(a => a.querySelector('h3').textContent)"
CHOOSE = """(async () => { const box = document.querySelector('.%s'); box.focus(); box.value = '%s';
  box.dispatchEvent(new Event('change')); return document.activeElement === box; })()"""


def test_a_reader_chooses_family_and_order(chromium: Chromium, report: Path) -> None:
    """The family's series alone are shown and counted; the order goes by the distance to the best of the others."""
    family, order = CHOOSE % ("family", "pumps"), CHOOSE % ("order", "behind")
    told = "document.querySelector('output').textContent"
    seen = chromium.visit(report, DESK, SHOWN, family, SHOWN, told, order, SHOWN)
    assert seen.answers[0] == ["worst", "middling", "best", "undefined"]
    assert seen.answers[1:4] == [True, ["middling", "best", "undefined"], "3 of 4 series"]
    assert seen.answers[4:] == [True, ["middling", "best", "undefined"]]


def test_a_button_zooms_to_the_event(chromium: Chromium, report: Path) -> None:
    """Reached by keyboard as well: the rows around the event fill the plot, and the values its height."""
    zoom = """(async () => { const button = [...document.querySelectorAll('article button')]
      .find((b) => b.textContent === 'event 1'); button.focus(); button.click();
      await new Promise((done) => setTimeout(done, 500));
      const plot = button.closest('article').querySelector('.plot');
      return [document.activeElement === button, plot.layout.xaxis.range, plot.layout.yaxis.range]; })()"""
    focused, rows, heights = chromium.visit(report, DESK, zoom).answers[0]
    assert focused
    assert rows == [640, 789]
    assert -2.5 < heights[0] < -0.9
    assert 2 < heights[1] < 4
