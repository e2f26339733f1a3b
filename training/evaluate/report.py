"""The evaluation's HTML report: tables, bars by family, then the series one by one, worst first.

People look at the misses: each series shows its values with the labelled spans, what was expected, the score in nines
with its threshold, and the alarms, beside the best that others reached on it. One file that needs nothing else, for
light and dark screens, wide ones and phones; curves are thinned to keep it below about 15 MB, no peak is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from training.evaluate.card import FINER_SHARE, LOOKS_MOST, best_of_others, card, ranked_by
from training.evaluate.measured import VUS_PR
from training.evaluate.measures.bootstrap import Interval
from training.evaluate.results import CaseResult, Row, SuiteResult
from training.page import BLUE, GREY, ORANGE, page, plot, scroll, section

_DATA_BYTES = 9_000_000  # for the series' data; plotly itself is 4.5 MB
_BUCKET_BYTES = 130  # of a bucket: lowest and highest of six curves, less what is flat, in base64
_BUCKETS_MOST, _BUCKETS_LEAST = 1_000, 100
_SERIES_MOST = 400  # drawn in all; the others are in the tables alone
_KINDS = {"ours": "", "floor": "floor", "baseline": "run here", "published": "published"}
_COLOURS = {"ours": BLUE, "floor": GREY, "baseline": "#5b9a5b", "published": ORANGE}
_PALE = "#9cc3e6"
_BAR_PX, _FAMILY_PX = 16, 14  # heights: of a bar, and of the room between families

_STYLE = """
  :root { --observed: #d9702b; --expected: #3b82c4; --lower: transparent; --upper: transparent;
    --band: rgba(59,130,196,.22); --score: #7a8593; --threshold: #8b5fc7; --alarm: #cf222e;
    --truth: rgba(207,34,46,.16); --train: rgba(128,128,128,.10) }
  @media (prefers-color-scheme: dark) { :root { --score: #a3adb8; --threshold: #b794f4; --alarm: #ff7b72;
    --truth: rgba(255,123,114,.22); --train: rgba(160,160,160,.12) } }
  article { border-top: 1px solid var(--line); padding-top: .2rem; margin-top: 1.6rem }
  article .plot { min-height: 340px } h3 { font-size: 1rem; margin: .6rem 0 0 }
  .soft { color: var(--soft); margin: 0; font-weight: normal } .scroll + .soft { margin-top: .6rem }
  td:first-child, th:first-child { position: sticky; left: 0; background: var(--paper); min-width: 7rem }
  @media (min-width: 40rem) { td:first-child { min-width: 12rem } }
  tr.ours td { font-weight: 600 } td.figure { white-space: nowrap }
  .figures { list-style: none; padding: 0; margin: .3rem 0; display: flex; flex-wrap: wrap; gap: .1rem 1.2rem }
  .choice { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; align-items: center; margin: 1rem 0 }
  select, button { font: inherit; color: var(--ink); background: var(--paper); border: 1px solid var(--line);
    border-radius: .4rem; padding: .25rem .6rem; max-width: 100% }
  .looks { display: flex; flex-wrap: wrap; gap: .4rem; margin: .4rem 0 }
  .key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .4rem 0; padding: 0; list-style: none }
  .key li::before { content: ""; display: inline-block; width: 1.1em; height: .75em; margin-right: .4em;
    background: var(--of) }
  .key .line::before { height: 3px; vertical-align: .25em } .key .mark::before { content: attr(data-mark);
    background: none; color: var(--of); width: auto; height: auto }
"""
_KEY = "".join(
    f'<li class="{kind}" style="--of: var(--{name})" data-mark="{mark}">{told}</li>'
    for name, kind, mark, told in (
        ("observed", "line", "", "observed"),
        ("expected", "line", "", "expected"),
        ("band", "fill", "", "expected band"),
        ("score", "line", "", "score"),
        ("threshold", "line", "", "threshold"),
        ("truth", "fill", "", "labelled as anomalous"),
        ("train", "fill", "", "training part"),
        ("alarm", "mark", "▼", "alarm in an event"),
        ("alarm", "mark", "✕", "alarm outside"),
        ("alarm", "line", "", "anomaly open (at the foot)"),
    )
)


def write_report(path: Path, results: Sequence[SuiteResult], title: str = "Evaluation") -> None:
    """Write the page.

    Args:
        path: File to write.
        results: What was found, suite by suite.
        title: Its headline.
    """
    drawn = [_worst_first(suite)[: _SERIES_MOST // len(results)] for suite in results]
    buckets = _DATA_BYTES / (_BUCKET_BYTES * (1 + LOOKS_MOST * FINER_SHARE) * max(1, sum(map(len, drawn))))
    buckets = int(min(_BUCKETS_MOST, max(_BUCKETS_LEAST, buckets)))
    parts = [_suite(suite, cases, buckets) for suite, cases in zip(results, drawn, strict=True)]
    script = Path(__file__).with_name("report.js").read_text(encoding="utf-8")
    path.write_text(page(title, [*parts, f"<script>{script}</script>"], _STYLE), encoding="utf-8")


def _suite(suite: SuiteResult, cases: Sequence[CaseResult], buckets: int) -> str:
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in suite.notes)
    parts = [scroll(_table(suite), f"{suite.suite}: results"), notes, _refusals(suite)]
    if any(row.families for row in suite.rows):
        parts += [f"<h3>{escape(suite.lead)} by family</h3>", _key(_barred(suite)), plot(_bars(suite))]
    if cases:
        parts += [
            "<h3>The series</h3>",
            _choice(suite, cases),
            f'<ul class="key">{_KEY}</ul>',
            _cards(suite, cases, buckets),
        ]
    return f'<div class="suite">{section(suite.suite, *parts)}</div>'


def _worst_first(suite: SuiteResult) -> list[CaseResult]:
    """By the lead measure, equal ones (hits and misses) by VUS-PR; those for which it is not defined come last."""

    def goodness(result: CaseResult) -> tuple[float, float]:
        lead = result.measures.get(ranked_by(suite), math.nan)
        first = math.inf if math.isnan(lead) else lead if suite.is_higher_better else -lead
        return first, result.measures.get(VUS_PR, math.inf)

    return sorted(suite.cases, key=goodness)


def _table(suite: SuiteResult) -> str:
    """The suite's table: a line per method, a column per measure."""
    columns = list(dict.fromkeys(name for row in suite.rows for name in row.figures))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("method", *columns))
    lines = "".join(
        f'<tr class="{row.kind}"><td>{escape(row.method)} <span class="soft">{_KINDS[row.kind]}</span></td>'
        + "".join(f'<td class="figure">{_told(row.figures.get(name))}</td>' for name in columns)
        + "</tr>"
        for row in suite.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _told(figure: Interval | None) -> str:
    """A mean with its interval, where there is one."""
    if figure is None or math.isnan(figure.mean):
        return ""
    told = f"{figure.mean:.3g}"
    return told if math.isnan(figure.low) else f'{told} <span class="soft">{figure.low:.3g} to {figure.high:.3g}</span>'


def _refusals(suite: SuiteResult) -> str:
    """What could not be measured, and why; nothing is left out in silence."""
    if not suite.refusals:
        return ""
    items = "".join(f"<li>{escape(refusal.case)}: {escape(refusal.reason)}</li>" for refusal in suite.refusals)
    return f"<h3>Not measured</h3><ul>{items}</ul>"


def _barred(suite: SuiteResult) -> list[Row]:
    """The rows that are drawn as bars: ours, and of each other kind the one with the best mean."""
    rows = [row for row in suite.rows if row.families]
    chosen = [row for row in rows if row.kind == "ours"]
    for kind in ("published", "baseline", "floor"):
        chosen += sorted((row for row in rows if row.kind == kind), key=lambda row: -_mean(row, suite))[:1]
    return chosen


def _mean(row: Row, suite: SuiteResult) -> float:
    """Mean of the lead measure, the higher the better."""
    figure = row.figures[suite.lead].mean if suite.lead in row.figures else math.nan
    return -math.inf if math.isnan(figure) else figure if suite.is_higher_better else -figure


def _key(rows: Sequence[Row]) -> str:
    items = (f'<li style="--of: {of}">{escape(row.method)}</li>' for row, of in zip(rows, _colours(rows), strict=True))
    return f'<ul class="key">{"".join(items)}</ul>'


def _colours(rows: Sequence[Row]) -> list[str]:
    """By kind; a second detector of ours has a paler blue."""
    seen: list[str] = []
    for row in rows:
        seen.append(_PALE if row.kind == "ours" and BLUE in seen else _COLOURS[row.kind])
    return seen


def _bars(suite: SuiteResult) -> go.Figure:
    """Lying bars, for families have long names and phones are narrow."""
    rows = _barred(suite)
    families = list(dict.fromkeys(family for row in rows for family in row.families))
    figure = go.Figure()
    for row, colour in zip(rows, _colours(rows), strict=True):
        bars = [row.families.get(family) for family in families]
        figure.add_bar(y=families, x=bars, orientation="h", name=row.method, marker_color=colour)
    figure.update_yaxes(autorange="reversed", automargin=True, fixedrange=True).update_xaxes(fixedrange=True)
    height = len(families) * (len(rows) * _BAR_PX + _FAMILY_PX) + 90
    return figure.update_layout(barmode="group", showlegend=False, xaxis_title=suite.lead, height=height)


def _choice(suite: SuiteResult, cases: Sequence[CaseResult]) -> str:
    """What the reader may choose: the family, and the order."""
    families = sorted({result.case.family for result in cases})
    options = "".join(f'<option value="{escape(family)}">{escape(family)}</option>' for family in families)
    left_out = len(suite.cases) - len(cases)
    rest = f", the worst of {len(suite.cases)}" if left_out else ""
    return (
        f'<div class="choice"><label>Family <select class="family"><option value="">all</option>{options}</select>'
        '</label><label>Order <select class="order"><option value="worst">worst first</option>'
        '<option value="behind">furthest behind the best of the others</option></select></label>'
        f'<span><output aria-live="polite">{len(cases)} of {len(cases)} series</output>{rest}</span></div>'
    )


def _cards(suite: SuiteResult, cases: Sequence[CaseResult], buckets: int) -> str:
    behind = sorted(range(len(cases)), key=lambda at: _lead_over_others(cases[at], suite))
    places = {at: place for place, at in enumerate(behind)}
    cards = (card(result, suite, {"worst": at, "behind": places[at]}, buckets) for at, result in enumerate(cases))
    return f'<div class="series">{"".join(cards)}</div>'


def _lead_over_others(result: CaseResult, suite: SuiteResult) -> float:
    """Ours less the best of the others, the higher the better; those that cannot be compared come last."""
    lead = result.measures.get(ranked_by(suite), math.nan) - best_of_others(result, suite)
    return math.inf if math.isnan(lead) else lead if suite.is_higher_better else -lead
