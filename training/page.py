"""One HTML page that needs nothing else: for light and dark screens, wide ones and phones. Reports are made of it.

Ink and lines are variables of the style sheet, so that a page follows the screen without a script; plotly's own texts
are made to use them too.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

BLUE, ORANGE, GREY, BAND = "#3b82c4", "#d9702b", "#888888", "rgba(59,130,196,0.22)"
"""Of lines and fills; they stand out on both kinds of paper."""
HALF_DECADES = "D2"
"""Where the labels of a short logarithmic axis stand: 1, 2, 5, 10; all digits would lie upon each other."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>
  :root {{ --ink: #1d2733; --soft: #59636e; --paper: #ffffff; --line: #d8dee6; }}
  @media (prefers-color-scheme: dark) {{
    :root {{ --ink: #d7dde5; --soft: #9aa4af; --paper: #14191f; --line: #333d49; }} }}
  body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
         color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }}
  h1 {{ font-size: 1.5rem }} h2 {{ font-size: 1.1rem; margin-top: 2.2rem }}
  .scroll {{ overflow-x: auto }}
  table {{ border-collapse: collapse }} td, th {{ border-bottom: 1px solid var(--line); padding: .25rem 1rem .25rem 0;
         text-align: left; font-variant-numeric: tabular-nums; overflow-wrap: normal }}
  .plot text {{ fill: var(--ink) !important }}
  .plot .hoverlayer path {{ fill: var(--paper) !important; stroke: var(--line) !important }}
{style}
</style><script>{plotly}</script></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""
_CONFIG = {"responsive": True, "displayModeBar": False}  # its buttons would lie over the texts on a phone
_FAINT, _FIRM = "rgba(128,128,128,0.25)", "rgba(128,128,128,0.4)"


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """The whole document.

    Args:
        title: Its headline, as text.
        body: Its parts, as HTML.
        style: More of the style sheet.
    """
    return _PAGE.format(title=html.escape(title), plotly=get_plotlyjs(), body="\n".join(body), style=style)


def section(headline: str, *content: str) -> str:
    """A part of the page under a headline (text) of its own; content is HTML."""
    return f"<section><h2>{html.escape(headline)}</h2>{''.join(content)}</section>"


def facts(name: str, rows: Mapping[str, object]) -> str:
    """A table of names and what they are."""
    cells = "".join(
        f"<tr><td>{html.escape(str(key))}</td><td>{html.escape(text(row))}</td></tr>" for key, row in rows.items()
    )
    return scroll(f"<table><tr><th colspan=2>{html.escape(name)}</th></tr>{cells}</table>", name) + "<br>"


def scroll(table: str, name: str) -> str:
    """A table (HTML) that a narrow screen scrolls by itself, by keyboard too, instead of the page."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(name)}">{table}</div>'


def text(value: object) -> str:
    """A figure as it is printed: four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plot(figure: go.Figure) -> str:
    """A figure as part of the page, as wide as the page; margins that it has set itself stand."""
    margins = {"l": 60, "r": 20, "t": 56 if _has_legend(figure) else 16, "b": 40}
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin=margins | figure.layout.margin.to_plotly_json(),
        legend={"orientation": "h", "yref": "container", "y": 1, "yanchor": "top"},  # above all, titles too
    )
    figure.update_xaxes(gridcolor=_FAINT, zerolinecolor=_FIRM)
    figure.update_yaxes(gridcolor=_FAINT, zerolinecolor=_FIRM, nticks=6)  # more lie on each other on a log axis
    drawn = figure.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG)
    return f'<div class="plot">{drawn}</div>'


def _has_legend(figure: go.Figure) -> bool:
    return figure.layout.showlegend is not False and sum(trace.showlegend is not False for trace in figure.data) > 1
