"""The comparison's HTML report: the recommendation, the table, and the figures; one file that needs nothing else.

For light and dark screens, wide ones and phones, as all of our pages (training/page.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from training.compare import drawing
from training.compare.choose import LOSS, VUS_PR
from training.compare.costs import FLEET
from training.compare.figures import UNITS, events_found, figures
from training.compare.finding import Finding
from training.compare.over import told
from training.compare.plan import minutes
from training.compare.result import Result
from training.compare.words import ORIGINS, recommendation
from training.page import BAND, BLUE, GREY, ORANGE, facts, page, plot, scroll, section

_STYLE = """
  .lead { font-size: 1.15rem; font-weight: 600; margin-bottom: .4rem } .reason { padding-left: 1.2rem }
  .soft { color: var(--soft); font-weight: normal } h3 { font-size: 1rem; margin: 1.4rem 0 0 }
  td:first-child, th:first-child { position: sticky; left: 0; background: var(--paper); min-width: 7rem }
  @media (min-width: 40rem) { td:first-child { min-width: 12rem } }
  tr.taken td { font-weight: 600 } td.figure { white-space: nowrap }
  .key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .4rem 0; padding: 0; list-style: none }
  .key li::before { content: ""; display: inline-block; width: 1.1em; height: .75em; margin-right: .4em;
    background: var(--of) }
"""
_CURVES = {
    "observed": ORANGE,
    "expected": BLUE,
    "band": BAND,
    "score": drawing.SCORE,
    "threshold": drawing.THRESHOLD,
    "something is wrong": drawing.FAULT,
}


def write_report(path: Path, result: Result) -> None:
    """Write the page."""
    parts = [
        section("Recommendation", _recommendation(result)),
        section("Candidates", scroll(_table(result), "candidates"), _units(result)),
        *_figures(result),
        *_others(result),
        section("What was compared", facts("asked", _asked(result)), facts("data", _data(result))),
    ]
    title = f"{result.settings.name}: {', '.join(key.rpartition('.')[2] for key in result.asked.over)} compared"
    path.write_text(page(title, parts, _STYLE), encoding="utf-8")


def _recommendation(result: Result) -> str:
    lead, *reasons = map(escape, recommendation(result))
    items = "".join(f"<li>{reason}</li>" for reason in reasons)
    return f'<p class="lead">{lead}</p><ul class="reason">{items}</ul>'


def _table(result: Result) -> str:
    """A line per candidate, best first, and the floor; a column per figure that any of them has."""
    lines = [*result.done, result.floor]
    budget = result.settings.decide.budget_per_day
    known = {one.number: figures(one, result.costs[one.number], budget) for one in lines}
    names = [name for name in UNITS if any(known[one.number][name] is not None for one in lines)]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("candidate", *names))
    rows = "".join(_line(result, one, known[one.number], names) for one in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _line(result: Result, one: Finding, known: Mapping[str, float | None], names: Sequence[str]) -> str:
    marks = [word for word, holds in _marks(result, one).items() if holds]
    name = f'{escape(one.label)} <span class="soft">{", ".join(marks)}</span>'
    cells = "".join(f'<td class="figure">{_cell(one, column, known[column])}</td>' for column in names)
    return f'<tr class="{"taken" if one is result.choice.taken else ""}"><td>{name}</td>{cells}</tr>'


def _marks(result: Result, one: Finding) -> dict[str, bool]:
    return {
        "recommended": one is result.choice.taken,
        "as good as the best": one is not result.choice.taken and one in result.choice.steps[-1].left,
        "Pareto front": one.number in result.choice.front,
    }


def _cell(one: Finding, column: str, value: float | None) -> str:
    """A figure, with its 95 % interval where it has one."""
    if value is None:
        return ""
    if column == "events found":
        return "{} of {}".format(*events_found(one.watched))
    shown = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    measure = {LOSS.name: LOSS, VUS_PR.name: VUS_PR}.get(column)
    if measure is None or len(measure.of(one)) < 2:
        return shown
    interval = measure.interval(one)
    return f'{shown} <span class="soft">{interval.low:.3g} to {interval.high:.3g}</span>'


def _units(result: Result) -> str:
    """What the columns are, folded away."""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(what)}</td></tr>" for name, what in UNITS.items())
    return f"<details><summary>What the columns are</summary>{scroll(f'<table>{rows}</table>', 'columns')}</details>"


def _figures(result: Result) -> Iterator[str]:
    """Each figure that has something to show."""
    key = _candidates_key(result)
    hint = f'<p class="soft">The diamond is the recommended one, the ring the floor; {FLEET} streams side by side.</p>'
    yield section("Accuracy against cost", key, plot(drawing.costs(result)), hint)
    if any(one.epochs for one in result.candidates):
        dashes = '<p class="soft">Dashes: the last value as a forecast.</p>'
        yield section("Learning curves", key, plot(drawing.learning_curves(result)), dashes)
    if any(epoch.gradient_norm for one in result.candidates for epoch in one.epochs):
        yield section("Gradient norms before clipping", key, plot(drawing.gradient_norms(result)))
    drawn = result.floor.drawn
    if drawn:
        plots = (
            f"<h3>{escape(one.label)}</h3>{plot(drawing.forecasts(one.drawn))}"
            for one in drawing.shown(result)
            if one.drawn
        )
        yield section(f"Forecasts: {drawn.channel} of {drawn.stream}", _key(_CURVES), *plots)


def _candidates_key(result: Result) -> str:
    coloured = drawing.colours(result)
    names = {one.number: one.label for one in result.done}
    items = {names[number]: colour for number, colour in coloured.items()}
    return _key(items | ({"others": GREY} if len(result.candidates) > len(items) else {}))


def _key(items: Mapping[str, str]) -> str:
    told = "".join(f'<li style="--of: {colour}">{escape(name)}</li>' for name, colour in items.items())
    return f'<ul class="key">{told}</ul>'


def _others(result: Result) -> Iterator[str]:
    """What has no figures, and why; nothing is left out in silence."""
    rows: list[tuple[str, str, str]] = [(one.label, one.state, one.reason) for one in result.not_done]
    rows += [(told(one.values), "left out", one.reason) for one in result.left_out]
    if rows:
        lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        yield section("Without figures", scroll(f"<table>{lines}</table>", "without figures"))


def _asked(result: Result) -> dict[str, object]:
    asked, plan = result.asked, result.plan
    way = "every combination" if plan.way == "grid" else "a search among them, pruned early"
    return {
        **{key: ", ".join(map(str, values)) for key, values in asked.over.items()},
        "combinations": result.combinations,
        "way": way,
        "budget": f"{minutes(asked.budget_s)} on {asked.jobs} core{'s' if asked.jobs > 1 else ''}",
        "training of each": f"{minutes(plan.fit_s)} of the processor",
    }


def _data(result: Result) -> dict[str, object]:
    return {
        "streams": result.streams,
        "samples": f"{result.samples:,}",
        "channels": ", ".join(result.channels) if result.channels else "differ from stream to stream",
        "later span": f"{result.settings.fit.validation_share:.0%} of the time, never trained on",
        "known to be wrong": f"{result.events} events, from {ORIGINS[result.truth]}",
        "sha256": result.floor.data_sha256,
    }
